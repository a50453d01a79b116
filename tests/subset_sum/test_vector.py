"""One subset for several components: `Vector` against brute force, and `VectorWindows` beyond it."""

import jax
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.subset_sum import (
    Auto,
    MeetInTheMiddle,
    Pareto,
    Problem,
    Randomized,
    Status,
    Vector,
    VectorWindows,
    solve,
)


def vectors(count, components, problems=48, seed=0):
    rng = np.random.default_rng(seed)
    shape = (problems, count, components)
    candidates = np.where(rng.random(shape) < 0.1, 0, rng.uniform(-1, 1, shape))
    candidates[1] = 0.25  # ties
    targets = rng.uniform(-1, 1, (problems, components))
    targets[2, 0] = 50  # far out of reach: the other components still count
    return candidates.astype(np.float32), targets.astype(np.float32)


def errors(solution, candidates, targets):
    return (solution.subsets[:, :, None] * candidates.astype(np.float64)).sum(1) - targets


@pytest.mark.parametrize(("count", "components"), [(1, 2), (9, 1), (9, 3), (8, 8)])
def test_vector_is_exact(count, components):
    candidates, targets = vectors(count, components)
    solution = solve(Problem(candidates, targets, 0.3), Vector())
    subsets = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    sums = np.einsum("sn,pnd->psd", subsets, candidates.astype(np.float64))
    largest = np.abs(sums - targets[:, None]).max(2)
    found = errors(solution, candidates, targets)
    slack = (count + 1) * 50 * 2.0**-28
    np.testing.assert_allclose(np.abs(found).max(1), largest.min(1), atol=slack)
    np.testing.assert_allclose(solution.residuals, found, atol=1e-5)
    np.testing.assert_array_equal(solution.within, largest.min(1) <= 0.3)
    assert (solution.status[~solution.within] == Status.INFEASIBLE).all()


def test_permuting_negating_sharing_and_chunks():
    candidates, targets = vectors(9, 3)
    order = np.random.default_rng(1).permutation(9)
    plain = solve(Problem(candidates, targets, 0.3), Vector())
    for other, wanted in (
        (candidates[:, order], targets),
        (-candidates, -targets),
        (candidates[:, :, ::-1], targets[:, ::-1]),
    ):
        again = np.abs(solve(Problem(other, wanted, 0.3), Vector()).residuals).max(1)
        np.testing.assert_allclose(again, np.abs(plain.residuals).max(1), atol=1e-5)
    few = solve(Problem(candidates[5:10], targets[5:10], 0.3), Vector())
    np.testing.assert_array_equal(few.bits, plain.bits[5:10])
    shared = solve(Problem(candidates[0], targets, 0.3), Vector())
    tiled = solve(Problem(np.tile(candidates[:1], (48, 1, 1)), targets, 0.3), Vector())
    np.testing.assert_array_equal(shared.bits, tiled.bits)
    on_device = solve(Problem(jax.numpy.asarray(candidates), jax.numpy.asarray(targets), 0.3), Vector())
    np.testing.assert_array_equal(on_device.bits, plain.bits)


def test_same_shapes_compile_once(caplog):
    candidates, targets = vectors(9, 3)
    solve(Problem(candidates, targets, 0.3), Vector())
    with jax.log_compiles():
        assert solve(Problem(candidates / 2, targets, 0.1), Auto()).solver == Vector()
    assert "Compiling" not in caplog.text


@pytest.mark.slow
def test_windows_of_vectors_gets_better_with_its_budget():
    candidates, targets = vectors(40, 3, seed=3)
    targets[2, 0] = 0
    problem, key = Problem(candidates, targets, 0.01), jax.random.key(0)
    medians = []
    for rounds in (1, 32):
        solution = solve(problem, VectorWindows(window=8, rounds=rounds), key=key)
        found = errors(solution, candidates, targets)
        np.testing.assert_allclose(solution.residuals, found, atol=1e-5)
        assert (solution.status[~solution.within] == Status.NOT_FOUND).all()
        medians.append(np.median(np.abs(found).max(1)))
    assert medians[0] > 1.5 * medians[1]


def test_no_vectors_no_answers():
    empty = Problem(np.zeros((0, 4, 2), np.float32), np.zeros((0, 2), np.float32), 0.1)
    assert solve(empty, Vector()).residuals.shape == (0, 2)


@pytest.mark.parametrize(
    ("candidates", "targets", "solver", "words"),
    [
        ((2, 5), (2,), Vector(), r"Vector takes candidates that are vectors, not numbers"),
        ((2, 5, 3), (2, 3), MeetInTheMiddle(), r"MeetInTheMiddle takes candidates that are numbers, not vectors"),
        ((2, 50, 3), (2, 3), Randomized(), r"not vectors.*VectorWindows take vectors"),
        ((2, 5, 3), (2, 3), Pareto(2), r"Pareto takes candidates that are numbers"),
        ((2, 5, 9), (2, 9), Vector(), r"1 to 8 components, got 9"),
        ((2, 5, 3), (2, 4), Vector(), r"shape \[N, 4\] or \[2, N, 4\]"),
        ((3, 5, 3), (2, 3), Vector(), r"shape \[N, 3\] or \[2, N, 3\]"),
        ((2, 25, 2), (2, 2), Vector(), r"25 candidates.*Vector.*24.*VectorWindows"),
    ],
)
def test_what_does_not_fit_is_refused(candidates, targets, solver, words):
    with pytest.raises(InputError, match=words):
        solve(Problem(np.zeros(candidates, np.float32), np.zeros(targets, np.float32), 0.1), solver)


def test_nan_in_a_component_is_refused():
    candidates, targets = vectors(9, 3)
    candidates[4, 2, 1] = np.nan
    with pytest.raises(InputError, match="candidates hold NaN"):
        solve(Problem(candidates, targets, 0.1), Vector())
