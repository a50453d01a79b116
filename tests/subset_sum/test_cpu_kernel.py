"""The kernels compiled by Numba are bit-equal to the XLA code."""

import jax
import numpy as np
import pytest

from lottery_jax.progress import Stopwatch
from lottery_jax.subset_sum import MeetInTheMiddle, Problem, Randomized, Smallest, solve
from lottery_jax.subset_sum.algorithms.sorted_sums import meet_in_the_middle
from lottery_jax.subset_sum.engine import chunks
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.kernels import KERNEL_CANDIDATES
from lottery_jax.subset_sum.solvers import exact, randomized, smallest

SIZES = KERNEL_CANDIDATES["closest_subset_cpu"]

by_size_cpu = pytest.importorskip("lottery_jax.subset_sum.kernels.by_size_cpu", reason="Numba is not installed")
cpu = pytest.importorskip("lottery_jax.subset_sum.kernels.closest_subset_cpu", reason="Numba is not installed")
differencing_cpu = pytest.importorskip(
    "lottery_jax.subset_sum.kernels.differencing_cpu", reason="Numba is not installed"
)
shared_cpu = pytest.importorskip(
    "lottery_jax.subset_sum.kernels.closest_subset_shared_cpu", reason="Numba is not installed"
)


def on_grid(count: int, problems: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Uniform candidates, ties, zeros, duplicates, one large value, and targets far out of reach."""
    rng = np.random.default_rng(count)
    most = 2**29 // (count + 1)
    candidates = rng.integers(-most, most, (count, problems)).astype(np.int32)
    candidates[:, 16:32] = rng.integers(-3, 4, (count, 16))
    candidates[:, 32:36] = 0
    candidates[:, 36:40] = 5
    candidates[1:, 40:44] = rng.integers(-50, 50, (count - 1, 4))
    targets = rng.integers(-(2**27), 2**27, problems).astype(np.int32)
    targets[16:44] = rng.integers(-20, 20, 28)
    targets[44:46] = 2**29 - 1, -(2**29) + 1
    return candidates, targets


@pytest.mark.parametrize("count", [SIZES[0], 13])
def test_same_bits_as_xla(count):
    candidates, targets = on_grid(count)
    expected = np.asarray(jax.jit(meet_in_the_middle)(candidates, targets))
    np.testing.assert_array_equal(cpu.meet_in_the_middle_on_cpu(candidates, targets), expected)


@pytest.mark.slow
@pytest.mark.parametrize("count", SIZES)
def test_same_bits_as_xla_for_every_size(count):
    test_same_bits_as_xla(count)


@pytest.mark.parametrize("problems", [0, 1, 17])
def test_any_number_of_problems(problems):
    candidates, targets = on_grid(12)
    whole = cpu.meet_in_the_middle_on_cpu(candidates, targets)
    np.testing.assert_array_equal(
        cpu.meet_in_the_middle_on_cpu(candidates[:, :problems], targets[:problems]), whole[:, :problems]
    )


def with_kernels(monkeypatch, used: bool) -> None:
    for module in (exact, randomized, smallest):
        monkeypatch.setattr(module, "kernel_is_ready", lambda *asked: used)


def calls_of(monkeypatch, kernel) -> list:
    calls = []
    monkeypatch.setattr(kernel, "_search", lambda *arrays, search=kernel._search: (calls.append(1), search(*arrays)))
    return calls


@pytest.mark.parametrize(("solver", "kernel"), [(MeetInTheMiddle(), cpu), (Smallest(), by_size_cpu)])
def test_solve_answers_the_same_with_the_kernel(solver, kernel, monkeypatch):
    rng = np.random.default_rng(0)
    problem = Problem(
        rng.uniform(-1, 1, (300, 12)).astype(np.float32), rng.uniform(-2, 2, 300).astype(np.float32), 1e-3
    )
    with_kernels(monkeypatch, False)
    plain = solve(problem, solver, grid="int32")
    with_kernels(monkeypatch, True)
    calls = calls_of(monkeypatch, kernel)
    compiled = solve(problem, solver, grid="int32")
    assert calls
    for name in ("bits", "residuals", "status"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(plain, name))


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (SIZES[0], (0, 1, 2)),
        (21, (3,)),
        (SIZES[0], (4, 5)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((21, (0, 1, 2)), (SIZES[0], (3,)), (21, (4, 5)))),
    ],
)
def test_the_best_of_a_size_is_the_one_of_xla(count, sizes):
    candidates, targets = on_grid(count)
    tolerance = np.where(np.arange(96) % 2, 2**20, 2).astype(np.int32)
    grid = Grid(candidates, targets, tolerance, np.zeros(96, np.float32))
    expected = np.asarray(jax.jit(lambda grid: smallest.Enumerate(sizes).search(grid, None))(grid))
    np.testing.assert_array_equal(by_size_cpu.first_within(*grid[:3], sizes), expected)


@pytest.mark.parametrize(
    ("count", "restarts"), [(12, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((14, 3), (40, 4)))]
)
def test_differencing_answers_the_same_with_the_kernel(count, restarts, monkeypatch):
    """Uniform candidates, ties, zeros, one large value, and targets at the ends of what subsets reach and beyond."""
    rng = np.random.default_rng(count)
    candidates, targets = rng.uniform(-1, 1, (60, count)), rng.uniform(-1, 1, 60)
    candidates[:12] = rng.integers(-3, 4, (12, count))
    candidates[12:14], candidates[14:16], candidates[16:20, 1:] = 0, 0.5, candidates[16:20, 1:] / 1000
    targets[:10], targets[20:22] = rng.integers(-9, 9, 10), (1e4, -1e4)
    targets[22] = np.maximum(candidates[22], 0).sum()
    problem, solver = Problem(candidates, targets, 1e-3), Randomized(left=12, restarts=restarts)
    answers = []
    for used in (False, True):
        with_kernels(monkeypatch, used)
        calls = calls_of(monkeypatch, differencing_cpu)
        answers.append(solve(problem, solver, key=jax.random.key(2)))
        assert len(calls) == used * restarts
    for name in ("bits", "residuals", "status"):
        np.testing.assert_array_equal(*(getattr(answer, name) for answer in answers))


def shared_on_grid(count: int, each: int, rows: int = 5) -> tuple[np.ndarray, np.ndarray]:
    candidates, targets = on_grid(count, rows * each + 64)
    # A row of uniform values, small ties, zeros, one large value.
    return np.ascontiguousarray(candidates[:, [0, 1, 16, 32, 40]].T), targets[: rows * each].reshape(rows, each)


@pytest.mark.parametrize(("count", "each"), [(12, 7), (12, 200), (21, 40)])
def test_shared_lists_give_the_same_bits(count, each):
    candidates, targets = shared_on_grid(count, each)
    expected = cpu.meet_in_the_middle_on_cpu(np.repeat(candidates, each, 0).T, targets.reshape(-1))
    found = shared_cpu.closest_subset_shared(candidates, targets)
    np.testing.assert_array_equal(found, expected.reshape(count, 5, each).transpose(1, 0, 2))


@pytest.mark.parametrize(("rows", "each", "call"), [(1, 250, 100), (7, 30, 100), (3, 100, 10_000)])
def test_solve_answers_the_same_with_shared_lists(rows, each, call, monkeypatch):
    rng = np.random.default_rng(rows)
    candidates = rng.uniform(-1, 1, (rows, 12)).astype(np.float32)
    targets = rng.uniform(-1, 1, rows * each).astype(np.float32)
    problem = (
        Problem(candidates[0], targets, 1e-3) if rows == 1 else Problem(candidates, targets, 1e-3, targets_per_row=each)
    )
    with_kernels(monkeypatch, False)
    plain = solve(problem, MeetInTheMiddle(), grid="int32")
    with_kernels(monkeypatch, True)
    monkeypatch.setattr(exact, "_MIN_SHARED_TARGETS", 2)
    monkeypatch.setattr(chunks, "_SHARED_KERNEL_PROBLEMS", call)
    seen, progress = calls_of(monkeypatch, shared_cpu), []
    listed = solve(problem, MeetInTheMiddle(), grid="int32", progress=lambda *done: progress.append(done))
    assert seen and progress == sorted(progress) and progress[-1] == (rows * each, rows * each)
    for name in ("bits", "residuals", "status"):
        np.testing.assert_array_equal(getattr(listed, name), getattr(plain, name))


def test_numbers_of_problems_share_what_is_compiled_around_differencing():
    """Redraws have a different number of problems each time."""
    random = np.random.default_rng(3)

    def run(problems):
        candidates = random.uniform(-1, 1, (problems, 30)).astype(np.float32)
        with Stopwatch() as watch:
            solve(Problem(candidates, candidates[:, 0], 1e-6), Randomized(), key=jax.random.key(0))
        return watch.compilation

    assert run(11) > 0 and run(9) == run(13) == 0
