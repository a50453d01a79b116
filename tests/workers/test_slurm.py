"""The batch scripts of docs/clusters.md under a real SLURM: two nodes, which die, come back and run out of time."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lottery_jax.approximation.run import chunk_folder
from tests.cli.calling import MODEL, lottery_jax, matrices, own_data
from tests.workers import page, slurm

pytestmark = pytest.mark.slow
MODEL_WORDS = {"--candidates 21": " ".join(map(str, MODEL))}
COMPARED = (
    *("--candidates", 8, "--tolerance", 0.2, "--seeds", 0, 1, "--keeps", 0.2, 0.5, "--epochs", 3, "--methods"),
    *("dense", "pensia", "random", "edge-popup-wide", "magnitude", "iterative-magnitude"),
)
TENSORS = 1500
"""So many chunks take two processes some ten seconds."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Slurm]:
    if (reason := slurm.missing()) is not None:
        pytest.skip(reason)
    with slurm.running() as found:
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = {f"layer{place:04d}": (64, 64) for place in range(TENSORS)}
    return matrices(tmp_path_factory.mktemp("model") / "model.safetensors", **shapes)


@pytest.fixture(scope="module")
def alone(cluster: slurm.Slurm, model: Path) -> bytes:
    """The ticket that a process alone makes."""
    out = model.with_name("alone")
    assert lottery_jax("approximate", "--model", model, *MODEL, "--out", out) == 0
    return out.read_bytes()


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """What the nodes share."""
    (tmp_path / "model.safetensors").symlink_to(model)
    return tmp_path


def written(folder: Path, name: str, **words: str) -> Path:
    """A script of the page, for what is here."""
    path = folder / f"{name}.sh"
    path.write_text(page.here(page.script(name), folder, **{**MODEL_WORDS, **words}))
    return path


def chunks(folder: Path) -> int:
    return len(list(chunk_folder(folder / "ticket.safetensors").glob("chunk-*")))


def under_way(cluster: slurm.Slurm, job: str, folder: Path, count: int = 50) -> None:
    """Wait until some chunks are finished."""
    end = time.monotonic() + 120
    while chunks(folder) < count:
        assert time.monotonic() < end and cluster.state(job) in ("RUNNING", "PENDING"), cluster.logs()
        time.sleep(0.05)


def finished(folder: Path, alone: bytes) -> str:
    """The ticket is there, and nothing else; what the job has said."""
    assert (folder / "ticket.safetensors").read_bytes() == alone
    assert not chunk_folder(folder / "ticket.safetensors").exists()
    return (folder / "ticket.out").read_text()


def test_two_nodes_make_the_ticket(cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    job = cluster.submit(written(folder, "ticket"))
    assert cluster.until(job, "COMPLETED", "FAILED") == "COMPLETED", (folder / "ticket.out").read_text()
    said = finished(folder, alone)
    assert "process 0 on n1: 2 processes share the work" in said and "HOLDS for the target" in said


@pytest.mark.parametrize("victim", ["n1", "n2"])
def test_a_job_is_queued_again_where_a_node_fails(
    victim: str, cluster: slurm.Slurm, folder: Path, alone: bytes
) -> None:
    """And goes on where it was."""
    job = cluster.submit(written(folder, "ticket"))
    under_way(cluster, job, folder)
    cluster.fail(victim)
    cluster.until(job, "PENDING")
    cluster.back(victim)
    kept = chunks(folder)
    assert 50 <= kept < TENSORS
    cluster.tell("scontrol", "update", f"job={job}", "StartTime=now")
    assert cluster.until(job, "COMPLETED", "FAILED") == "COMPLETED", (folder / "ticket.out").read_text()
    said = finished(folder, alone)
    assert f"({kept * 64**2:,} were solved earlier)" in said and said.count("2 processes share the work") == 2


def test_the_other_node_goes_on_where_it_shall(cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    words = {"--requeue": "--requeue --no-kill", "srun": "srun --no-kill"}
    job = cluster.submit(written(folder, "ticket", **words, **{"--distributed": "--distributed --patience 3"}))
    under_way(cluster, job, folder)
    cluster.fail("n2")
    try:
        cluster.until(job, "COMPLETED", "FAILED", "NODE_FAIL")  # for SLURM a task that was killed is a failure
        said = finished(folder, alone)
        assert "Node failure on n2" in said and said.count("2 processes share the work") == 1
    finally:
        cluster.back("n2")


def test_the_others_go_on_where_a_process_is_killed(cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    words = {"--distributed": "--distributed --patience 3"}
    job = cluster.submit(written(folder, "ticket", **words))
    under_way(cluster, job, folder)
    # As for want of memory.
    pids = cluster.tell("pgrep", "--full", f"lottery_jax approximate.*{folder}").split()
    second = [pid for pid in pids if b"SLURM_PROCID=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    assert second
    for pid in second:
        os.kill(int(pid), signal.SIGKILL)
    cluster.until(job, "COMPLETED", "FAILED")
    said = finished(folder, alone)
    assert "n2: task 1: Killed" in said and said.count("2 processes share the work") == 1


def test_scancel_is_obeyed_and_nothing_is_lost(cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    script = written(folder, "ticket")
    job = cluster.submit(script)
    under_way(cluster, job, folder)
    start = time.monotonic()
    cluster.tell("scancel", job)
    while "CG" in cluster.tell("squeue", "--noheader", f"--job={job}", "--format=%t"):
        assert time.monotonic() - start < 20
        time.sleep(0.1)
    assert time.monotonic() - start < 5 and cluster.state(job) == "CANCELLED"
    assert "finished chunks are kept in" in (folder / "ticket.out").read_text()
    kept = chunks(folder)
    assert 50 <= kept < TENSORS and not (folder / "ticket.safetensors").exists()
    time.sleep(1)
    assert chunks(folder) == kept, "nobody works on"
    assert cluster.until(cluster.submit(script), "COMPLETED", "FAILED") == "COMPLETED"
    assert f"({kept * 64**2:,} were solved earlier)" in finished(folder, alone)


def test_a_second_submission_goes_on_after_a_time_limit(cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    """It is warned sixty seconds before; of a limit of a minute that is at once."""
    limited = written(folder, "ticket", **{"--time=00:10:00": "--time=00:01:00"})
    job = cluster.submit(limited)
    state = cluster.until(job, "FAILED", "TIMEOUT", "COMPLETED")
    said = (folder / "ticket.out").read_text()
    if state == "COMPLETED":
        pytest.skip("this machine was done before SLURM looked at its clock")
    assert "143" in said and ("finished chunk" in said or "the ticket is written" in said)
    assert cluster.until(cluster.submit(written(folder, "ticket")), "COMPLETED", "FAILED") == "COMPLETED"
    assert "(0 were solved earlier)" not in finished(folder, alone).splitlines()[-2]


def test_an_array_and_the_command_after_it(cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    """Of its eight tasks as many at a time as there are cores."""
    array = cluster.submit(written(folder, "shares"))
    last = page.script("shares").replace("--array=1-8", f"--dependency=afterany:{array}")
    last = last.replace('--share "$SLURM_ARRAY_TASK_ID/8"', "--join-only")
    script = folder / "ticket.sh"
    script.write_text(page.here(last, folder, **MODEL_WORDS))
    job = cluster.submit(script)
    assert cluster.until(job, "COMPLETED", "FAILED") == "COMPLETED", (folder / "ticket.out").read_text()
    assert f"({TENSORS * 64**2:,} were solved earlier)" in finished(folder, alone)
    assert cluster.state(array) == "COMPLETED"


def test_two_nodes_share_a_comparison(cluster: slurm.Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_data(tmp_path / "my_data.npz")
    matrices(tmp_path / "my_network.safetensors", **{"fc1.weight": (3, 4), "fc2.weight": (2, 3)})
    data = ("--data", tmp_path / "my_data.npz", "--target", tmp_path / "my_network.safetensors")
    assert lottery_jax("compare", *data, *COMPARED, "--out", tmp_path / "alone") == 0
    script = written(tmp_path, "comparison", **{f"--out {tmp_path}/runs": f"--out {tmp_path}/runs {words(*COMPARED)}"})
    job = cluster.submit(script)
    assert cluster.until(job, "COMPLETED", "FAILED") == "COMPLETED", (tmp_path / "comparison.out").read_text()
    (one,), (other,) = ((tmp_path / name).iterdir() for name in ("alone", "runs"))
    assert {path.name for path in other.iterdir()} == {path.name for path in one.iterdir()}
    for ticket in (one / "tickets").iterdir():
        assert (other / "tickets" / ticket.name).read_bytes() == ticket.read_bytes()
    assert records(other) == records(one) and (other / "figure.png").read_bytes() == (one / "figure.png").read_bytes()
    assert "process 0 on n1: 2 processes share the work" in (tmp_path / "comparison.out").read_text()


def words(*given: object) -> str:
    return " ".join(map(str, given))


def records(folder: Path) -> list[dict]:
    """But for times."""
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert np.all([row["seconds"] is None or row["seconds"] > 0 for row in rows])
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]
