"""Two processes that share a job over loopback: the same file as one makes, also after one of them was killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax.cluster import supervisor
from lottery_jax.cli import main
from lottery_jax.cluster.join import Cluster, join
from lottery_jax.constructions import model
from lottery_jax.errors import InputError

CANDIDATES = 8
TOLERANCE = 0.5  # nothing is drawn again, so few shapes are compiled
PATIENCE = 5


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file({f"layer{k:02d}.weight": rng.normal(0, 0.1, (64, 64)).astype(np.float32) for k in range(24)}, path)
    return path


@pytest.fixture(scope="module")
def alone(model_file, tmp_path_factory):
    """The ticket that a process alone makes."""
    out = tmp_path_factory.mktemp("alone") / "ticket"
    model.approximate_model(model_file, out, seed=0, candidates=CANDIDATES, tolerance=TOLERANCE)
    return out.read_bytes()


def start_pair(model_file, out):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = f"approximate --model {model_file} --out {out} --candidates {CANDIDATES} --tolerance {TOLERANCE} --json"
    shared = f"--coordinator {address} --processes 2 --patience {PATIENCE} --process"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "lottery_jax", *command.split(), *shared.split(), str(process)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]


def ended(process):
    output, errors = process.communicate(timeout=200)
    return process.returncode, output, errors


def kill_one_then_finish(model_file, alone, out, victim):
    pair = start_pair(model_file, out)
    folder = model.chunk_folder(out)
    end = time.monotonic() + 150
    while not (folder.is_dir() and any(folder.glob("chunk-*"))):
        assert time.monotonic() < end and all(process.poll() is None for process in pair)
        time.sleep(0.001)
    pair[victim].kill()
    killed = time.monotonic()
    code, output, errors = ended(pair[1 - victim])
    ended(pair[victim])  # its worker too: until then its output would stay open
    assert code == 3 and output == ""
    assert errors.splitlines()[-1].startswith("lottery-jax: another process of this job died")
    assert "start every process again" in errors.splitlines()[-1]
    assert time.monotonic() - killed < 60
    assert not out.exists()
    kept = {path.name for path in folder.glob("chunk-*")}
    pair = start_pair(model_file, out)
    results = [ended(process) for process in pair]
    assert [code for code, _, _ in results] == [0, 0], results
    found = json.loads(results[0][1])
    assert found["holds"] and kept and found["found_weights"] + found["solved_weights"] == 24 * 64 * 64 // 2
    assert results[1][1] == ""
    assert out.read_bytes() == alone
    assert not folder.exists()


def test_the_file_is_the_same_after_a_process_was_killed(model_file, alone, tmp_path):
    kill_one_then_finish(model_file, alone, tmp_path / "ticket", victim=1)


@pytest.mark.slow
def test_the_file_is_the_same_after_the_coordinator_was_killed(model_file, alone, tmp_path):
    kill_one_then_finish(model_file, alone, tmp_path / "ticket", victim=0)


@pytest.mark.slow
def test_two_processes_make_the_same_file(model_file, alone, tmp_path):
    pair = start_pair(model_file, tmp_path / "ticket")
    assert [ended(process)[0] for process in pair] == [0, 0]
    assert (tmp_path / "ticket").read_bytes() == alone


def test_processes_in_turn_make_the_same_file(model_file, alone, tmp_path):
    """What each of three would do, one after the other; only the last sees all chunks and may write the ticket."""
    job = model.plan_job(model_file, seed=0, candidates=CANDIDATES, tolerance=TOLERANCE)
    waited = []

    class Turn(Cluster):
        def wait(self, name):
            waited.append((self.process, name))

    for process in (2, 1, 0):
        model.run_job(job, tmp_path / "ticket", cluster=Turn(process, 3))
    assert (tmp_path / "ticket").read_bytes() == alone
    assert waited == [(process, name) for process in (2, 1, 0) for name in ("solved", "written")]
    assert not model.chunk_folder(tmp_path / "ticket").exists()


def test_another_number_of_processes_may_finish(model_file, alone, tmp_path):
    job = model.plan_job(model_file, seed=0, candidates=CANDIDATES, tolerance=TOLERANCE)
    done = model.solve_chunks(job, model.chunk_folder(tmp_path / "ticket"), process=1, processes=3)
    finished = model.run_job(job, tmp_path / "ticket")
    assert finished.found == done.solved == job.weights // 3
    assert (tmp_path / "ticket").read_bytes() == alone


def test_a_process_alone_waits_for_nobody():
    Cluster().wait("solved")
    Cluster().leave()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"coordinator": "here"}, "HOST:PORT"),
        ({"coordinator": "here:1", "processes": 0, "process": 0}, "at least 1"),
        ({"coordinator": "here:1", "processes": 2, "process": 2}, "count from 0"),
        ({"coordinator": "here:1", "processes": 2, "process": -1}, "count from 0"),
        ({"coordinator": "here:1", "processes": 2, "process": 0, "patience": 0}, "patience"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        join(**options)


def test_only_a_model_is_shared(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["approximate", "--distributed"])
    assert stopped.value.code == 2
    assert "--model" in capsys.readouterr().err


def test_without_a_cluster_the_options_are_named(model_file, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    command = ["approximate", "--model", str(model_file), "--out", str(tmp_path / "ticket"), "--distributed"]
    run = subprocess.run(
        [sys.executable, "-m", "lottery_jax", *command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 2
    assert "--coordinator HOST:PORT" in run.stderr and len(run.stderr.splitlines()) == 1


WORKERS = {
    "import sys; sys.exit(2)": (2, ""),
    "import os; os.abort()": (3, "another process of this job died"),
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": (137, "ended by SIGKILL"),
}


@pytest.mark.parametrize("program", WORKERS)
def test_the_supervisor_says_how_a_worker_ended(program, tmp_path, monkeypatch, capsys):
    (tmp_path / "lottery_jax.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, words = WORKERS[program]
    assert supervisor.supervise([]) == code
    assert words in capsys.readouterr().err


def test_signals_are_handed_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "lottery_jax.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    stop = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stop.start()
    assert supervisor.supervise([]) == 128 + signal.SIGTERM
    assert "ended by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
