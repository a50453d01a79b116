"""Processes that share a job: the same file as one makes, over loopback, whichever of them dies on the way."""

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lottery_jax import load_model
from lottery_jax.approximation import ToleranceObjective, plan_job
from lottery_jax.approximation.chunk_store import FolderChunkStore
from lottery_jax.approximation.job import Job
from lottery_jax.approximation.run import chunk_folder, run_to_file, solve_job
from lottery_jax.constructions import Scalar
from lottery_jax.errors import InputError
from lottery_jax.workers.cluster import join
from lottery_jax.workers.coordination import KNOWN_JAX, Service
from lottery_jax.workers.workers import SERIAL, Share
from tests.cli.calling import MODEL, SMALL, Word, as_process, lottery_jax, matrices

PATIENCE = 5
TENSORS = 120
WEIGHTS = TENSORS * 64 * 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = {f"layer{place:03d}.weight": (64, 64) for place in range(TENSORS)}
    return matrices(tmp_path_factory.mktemp("model") / "model.safetensors", **shapes)


@pytest.fixture(scope="module")
def job(model: Path) -> Job:
    """What the command plans."""
    return plan_job(load_model(model)[0], Scalar(candidates=8), ToleranceObjective(0.5), seed=0)


@pytest.fixture(scope="module")
def alone(model: Path) -> bytes:
    """The ticket that a process alone makes."""
    out = model.with_name("alone")
    assert lottery_jax("approximate", "--model", model, *MODEL, "--out", out) == 0
    return out.read_bytes()


def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(process: int, where: str, *words: Word, processes: int = 2) -> subprocess.Popen:
    command = [sys.executable, "-m", "lottery_jax", *words, "--json", "--patience", PATIENCE]
    command += ["--coordinator", where, "--processes", processes, "--process", process]
    return subprocess.Popen(
        [*map(str, command)], env=as_process(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_pair(*words: Word) -> list[subprocess.Popen]:
    where = address()
    return [start(process, where, *words) for process in (0, 1)]


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=200)
    return process.returncode, output, errors


def under_way(folder: Path, *processes: subprocess.Popen) -> None:
    """Wait until a chunk is finished."""
    end = time.monotonic() + 150
    while not any(folder.glob("chunk-*")):
        assert time.monotonic() < end and all(process.poll() is None for process in processes)
        time.sleep(0.001)


@pytest.mark.clock
def test_the_others_go_on_where_a_process_was_killed(model: Path, alone: bytes, tmp_path: Path) -> None:
    out = tmp_path / "ticket"
    pair = start_pair("approximate", "--model", model, *MODEL, "--out", out)
    under_way(chunk_folder(out), *pair)
    pair[1].kill()
    code, output, errors = ended(pair[0])
    ended(pair[1])  # its worker too: until then its output would stay open
    found = json.loads(output)
    assert code == 0 and found["holds"] and (found["found_weights"], found["solved_weights"]) == (0, WEIGHTS)
    assert "process 1 is lost: no heartbeat for 5 seconds" in errors or "process 1 " not in errors
    assert out.read_bytes() == alone and [path.name for path in tmp_path.iterdir()] == ["ticket"]


@pytest.mark.slow
def test_the_others_wait_for_process_0_and_go_on_with_it(model: Path, alone: bytes, tmp_path: Path) -> None:
    out, where = tmp_path / "ticket", address()
    asked = ("approximate", "--model", model, *MODEL, "--out", out)
    first, other = (start(process, where, *asked) for process in (0, 1))
    under_way(chunk_folder(out), first, other)
    first.kill()
    ended(first)
    again = start(0, where, *asked)
    results = [ended(again), ended(other)]
    assert [code for code, _, _ in results] == [0, 0], results
    assert json.loads(results[0][1])["found_weights"] > 0 and results[1][1] == ""
    assert "process 0 is lost (see JAX's message above); waiting for it to come back" in results[1][2]
    assert out.read_bytes() == alone and [path.name for path in tmp_path.iterdir()] == ["ticket"]


@pytest.mark.slow
def test_the_others_end_where_process_0_does_not_come_back(model: Path, alone: bytes, tmp_path: Path) -> None:
    out = tmp_path / "ticket"
    asked = ("approximate", "--model", model, *MODEL, "--out", out)
    first, other = start_pair(*asked)
    under_way(chunk_folder(out), first, other)
    first.kill()
    killed = time.monotonic()
    code, output, errors = ended(other)
    ended(first)
    assert code == 3 and output == "" and time.monotonic() - killed < 60
    last = errors.splitlines()[-1]
    assert last.startswith("lottery-jax: process 0 did not come back") and "start every process again" in last
    assert not out.exists() and any(chunk_folder(out).glob("chunk-*"))
    results = [ended(process) for process in start_pair(*asked)]
    assert [code for code, _, _ in results] == [0, 0], results
    found = json.loads(results[0][1])
    assert found["holds"] and found["found_weights"] + found["solved_weights"] == WEIGHTS
    assert found["found_weights"] > 0 and results[1][1:] == ("", "")
    assert out.read_bytes() == alone and not chunk_folder(out).exists()


@pytest.mark.slow
def test_another_seed_is_refused_by_all(model: Path, tmp_path: Path) -> None:
    asked, where = ("approximate", "--model", model, *MODEL, "--out", tmp_path / "t"), address()
    pair = [start(0, where, *asked), start(1, where, *asked, "--seed", 1)]
    for code, output, errors in map(ended, pair):
        assert (code, output) == (2, "")
        said = r"lottery-jax: process 1 on \S+ has another job \(seed or options\) than process 0 on \S+: \w+, not \w+;"
        assert re.match(said, errors.splitlines()[-1]), errors
    assert not (tmp_path / "t").exists()


@pytest.mark.slow
def test_two_processes_make_the_ticket_of_a_network(target: Path, tmp_path: Path) -> None:
    """Process 0 measures it on the test set."""
    asked = ("approximate", "--target", target, *SMALL, "--out")
    results = [ended(process) for process in start_pair(*asked, tmp_path / "t")]
    assert [code for code, _, _ in results] == [0, 0], results
    assert json.loads(results[0][1])["agreement"] > 0.5 and results[1][1] == ""
    assert lottery_jax(*asked, tmp_path / "alone") == 0
    assert (tmp_path / "t").read_bytes() == (tmp_path / "alone").read_bytes()


def test_any_number_of_processes_may_finish(job: Job, alone: bytes, tmp_path: Path) -> None:
    folder = FolderChunkStore(chunk_folder(tmp_path / "ticket"))
    folder.make()
    done = solve_job(job, folder, workers=Share(2, 3))
    finished = run_to_file(job, tmp_path / "ticket", workers=SERIAL)
    assert finished.found == done.solved == WEIGHTS // 3
    assert (tmp_path / "ticket").read_bytes() == alone


def test_a_version_of_jax_in_which_processes_cannot_meet_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src.distributed import global_state

    monkeypatch.setattr(global_state, "client", object())
    with pytest.raises(InputError, match=f"cannot be used\\. Install one of .*{KNOWN_JAX[0]}.* or run one process"):
        Service()


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
