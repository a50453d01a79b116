"""Running a job: in memory, on disk, cut anyhow, on many devices or by many processes, always the same bytes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax.approximation import (
    Budget,
    Job,
    ToleranceObjective,
    plan_job,
    run_in_memory,
    run_to_file,
    solve_weights,
)
from lottery_jax.approximation.chunk_store import FolderChunkStore
from lottery_jax.approximation.run import JobResult, chunk_folder, run_share
from lottery_jax.constructions import Pensia, Scalar, ScalarShared
from lottery_jax.rng.sampler import draw_host
from lottery_jax.subset_sum.engine.chunks import _search
from lottery_jax.tasks import load_model
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.workers.units import Share
from tests.constructions.catalogue import CHUNK, COUNT, TARGETS, Nearest, bag, model_file

ROOT = Path(__file__).parents[2]
NEAREST = ToleranceObjective(0.5, max_redraws=2, solver=Nearest())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the tensors of the bag; other tensors are skipped."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    others = {"bias": np.ones(33, np.float32), "steps": np.ones((2, 3), int)}
    save_file({name: bag().array(name) for name in bag().network.tensors} | others, path)
    return path


def plan(model: Path, **changes: object) -> Job:
    construction = changes.pop("construction", Scalar(COUNT))
    return plan_job(load_model(model)[0], construction, NEAREST, **{"seed": 3, "chunk_weights": 64, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("construction", [Scalar(COUNT), ScalarShared(COUNT)])
def test_a_file_is_approximated_as_it_is_in_memory(construction, model, tmp_path, monkeypatch) -> None:
    contents, weights = set(), 35 + 36 + 45 + 6
    for chunk, piece in ((8, 1 << 15), (64, 8), (None, 1 << 15)):
        monkeypatch.setattr("lottery_jax.approximation.solve_weights.MAX_HOST_WEIGHTS", piece)
        out, seen = tmp_path / f"runs/{chunk}", list[tuple[int, int]]()
        job = plan(model, construction=construction, chunk_weights=chunk)
        done = run_to_file(job, out, progress=lambda *done, seen=seen: seen.append(done))
        assert done == JobResult(0, weights, path=out) and job.weights == weights
        assert seen[0] == (0, weights) and seen[-1] == (weights, weights) and seen == sorted(seen)
        assert len(seen) == len(job.chunks) + 1 and not chunk_folder(out).exists()
        contents |= {out.read_bytes(), run_in_memory(job).to_bytes()}
    assert len(contents) == 1, "the size of chunks and pieces must not show"
    ticket = load_ticket(out)
    assert any(len(ticket.redraws(name)) for name in ticket.network.random_tensors), "no redraw: the test is too easy"
    assert ticket.target is not None and ticket.target.digest == load_model(model)[0].digest
    for name in ticket.network.approximated:
        assert ticket.target.array(name).dtype == bag().array(name).dtype
        np.testing.assert_array_equal(ticket.target.array(name), bag().array(name))


def jobs() -> list[Job]:
    """Several constructions; an objective with redraws and one without."""
    network = TARGETS["mlp with biases, inputs of any sign"]()
    kinds = ((bag(), Scalar, NEAREST), (bag(), ScalarShared, NEAREST), (network, Pensia, NEAREST))
    kinds = (*kinds, (network, Pensia, Budget(60, k_max=3)))
    return [plan_job(target, kind(COUNT), objective, seed=3, chunk_weights=CHUNK) for target, kind, objective in kinds]


EIGHT = """
import jax, pathlib, sys
from tests.approximation.test_run import jobs, run_in_memory
assert len(jax.devices()) == 8
for job in jobs():
    (pathlib.Path(sys.argv[1]) / job.identity).write_bytes(run_in_memory(job).to_bytes())
"""


def test_eight_devices_make_the_same_tickets(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    subprocess.run([sys.executable, "-c", EIGHT, tmp_path], check=True, cwd=ROOT, env=environment)
    for job in jobs():
        assert (tmp_path / job.identity).read_bytes() == run_in_memory(job).to_bytes()


def test_workers_solve_the_chunks(model: Path, tmp_path: Path) -> None:
    """Those that are missing or damaged, each as a unit."""
    job, out, seen = plan(model), tmp_path / "ticket", list[tuple[int, int]]()
    run_share(job, out, Share(1, 2))
    FolderChunkStore(chunk_folder(out)).file(0).write_bytes(b"damaged")
    found = sum(chunk.weights for chunk in job.chunks[::2]) - job.chunks[0].weights
    with ThreadPoolExecutor(2) as executor:
        done = run_to_file(job, out, executor=executor, progress=lambda *done: seen.append(done))
        assert (done.found, done.solved, len(done.damaged)) == (found, job.weights - found, 1)
        assert seen[0] == (found, job.weights) and seen[-1] == (job.weights, job.weights) and seen == sorted(seen)
        assert out.read_bytes() == run_in_memory(job).to_bytes() and list(tmp_path.iterdir()) == [out]
        assert run_to_file(job, out, executor=executor) == JobResult(job.weights, 0, path=out), "nothing is left"


def test_a_tensor_goes_over_to_the_next_stream(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2**32 positions are too many to solve here, so that a stream is made to end after 16 blocks."""
    monkeypatch.setattr("lottery_jax.rng.random_tensor.MAX_SIZE", COUNT * 20)
    job = plan(model)
    run_to_file(job, tmp_path / "ticket")
    ticket = load_ticket(tmp_path / "ticket")
    assert ticket.to_bytes() == run_in_memory(job).to_bytes()
    assert sorted(drawn.streams for drawn in ticket.network.random_tensors.values()) == [1, 3, 3, 3]
    made, stream = effective_weights(ticket), 0
    for name, drawn in ticket.network.random_tensors.items():
        again = ticket.redraws(name)[:, 0]
        for block in np.setdiff1d(np.arange(drawn.blocks), again):
            at = stream + block // 16
            copies = draw_host(drawn.sampler, seed=3, stream=at, shape=(16, COUNT))[block % 16].astype(np.float64)
            assert copies[ticket.mask(name).reshape(-1, COUNT)[block]].sum() == made[name].reshape(-1)[block]
        stream += drawn.streams


def test_tensors_of_one_size_share_their_programs(tmp_path: Path) -> None:
    """Bounds are arguments of the compiled programs: only the first tensor compiles."""
    random = np.random.default_rng(0)
    scales = {"a": 1.0, "b": 0.25, "c": 7.0}
    save_file({k: (size * random.uniform(-1, 1, (9, 17))).astype("f4") for k, size in scales.items()}, tmp_path / "m")
    counts = []
    for pattern in ("a", "*"):
        run_in_memory(plan_job(load_model(tmp_path / "m", pattern)[0], Scalar(COUNT), NEAREST, seed=0))
        counts.append((solve_weights._draw_run._cache_size(), _search._cache_size()))
    assert counts[0] == counts[1]


MEMORY = """
import pathlib, sys
from lottery_jax.tickets.verify import verify
from tests.approximation.test_run import Nearest, Scalar, ToleranceObjective
from tests.approximation.test_run import load_model, load_ticket, plan_job, run_to_file
peaks, out = [], pathlib.Path(sys.argv[1]) / "ticket"
for name in ("warm", "small", "large"):
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    target, _ = load_model(out.with_name(name))
    objective = ToleranceObjective(solver=Nearest(), max_redraws=0)
    run_to_file(plan_job(target, Scalar(), objective, seed=0), out, force=True)
    verify(load_ticket(out), target=target)
    status = pathlib.Path("/proc/self/status").read_text()
    peaks.append(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
print(*peaks)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell a peak")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """Two and eight million weights, 21 candidates for each: 0.2 and 0.7 GB of candidates if they were all there."""
    for name, rows in (("warm", 300), ("small", 2000), ("large", 8000)):
        model_file(tmp_path / name, {"w": (rows, 1000)})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", MEMORY, tmp_path]
    ended = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    warm, small, large = (int(kib) / 2**10 for kib in ended.stdout.split())
    assert large - small < 64 and large - warm < 512, (warm, small, large)
