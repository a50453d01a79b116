"""Exact solvers against brute force and an independent meeting in the middle."""

import numpy as np
import pytest

from lottery_jax.subset_sum import MeetInTheMiddle, Problem, Randomized, Smallest, Status, solve
from tests.subset_sum.instances import instances
from tests.subset_sum.oracles import all_residuals, least_residuals, least_residuals_by_size, recomputed


@pytest.mark.parametrize("count", [2, 3, 8, 13, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 6, 11, 12, 16))])
def test_meet_in_the_middle_is_exact(count):
    candidates, targets = instances(count)
    solution = solve(Problem(candidates, targets, 0.03), MeetInTheMiddle())
    best = all_residuals(candidates, targets)[0].min(1)
    found = recomputed(solution, candidates, targets)
    # Within N + 1 steps of the 32-bit grid, whose step is at most sum |a| / 2**28.
    slack = (count + 1) * np.abs(candidates).sum(1) * 2.0**-28
    assert (found <= best + slack).all()
    np.testing.assert_allclose(np.abs(solution.residuals), found, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(solution.within, found <= 0.03)
    assert set(np.unique(solution.status)) <= {Status.WITHIN, Status.INFEASIBLE}
    assert not solution.subsets[candidates == 0].any()


@pytest.mark.parametrize("count", [3, 7, 16])
@pytest.mark.parametrize("tolerance", [0.2, 0.004])
def test_smallest_is_smallest(count, tolerance):
    candidates, targets = instances(count)
    solution = solve(Problem(candidates, targets, tolerance), Smallest())
    residuals, sizes = all_residuals(candidates, targets)
    fewest = np.where(residuals <= tolerance, sizes, count + 1).min(1)
    np.testing.assert_array_equal(solution.within, fewest <= count)
    within = solution.within
    np.testing.assert_array_equal(solution.sizes[within], fewest[within])
    assert (recomputed(solution, candidates, targets)[within] <= tolerance).all()
    # What has no solution is answered with the least residual.
    best = residuals.min(1)[~within]
    assert (recomputed(solution, candidates, targets)[~within] <= best + 1e-5).all()


@pytest.mark.slow
def test_smallest_beyond_three_is_smallest_and_nearest():
    rng = np.random.default_rng(1)
    candidates = rng.uniform(-1, 1, (40, 14)).astype(np.float32)
    targets = rng.uniform(-3, 3, 40).astype(np.float32)
    targets[:4] = np.abs(candidates[:4]).sum(1) + 1
    best = least_residuals_by_size(candidates, targets, 14)
    for grid in ("int32", "int64"):
        solution = solve(Problem(candidates, targets, 1e-3), Smallest(), grid=grid)
        fewest = (best <= 1e-3).argmax(1)
        assert set(range(3, 8)) <= set(fewest[4:])
        np.testing.assert_array_equal(solution.within, best.min(1) <= 1e-3)
        np.testing.assert_array_equal(solution.sizes[solution.within], fewest[solution.within])
        least = best[np.arange(40), solution.sizes]
        assert (recomputed(solution, candidates, targets) <= least + 15 * 14 * 2.0**-28).all()


@pytest.mark.parametrize("count", [21, *(pytest.param(count, marks=pytest.mark.slow) for count in (20, 26, 30))])
def test_meet_in_the_middle_at_the_sizes_in_use(count):
    rng = np.random.default_rng(count)
    candidates, targets = rng.uniform(-1, 1, (4, count)), rng.uniform(-1, 1, 4)
    solution = solve(Problem(candidates, targets, 0.01), MeetInTheMiddle())
    best = least_residuals(candidates, targets)
    step = np.abs(candidates).sum(1) * (2.0**-28 if count <= 24 else 2.0**-51)
    found = recomputed(solution, candidates, targets)
    assert (found <= best + (count + 1) * step).all()
    assert solution.within.all()


@pytest.mark.slow
@pytest.mark.parametrize("count", [36, 40, 44])
def test_meet_in_the_middle_at_its_limit(count):
    rng = np.random.default_rng(count)
    candidates, targets = rng.uniform(-1, 1, (1, count)), rng.uniform(-1, 1, 1)
    solution = solve(Problem(candidates, targets, 0.01), MeetInTheMiddle())
    found, best = recomputed(solution, candidates, targets), least_residuals(candidates, targets)
    assert (found <= best + (count + 1) * np.abs(candidates).sum(1) * 2.0**-51).all()


@pytest.mark.slow
def test_smallest_beyond_three_at_21_and_40():
    rng = np.random.default_rng(0)
    for count, problems in ((21, 6), (40, 1)):
        candidates = rng.uniform(0.1, 0.3, (problems, count)).astype(np.float32)
        targets = np.full(problems, 1.65, np.float32)  # six at the least, for 0.3 each
        solution = solve(Problem(candidates, targets, 0.01), Smallest())
        ordered = np.sort(candidates, 1)[:, ::-1].cumsum(1)
        at_least = (ordered < 1.64).sum(1) + 1
        assert (solution.sizes >= at_least).all() and solution.within.all()
        assert (recomputed(solution, candidates, targets) <= 0.01).all()


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e20])
def test_scale_changes_nothing(scale):
    candidates, targets = instances(7)
    for solver in (MeetInTheMiddle(), Smallest()):
        # A power of two rescales floats without rounding.
        factor = np.float32(2.0 ** round(np.log2(scale)))
        plain = solve(Problem(candidates, targets, 0.05), solver, grid="int32")
        scaled = solve(Problem(candidates * factor, targets * factor, 0.05 * float(factor)), solver, grid="int32")
        np.testing.assert_array_equal(plain.bits, scaled.bits)


def test_wide_range_needs_the_wide_grid():
    # On the 32-bit grid the small candidates round to nothing; `auto` sees it from the tolerance.
    candidates = np.array([[1e6, 1e-3, 2e-3, 4e-3, -1e6, 8e-3]])
    solution = solve(Problem(candidates, np.array([5e-3]), 1e-6), MeetInTheMiddle())
    assert recomputed(solution, candidates, np.array([5e-3]))[0] < 1e-9


def test_tolerance_is_met_at_equality():
    candidates, targets = np.tile(np.float32([1, 2, 4, 0, 0, 0, 0]), (9, 1)), np.full(9, 8, np.float32)
    solution = solve(Problem(candidates, targets, 1.0), Smallest())
    assert solution.within.all() and (solution.sizes == 3).all()
    assert not solve(Problem(candidates, targets, 0.999), Smallest()).within.any()


@pytest.mark.parametrize("solver", [MeetInTheMiddle(), Smallest()])
def test_shared_candidates_are_the_same_problem(solver):
    rng = np.random.default_rng(3)
    shared, targets = rng.uniform(-1, 1, 7).astype(np.float32), rng.uniform(-1, 1, 20).astype(np.float32)
    repeated = solve(Problem(np.tile(shared, (20, 1)), targets, 0.01), solver)
    np.testing.assert_array_equal(solve(Problem(shared, targets, 0.01), solver).bits, repeated.bits)


def test_randomized_that_leaves_everything_to_the_search_is_exact():
    import jax

    candidates, targets = instances(12)
    solution = solve(Problem(candidates, targets, 0.03), Randomized(left=12), key=jax.random.key(0))
    best = all_residuals(candidates, targets)[0].min(1)
    assert (recomputed(solution, candidates, targets) <= best + 1e-6).all()
