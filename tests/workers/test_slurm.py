"""The scripts of docs/clusters.md under a real SLURM: two nodes, which die, come back and run out of time."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lottery_jax.approximation.run import chunk_folder
from tests.cli.calling import MODEL, as_process, lottery_jax, matrices, own_data
from tests.workers import page, slurm

pytestmark = pytest.mark.slow
MODEL_WORDS = {"--candidates 21": " ".join(map(str, MODEL))}
COMPARED = (
    *("--candidates", 8, "--tolerance", 0.2, "--seeds", 0, 1, "--keeps", 0.2, 0.5, "--epochs", 3, "--methods"),
    *("dense", "pensia", "random", "edge-popup-wide", "magnitude", "iterative-magnitude"),
)
TENSORS = 1500
"""So many chunks take two workers ten seconds and more."""


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
    """Wait until some chunks are finished and both workers are at work."""
    end = time.monotonic() + 120
    while chunks(folder) < count or said(folder).count("Registered to") < 2:
        assert time.monotonic() < end and cluster.state(job) in ("RUNNING", "PENDING"), cluster.logs()
        time.sleep(0.05)


def ends(cluster: slurm.Slurm, job: str, folder: Path) -> None:
    assert cluster.until(job, "COMPLETED", "FAILED", "NODE_FAIL") == "COMPLETED", said(folder)


def said(folder: Path) -> str:
    """What the job has printed."""
    output = folder / "ticket.out"
    return output.read_text() if output.exists() else ""


def finished(folder: Path, alone: bytes, kept: int = 0) -> None:
    """The ticket exists, and nothing else; so many chunks were found."""
    assert (folder / "ticket.safetensors").read_bytes() == alone
    assert not chunk_folder(folder / "ticket.safetensors").exists()
    assert f"({kept * 64**2:,} were solved earlier)" in said(folder) and "HOLDS for the target" in said(folder)


@pytest.mark.parametrize("victim", ["n1", "n2"])
def test_a_job_is_queued_again_where_a_node_fails(
    victim: str, cluster: slurm.Slurm, folder: Path, alone: bytes
) -> None:
    """And resumes."""
    job = cluster.submit(written(folder, "ticket"))
    under_way(cluster, job, folder)
    cluster.fail(victim)
    cluster.until(job, "PENDING")
    cluster.back(victim)
    kept = chunks(folder)
    assert 50 <= kept < TENSORS
    cluster.tell("scontrol", "update", f"job={job}", "StartTime=now")
    ends(cluster, job, folder)
    finished(folder, alone, kept)


def tell_worker(cluster: slurm.Slurm, job: str, number: signal.Signals) -> None:
    """Send a signal to the second worker of a job, and to its nanny, which would start it again."""
    own = {f"SLURM_JOB_ID={job}", "SLURM_PROCID=1", f"SLURM_CONF={cluster.folder}/slurm.conf"}
    told = 0
    for pid in cluster.tell("pgrep", "python|dask").split():
        with contextlib.suppress(OSError):  # it has ended
            if own <= set(Path(f"/proc/{pid}/environ").read_text().split("\0")):
                os.kill(int(pid), number)
                told += 1
    assert told


@pytest.mark.parametrize("lost", ["a worker", "its node"])
def test_the_other_worker_continues(lost: str, cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    words = {"--requeue": "--requeue --no-kill", "srun": "srun --no-kill"} if lost == "its node" else {}
    job = cluster.submit(written(folder, "ticket", **words))
    under_way(cluster, job, folder)
    if lost == "its node":
        cluster.fail("n2")
    else:
        tell_worker(cluster, job, signal.SIGKILL)
    try:
        cluster.until(job, "COMPLETED", "NODE_FAIL")  # for SLURM a task that a node has lost is a failure
        finished(folder, alone)
        assert said(folder).count("Registered to") == 2
    finally:
        if lost == "its node":
            cluster.back("n2")


@pytest.mark.parametrize(("ended", "limit"), [("CANCELLED", "00:10:00"), ("TIMEOUT", "00:01:00")])
def test_a_second_submission_resumes(ended: str, limit: str, cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    job = cluster.submit(written(folder, "ticket", **{"--time=00:10:00": f"--time={limit}"}))
    under_way(cluster, job, folder)
    if ended == "TIMEOUT":
        tell_worker(cluster, job, signal.SIGSTOP)  # its unit does not end
    else:
        cluster.tell("scancel", job)
    assert cluster.until(job, ended, "COMPLETED") == ended
    start = time.monotonic()
    while "CG" in cluster.tell("squeue", "--noheader", f"--job={job}", "--format=%t"):
        assert time.monotonic() - start < 20
        time.sleep(0.1)
    assert "finished chunks are kept in" in said(folder)
    time.sleep(1)
    kept = chunks(folder)
    assert 50 <= kept < TENSORS and not (folder / "ticket.safetensors").exists()
    time.sleep(1)
    assert chunks(folder) == kept, "a worker is left"
    ends(cluster, cluster.submit(written(folder, "ticket")), folder)
    finished(folder, alone, kept)


def test_an_array_and_the_command_after_it(cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    """Of its eight tasks as many at a time as there are cores."""
    array = cluster.submit(written(folder, "shares"))
    last = page.script("shares").replace("--array=1-8", f"--dependency=afterany:{array}")
    last = last.replace('--share "$SLURM_ARRAY_TASK_ID/8"', "--join-only")
    script = folder / "ticket.sh"
    script.write_text(page.here(last, folder, **MODEL_WORDS))
    ends(cluster, cluster.submit(script), folder)
    finished(folder, alone, TENSORS)
    assert cluster.state(array) == "COMPLETED"


def test_two_nodes_share_a_comparison(cluster: slurm.Slurm, tmp_path: Path) -> None:
    own_data(tmp_path / "my_data.npz")
    matrices(tmp_path / "my_network.safetensors", **{"fc1.weight": (3, 4), "fc2.weight": (2, 3)})
    data = ("--data", tmp_path / "my_data.npz", "--target", tmp_path / "my_network.safetensors")
    assert lottery_jax("compare", *data, *COMPARED, "--out", tmp_path / "alone") == 0
    before, _, _ = page.script("ticket").rpartition("lottery-jax ")
    (command,) = (line for line in page.commands() if line.startswith("lottery-jax compare --scheduler-file $file"))
    script = tmp_path / "ticket.sh"
    script.write_text(page.here(f"{before}{command} {' '.join(map(str, COMPARED))}", tmp_path))
    ends(cluster, cluster.submit(script), tmp_path)
    assert said(tmp_path).count("Registered to") == 2
    (one,), (other,) = ((tmp_path / name).iterdir() for name in ("alone", "runs"))
    assert {path.name for path in other.iterdir()} == {path.name for path in one.iterdir()}
    for path in (*(one / "tickets").iterdir(), one / "figure.png"):
        assert (other / path.relative_to(one)).read_bytes() == path.read_bytes()
    assert records(other) == records(one)


def records(folder: Path) -> list[dict]:
    """But for times."""
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert all(row["seconds"] is None or row["seconds"] > 0 for row in rows)
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


def test_workers_of_jobqueue(cluster: slurm.Slurm, folder: Path, alone: bytes) -> None:
    (script,) = (block for block in page.python() if "SLURMCluster" in block)
    words = {
        "/shared": str(folder),
        "candidates=21": "construction='scalar', candidates=8, tolerance=0.5",
        "job_cpu=8": "job_cpu=1",
        "jobs=8": "jobs=2",
        "32GB": "1GB",
        '["--gpus=1"]': "[]",
        "04:00:00": "00:10:00",
    }
    compile(script, "docs/clusters.md", "exec")
    if importlib.util.find_spec("dask_jobqueue") is None:
        pytest.skip("dask-jobqueue is not installed; only the syntax was checked")
    for old, new in words.items():
        assert old in script
        script = script.replace(old, new)
    environment = as_process() | cluster.environment
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (as_process()["PYTHONPATH"], os.environ.get("PYTHONPATH")))
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr
    assert (folder / "ticket.safetensors").read_bytes() == alone
