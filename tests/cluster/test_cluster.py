"""Processes that share a job: the same file as one makes, in turn and over loopback, also after one was killed."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lottery_jax import load_model
from lottery_jax.cluster.join import KNOWN_JAX, Cluster, join
from lottery_jax.constructions import Promise, Scalar, plan_job
from lottery_jax.constructions.chunks import Folder
from lottery_jax.constructions.job import Job
from lottery_jax.constructions.run import chunk_folder, run_to_file, solve_chunks
from lottery_jax.errors import InputError
from tests.cli.calling import MODEL, SMALL, Word, as_process, lottery_jax, matrices

PATIENCE = 5
TENSORS = 24
WEIGHTS = TENSORS * 64 * 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = {f"layer{place:02d}.weight": (64, 64) for place in range(TENSORS)}
    return matrices(tmp_path_factory.mktemp("model") / "model.safetensors", **shapes)


@pytest.fixture(scope="module")
def job(model: Path) -> Job:
    """What the command plans."""
    return plan_job(load_model(model)[0], Scalar(candidates=8), Promise(0.5), seed=0)


@pytest.fixture(scope="module")
def alone(model: Path) -> bytes:
    """The ticket that a process alone makes."""
    out = model.with_name("alone")
    assert lottery_jax("approximate", "--model", model, *MODEL, "--out", out) == 0
    return out.read_bytes()


def start_pair(*words: Word) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "lottery_jax", "approximate", *words, "--json"]
    command += ["--coordinator", address, "--processes", 2, "--patience", PATIENCE, "--process"]
    return [
        subprocess.Popen(
            [*map(str, command), str(process)],
            env=as_process(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=200)
    return process.returncode, output, errors


def kill_one_then_finish(model: Path, alone: bytes, out: Path, victim: int) -> None:
    asked, folder = ("--model", model, *MODEL, "--out", out), chunk_folder(out)
    pair = start_pair(*asked)
    end = time.monotonic() + 150
    while not any(folder.glob("chunk-*")):
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
    assert not out.exists() and any(folder.glob("chunk-*"))
    pair = start_pair(*asked)
    results = [ended(process) for process in pair]
    assert [code for code, _, _ in results] == [0, 0], results
    found = json.loads(results[0][1])
    assert found["holds"] and found["found_weights"] + found["solved_weights"] == WEIGHTS // 2
    assert results[1][1] == "" and "process 1 of 2 is done" in results[1][2]
    assert out.read_bytes() == alone and not folder.exists()


def test_the_file_is_the_same_after_a_process_was_killed(model: Path, alone: bytes, tmp_path: Path) -> None:
    kill_one_then_finish(model, alone, tmp_path / "ticket", victim=1)


@pytest.mark.slow
def test_the_file_is_the_same_after_the_coordinator_was_killed(model: Path, alone: bytes, tmp_path: Path) -> None:
    kill_one_then_finish(model, alone, tmp_path / "ticket", victim=0)


@pytest.mark.slow
def test_two_processes_make_the_ticket_of_a_network(target: Path, tmp_path: Path) -> None:
    """Process 0 measures it on the test set."""
    asked = ("--target", target, *SMALL, "--out")
    results = [ended(process) for process in start_pair(*asked, tmp_path / "t")]
    assert [code for code, _, _ in results] == [0, 0], results
    assert json.loads(results[0][1])["agreement"] > 0.5 and results[1][1] == ""
    assert lottery_jax("approximate", *asked, tmp_path / "alone") == 0
    assert (tmp_path / "t").read_bytes() == (tmp_path / "alone").read_bytes()


def test_processes_in_turn_make_the_same_file(job: Job, alone: bytes, tmp_path: Path) -> None:
    """What each of three would do, one after the other; only the last sees all chunks and may write the ticket."""
    waited, out = [], tmp_path / "ticket"

    class Turn(Cluster):
        def wait(self, name: str) -> None:
            waited.append((self.process, name))

    for process in (2, 1, 0):
        done = run_to_file(job, out, cluster=Turn(process, 3))
        assert (done.found, done.solved) == (0, WEIGHTS // 3) and out.exists() == (process == 0)
    assert out.read_bytes() == alone and not chunk_folder(out).exists()
    assert waited == [(process, name) for process in (2, 1, 0) for name in ("solved", "written")]


def test_another_number_of_processes_may_finish(job: Job, alone: bytes, tmp_path: Path) -> None:
    folder = Folder(chunk_folder(tmp_path / "ticket"))
    folder.make()
    done = solve_chunks(job, folder, cluster=Cluster(1, 3))
    finished = run_to_file(job, tmp_path / "ticket")
    assert finished.found == done.solved == WEIGHTS // 3
    assert (tmp_path / "ticket").read_bytes() == alone


def test_a_process_alone_waits_for_nobody() -> None:
    Cluster().wait("solved")
    Cluster().leave()


def test_a_version_of_jax_in_which_processes_cannot_meet_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src.distributed import global_state

    monkeypatch.setattr(global_state, "client", object())
    with pytest.raises(InputError, match=f"cannot meet with JAX .*{KNOWN_JAX[0]}.* or run one process"):
        Cluster(0, 2).wait("solved")


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
def test_bad_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        join(**options)


def test_without_a_cluster_the_options_are_named(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lottery_jax", "approximate", "--model", str(model), "--distributed"]
    ended = subprocess.run(command, env=as_process(), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert "--coordinator HOST:PORT" in ended.stderr and len(ended.stderr.splitlines()) == 1
