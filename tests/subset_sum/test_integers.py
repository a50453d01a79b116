"""Integers are exact: a witness, a proof that none exists, or the number of subsets, compared with brute force."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.subset_sum import (
    Exhaustive,
    MeetInTheMiddle,
    Problem,
    Randomized,
    Signed,
    Smallest,
    Status,
    closest_subset,
    smallest_subset,
    solve,
    subset_count,
)
from tests.subset_sum.catalogue import COUNT

PROBLEMS = 9
KEY = jax.random.key(0)
FACTORS = {MeetInTheMiddle(): (0, 1), Exhaustive(): (0, 1), Smallest(): (0, 1), Signed(): (-1, 0, 1)}
UNITS = st.sampled_from([1, 3, 2**20, 2**48])
"""The last is for sums above 2**52, which a float64 does not hold."""


def all_residuals(candidates, targets, factors=(0, 1)) -> np.ndarray:
    """sum - target of every choice of factors, as Python's integers: [P, C]."""
    count = candidates.shape[1]
    choices = np.stack(np.meshgrid(*[factors] * count, indexing="ij"), -1).reshape(-1, count)
    return candidates.astype(object) @ choices.T.astype(object) - targets.astype(object)[:, None]


def check(solution, candidates, targets, tolerance, factors=(0, 1)) -> None:
    found = (solution.coefficients.astype(object) * candidates.astype(object)).sum(1) - targets.astype(object)
    assert solution.residuals.dtype == np.int64 and (solution.residuals == found).all()
    reachable = (abs(all_residuals(candidates, targets, factors)) <= np.asarray(tolerance, object).reshape(-1, 1)).any(
        1
    )
    np.testing.assert_array_equal(solution.status, np.where(reachable, Status.WITHIN, Status.INFEASIBLE))


rows = st.lists(
    st.lists(st.integers(-9, 9), min_size=COUNT + 1, max_size=COUNT + 1), min_size=PROBLEMS, max_size=PROBLEMS
)


@pytest.mark.parametrize("solver", FACTORS, ids=lambda solver: type(solver).__name__)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows, UNITS, st.integers(0, 3), st.integers(0, 2))
def test_a_witness_or_a_proof(solver, rows, unit, shift, tolerance):
    drawn = np.array(rows)
    unit = min(unit, 2**44) if isinstance(solver, (Smallest, Signed)) else unit
    candidates, targets = drawn[:, :COUNT] * unit, drawn[:, COUNT] * unit + shift
    solution = solve(Problem(candidates, targets, tolerance), solver)
    check(solution, candidates, targets, tolerance, FACTORS[solver])
    if solver == Smallest():
        within = abs(all_residuals(candidates, targets)) <= tolerance
        sizes = np.where(within, all_residuals(np.ones_like(candidates), 0 * targets), COUNT + 1)
        found = solution.within
        np.testing.assert_array_equal(solution.sizes[found], sizes.min(1)[found])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_every_width(dtype):
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    candidates = rng.integers(max(info.min, -(2**40)), min(info.max, 2**40), (PROBLEMS, COUNT), dtype, endpoint=True)
    targets = candidates[:, 1].copy()
    for solver in (MeetInTheMiddle(), Signed()):
        check(solve(Problem(candidates, targets), solver), candidates, targets, 0, FACTORS[solver])
    if info.bits < 64:
        found = jax.jit(closest_subset)(candidates, targets)
        check(jax.tree.map(np.asarray, found), candidates, targets, 0)
    expected = (all_residuals(candidates, targets) == 0).sum(1)
    np.testing.assert_array_equal(subset_count(candidates, targets), expected)


def test_large_tolerances_and_far_targets():
    """Beyond the sums: the target is clipped on the grid, and the tolerance with it."""
    candidates = np.tile([1, -2, 3, -4, 5, -6, 7], (PROBLEMS, 1))
    targets = np.array([0, 10**6, -(10**6), 10**12, 16, 17, -12, -13, 2**61])
    for tolerance in (0, 1, 10**6, 10**6 - 1, 10**12 - 16, 10**12 - 17, 2**61 - 16, 2**61, 2**62 - 1):
        problem = Problem(candidates, targets, tolerance)
        within = abs(all_residuals(candidates, targets)) <= tolerance
        solution = solve(problem, Smallest())
        check(solution, candidates, targets, tolerance)
        size = np.where(within, all_residuals(np.ones_like(candidates), 0 * targets), COUNT + 1).min(1)
        np.testing.assert_array_equal(solution.sizes[solution.within], size[solution.within])
        np.testing.assert_array_equal(subset_count(candidates, targets, tolerance), within.sum(1))
    each = np.array([0, 10**6, 10**6, 10**12, 0, 1, 0, 1, 2**61])
    check(solve(Problem(candidates, targets, each), MeetInTheMiddle()), candidates, targets, each)
    found = smallest_subset(candidates, targets, each)
    check(jax.tree.map(np.asarray, found), candidates, targets, each)


def test_randomized_finds_exact_sums():
    rng = np.random.default_rng(0)
    candidates = rng.integers(-50, 50, (4, 60))
    targets = candidates[:, :9].sum(1)
    solution = solve(Problem(candidates, targets), Randomized(left=8, restarts=2), key=KEY)
    assert solution.within.all() and not solution.residuals.any()


@pytest.mark.parametrize("count", [1, 2, 5, 6, COUNT, 10])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), UNITS, st.integers(0, 3))
def test_the_number_of_subsets(count, data, unit, tolerance):
    drawn = np.array(
        data.draw(
            st.lists(st.lists(st.integers(-9, 9), min_size=11, max_size=11), min_size=PROBLEMS, max_size=PROBLEMS)
        )
    )
    candidates, targets = drawn[:, :count] * unit, drawn[:, 10] * unit + tolerance % 2
    limits = np.arange(PROBLEMS) * tolerance
    expected = (abs(all_residuals(candidates, targets)) <= limits[:, None]).sum(1)
    np.testing.assert_array_equal(subset_count(candidates, targets, limits), expected)


@pytest.mark.parametrize("transformed", [jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_counting_in_a_trace(transformed):
    rng = np.random.default_rng(0)
    candidates, targets = rng.integers(-20, 20, (PROBLEMS, COUNT)), rng.integers(-20, 20, PROBLEMS)
    expected = (all_residuals(candidates, targets) == 0).sum(1)
    found = transformed(subset_count)(candidates.astype(np.int32), targets.astype(np.int32))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("count", [24, 25, 26, 33])
def test_many_candidates_have_the_numbers_of_a_recurrence(count):
    """Halves of up to 12 candidates are sorted by networks, larger ones by XLA, and numbers above 2**30 take int64."""
    rng = np.random.default_rng(count)
    candidates = rng.integers(-6, 7, (2, count))
    targets = np.array([0, 5])
    for row, target, found in zip(candidates, targets, np.asarray(subset_count(candidates, targets)), strict=True):
        ways = {0: 1}
        for value in row.tolist():
            more = dict(ways)
            for total, number in ways.items():
                more[total + value] = more.get(total + value, 0) + number
            ways = more
        assert found == ways.get(int(target), 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c, t: solve(Problem(c * 2**58, t), MeetInTheMiddle()), r"below 2\*\*60"),
        (lambda c, t: solve(Problem(c * 2**51, t), Smallest()), r"below 2\*\*52"),
        (lambda c, t: closest_subset(c * 2**58, t), r"below 2\*\*60"),
        (lambda c, t: subset_count(c * 2**58, t), r"below 2\*\*60"),
        (lambda c, t: solve(Problem(c, t * 2**62), MeetInTheMiddle()), r"targets and tolerance must be below 2\*\*62"),
        (lambda c, t: subset_count(c, t * 2**62), r"targets and tolerance must be below 2\*\*62"),
        (lambda c, t: solve(Problem(c, t, 2**62), MeetInTheMiddle()), r"targets and tolerance must be below 2\*\*62"),
        (lambda c, t: solve(Problem(c * 2**40, t), MeetInTheMiddle(), grid="int32"), "grid must be auto or int64"),
        (lambda c, t: closest_subset(c * 2**40, t, grid="int32"), "grid must be auto or int64"),
        (lambda c, t: Problem(c, t.astype(float), 1.0), "both be integers or both floats"),
        (lambda c, t: Problem(c, t, 0.5), "whole number"),
        (lambda c, t: Problem(c, t, -1), "whole number"),
        (lambda c, t: subset_count(c, t, np.nan), "whole number"),
        (lambda c, t: Problem(c > 0, t), "got bool"),
    ],
)
def test_what_could_overflow_or_round_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call(np.ones((2, COUNT), np.int64), np.ones(2, np.int64))


def test_64_bit_integers_in_a_trace_are_refused():
    with jax.enable_x64(True), pytest.raises(InputError, match=r"below 2\*\*60"):
        jax.jit(subset_count)(np.ones((2, COUNT), np.int64), np.ones(2, np.int64))
