"""A model's ticket against an oracle in memory: whole streams drawn by NumPy, all subsets tried, bits compared."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from lottery_jax.certificate import approximated_weights, verify
from lottery_jax.constructions.model import approximate_model, chunk_folder, merge, plan_job, solve_chunk, solve_chunks
from lottery_jax.model_certificate import approximated_slice, verify_file
from lottery_jax.ticket import Ticket, open_ticket
from safetensors.numpy import save_file

from lottery_jax.errors import InputError
from lottery_jax.sampler import Sampler, draw_host
from lottery_jax.subset_sum import MeetInTheMiddle, Pareto
from lottery_jax.subset_sum.engine.chunks import _search
from tests.constructions.kill_driver import Nearest
from tests.subset_sum.oracles import all_residuals

SETTINGS = {"seed": 3, "candidates": 9, "tolerance": 0.05}
STRIDE = 1 << 16
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """Every type of float, matrices and a convolution, of sizes that are no multiple of 8."""
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.normal(size=(37, 11)).astype(np.float32),
        "conv.weight": rng.normal(size=(5, 3, 3, 3)).astype(np.float16),
        "d.weight": rng.uniform(-0.3, 0.3, (9, 5)),
        "h.weight": (rng.normal(size=(19, 7)) * 0.1).astype(ml_dtypes.bfloat16),
    }


@pytest.fixture(scope="module")
def model(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with these tensors, one of zeros, and two to be skipped."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    others = {"a.bias": np.ones(33, np.float32), "steps": np.ones((2, 3), int), "zero.weight": np.zeros((3, 2), "f4")}
    save_file(tensors | others, path)
    return path


def oracle(ticket: Ticket, place: int, weights: np.ndarray, objective: str) -> None:
    """Each weight's bits are as good as the best of all subsets of its candidates, drawn anew from its stream."""
    layer = ticket.architecture[place]
    exact = weights.astype(np.float64)
    largest = float(np.abs(exact).max())
    assert layer.sampler == Sampler.uniform(-largest, largest) and layer.shape == weights.shape
    row = exact[0].size if layer.shared else 1
    rows = dict(ticket.redraws.get(f"{place}.kernel", np.zeros((0, 2), np.int64)).tolist())
    candidates = []
    for block in range(exact.size // row):
        stream = place + STRIDE * rows.get(block, 0)
        drawn = draw_host(layer.sampler, seed=ticket.seed, stream=stream, shape=(exact.size // row, layer.copies))
        candidates.append(np.repeat(drawn[block][None], row, 0))
    candidates = np.concatenate(candidates)
    residuals, sizes = all_residuals(candidates, exact.reshape(-1))
    mask = ticket.masks[f"{place}.kernel"]
    found = np.abs(np.where(mask, candidates.astype(np.float64), 0).sum(1) - exact.reshape(-1))
    if objective == "least-error":
        assert (found <= residuals.min(1) + 1e-6).all()
    else:
        fewest = np.where(residuals <= ticket.tolerance, sizes, 99).min(1)
        assert (mask.sum(1) == fewest).all()
    assert (found <= ticket.tolerance).all()


@pytest.mark.parametrize("construction", ["scalar", "scalar-shared"])
def test_every_weight_is_solved_as_the_oracle_does(construction, model, tensors, tmp_path, monkeypatch):
    contents = set()
    for chunk, piece in ((64, 1 << 16), (1 << 18, 1 << 16), (1 << 18, 64)):
        monkeypatch.setattr(solve_chunk, "_PIECE", piece)
        out = tmp_path / f"{chunk}-{piece}.safetensors"
        finished = approximate_model(model, out, **SETTINGS, construction=construction, chunk_weights=chunk)
        assert (finished.found, finished.solved, finished.damaged) == (0, finished.job.weights, ())
        assert finished.job.skipped == {"a.bias": "it is 1-D", "steps": "its numbers are I64, not F64, F32, F16, BF16"}
        assert not chunk_folder(out).exists()
        contents.add(out.read_bytes())
    assert len(contents) == 1, "the size of chunks and pieces must not show"
    ticket = Ticket.load(out)
    assert ticket.to_bytes() in contents
    names = [layer.name for layer in ticket.architecture]
    assert sorted(names) == [*sorted(tensors), "zero.weight"]
    for name, weights in tensors.items():
        place = names.index(name)
        np.testing.assert_array_equal(ticket.target[place], weights)
        assert ticket.target[place].dtype == weights.dtype
        oracle(ticket, place, weights, "least-error")
    assert any(len(rows) for rows in ticket.redraws.values()), "no redraw: the test is too easy"


def test_the_smallest_subsets_are_those_of_the_oracle(model, tensors, tmp_path):
    out = tmp_path / "ticket"
    approximate_model(model, out, **SETTINGS, objective="smallest", pattern="h.*", chunk_weights=64)
    ticket = Ticket.load(out)
    assert ticket.method == "scalar-smallest"
    oracle(ticket, 0, tensors["h.weight"], "smallest")


EIGHT = """
import jax, pathlib, sys
from lottery_jax.constructions.model import approximate_model
from tests.constructions.kill_driver import Nearest
assert len(jax.devices()) == 8
for shared in ("scalar", "scalar-shared"):
    approximate_model(sys.argv[1], f"{sys.argv[2]}/{shared}", seed=3, candidates=9, tolerance=0.3, max_redraws=2,
                      construction=shared, solver=Nearest(), chunk_weights=64)
"""


def test_eight_devices_write_the_same_file(model, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    subprocess.run([sys.executable, "-c", EIGHT, model, tmp_path], check=True, cwd=ROOT, env=environment)
    for shared in ("scalar", "scalar-shared"):
        alone = tmp_path / "alone"
        settings = {**SETTINGS, "tolerance": 0.3, "max_redraws": 2, "solver": Nearest()}
        approximate_model(model, alone, **settings, construction=shared)
        assert alone.read_bytes() == (tmp_path / shared).read_bytes()


def test_only_plain_subsets_make_a_ticket(model, tmp_path):
    with pytest.raises(InputError, match=r"Pareto.*one subset for each weight"):
        approximate_model(model, tmp_path / "ticket", **SETTINGS, solver=Pareto(1), pattern="zero*")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="45"):
        plan_job(model, seed=0, candidates=45, solver=MeetInTheMiddle())


def test_streaming_and_whole_verification_agree(model, tmp_path):
    out = tmp_path / "ticket"
    approximate_model(model, out, **SETTINGS, construction="scalar-shared")
    streamed, whole = verify_file(out), verify(Ticket.load(out))
    assert streamed.mean_residual == pytest.approx(whole.mean_residual, rel=1e-12)
    assert dataclasses.replace(streamed, mean_residual=None) == dataclasses.replace(whole, mean_residual=None)
    assert streamed.holds and streamed.worst_tensor is not None
    with open_ticket(out) as file:
        place = [layer.name for layer in Ticket.load(out).architecture].index("a.weight")
        dense = approximated_weights(Ticket.load(out))[place][0]
        np.testing.assert_array_equal(approximated_slice(file, place, 8, 9), dense[8:17].reshape(-1))
    with pytest.raises(InputError, match="no network"):
        Ticket.load(out).network()


def test_a_pattern_takes_other_tensors(model, tmp_path):
    job = plan_job(model, seed=0, pattern="a.*")
    assert {layer.name for layer in job.tensors} == {"a.weight", "a.bias"}
    assert job.skipped["h.weight"] == "its name does not match"
    with pytest.raises(InputError, match=r"no float tensor that matches 's\*', but .*steps \(its numbers are I64"):
        plan_job(model, seed=0, pattern="s*")


def test_failures_stay_and_are_counted(model, tmp_path):
    out = tmp_path / "ticket"
    approximate_model(model, out, **{**SETTINGS, "tolerance": 1e-3}, max_redraws=0, pattern="a.weight")
    found, ticket = verify_file(out), Ticket.load(out)
    assert not found.holds and found.redrawn_blocks == 0
    assert ticket.settings["failures"] == found.target_weights - found.within_tolerance > 0


def test_processes_share_the_chunks(model, tmp_path):
    alone = tmp_path / "alone"
    approximate_model(model, alone, **SETTINGS, chunk_weights=64)
    job, folder, out = plan_job(model, **SETTINGS, chunk_weights=64), tmp_path / "chunks", tmp_path / "shared"
    for process in (2, 0):
        done = solve_chunks(job, folder, process=process, processes=3)
        assert done.solved == sum(job.chunk_size(chunk) for chunk in job.chunks[process::3])
    with pytest.raises(InputError, match=r"chunk 1 of \d+ is missing"):
        merge(job, folder, out)
    assert not out.exists()
    solve_chunks(job, folder, process=1, processes=3)
    merge(job, folder, out)
    assert out.read_bytes() == alone.read_bytes() and not folder.exists()


def test_a_tensor_goes_over_to_the_next_stream(model, tmp_path, monkeypatch):
    """2**32 positions are too many to solve here, so the length of a stream is made 50 blocks of 9."""
    monkeypatch.setattr("lottery_jax.networks.copies.MAX_SIZE", 9 * 50)
    out = tmp_path / "ticket"
    job = approximate_model(model, out, **SETTINGS, pattern="[ah].weight").job
    assert [layer.streams for layer in job.tensors] == [9, 3] and job.streams == (0, 9)
    assert verify_file(out).holds
    ticket = Ticket.load(out)
    rows = dict(ticket.redraws["0.kernel"].tolist())
    block = next(block for block in range(48, 407) if block not in rows)
    stream, place = divmod(block, 48)
    drawn = draw_host(ticket.architecture[0].sampler, seed=3, stream=stream, shape=(48, 9))[place]
    total = drawn[ticket.masks["0.kernel"][block]].astype(np.float64).sum()
    assert total == approximated_weights(ticket)[0][0].reshape(-1)[block]


def test_tensors_of_one_size_share_their_programs(tmp_path):
    """Bounds are arguments of the compiled programs: only the first tensor compiles."""
    rng = np.random.default_rng(0)
    scales = {"a": 1.0, "b": 0.25, "c": 7.0}
    save_file({k: (scale * rng.uniform(-1, 1, (9, 17))).astype("f4") for k, scale in scales.items()}, tmp_path / "m")
    settings = {"seed": 0, "candidates": 7, "solver": Nearest(), "tolerance": 9.0}
    approximate_model(tmp_path / "m", tmp_path / "t", **settings, pattern="a")
    before = solve_chunk._draw_run._cache_size(), _search._cache_size()
    approximate_model(tmp_path / "m", tmp_path / "t", **settings)
    assert (solve_chunk._draw_run._cache_size(), _search._cache_size()) == before


MEMORY = """
import pathlib, sys
from lottery_jax.constructions.model import approximate_model
from lottery_jax.model_certificate import verify_file
from tests.constructions.kill_driver import Nearest
peaks = []
for name in ("warm", "small", "large"):
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    approximate_model(f"{sys.argv[1]}/{name}", f"{sys.argv[1]}/ticket", seed=0, solver=Nearest(), max_redraws=0)
    verify_file(f"{sys.argv[1]}/ticket")
    status = pathlib.Path("/proc/self/status").read_text()
    peaks.append(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
print(*peaks)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell a peak")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """Two and eight million weights, 21 candidates for each: 0.2 and 0.7 GB of candidates if they were all there."""
    rng = np.random.default_rng(0)
    for name, rows in (("warm", 300), ("small", 2000), ("large", 8000)):
        save_file({"w": rng.normal(size=(rows, 1000)).astype(np.float32)}, tmp_path / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", MEMORY, tmp_path]
    ended = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    warm, small, large = (int(kib) / 2**10 for kib in ended.stdout.split())
    assert large - small < 64 and large - warm < 512, (warm, small, large)
