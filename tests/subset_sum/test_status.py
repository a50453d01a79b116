"""A status is true of the values as they were given, in exact arithmetic, whatever their scale."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.subset_sum import MeetInTheMiddle, Pareto, Problem, Smallest, Status, Vector, solve
from tests.subset_sum.catalogue import COUNT, SOLVERS

PROBLEMS = 9
MARGIN = 2.0**-20
"""What numbers below the smallest normal one, which devices take for 0, may make of a tolerance."""
UNIT = 2**1074


def exact(values) -> np.ndarray:
    """Floats as whole numbers of the smallest subnormal one, which Python adds without rounding."""
    ratios = [float(value).as_integer_ratio() for value in np.asarray(values).flat]
    return np.array([above * (UNIT // below) for above, below in ratios], object).reshape(np.shape(values))


def residuals_of(coefficients, candidates, targets) -> np.ndarray:
    """sum - target in exact arithmetic: [P] for coefficients [P, N]."""
    return (coefficients.astype(object) * exact(candidates)).sum(1) - exact(targets)


def at_most(residuals, limits, margin=MARGIN) -> bool:
    return bool(np.all(abs(residuals) <= exact(np.asarray(limits, float) * (1 + margin))))


def check(solution, candidates, targets, tolerance, choices=None):
    """True statuses, and with `choices` [C, N]: nothing worse than the empty subset, and no false proof."""
    found = residuals_of(solution.coefficients, candidates, targets)
    assert at_most(found[solution.within], tolerance)
    if choices is None:
        return
    assert at_most(found, np.abs(targets))
    for place in np.flatnonzero(solution.status == Status.INFEASIBLE):
        least = abs(choices.astype(object) @ exact(candidates[place]) - exact(targets[place])).min()
        assert not at_most(least, tolerance, -MARGIN)


scaled = st.builds(
    lambda sign, exponent, digits: sign * digits * 10.0**exponent,
    st.sampled_from([-1, 0, 1, 1, -1]),
    st.integers(-30, 30),
    st.sampled_from([1.0, 1.5, 3.14159]),
)
narrow = st.integers(-4, 4).map(lambda quarters: quarters / 4)  # ties, zeros
tiny = st.sampled_from([0.0, 1e-40, -3e-42, 1.2e-38, 5e-324, -1e-310])
values = st.one_of(scaled, narrow, tiny)
tolerances = st.sampled_from([0.1, 1e-3, 1e-12, 1e-24, 1e-31, 2.0**-80, 1e20])


SLOW = {"Randomized", "Differencing", "Signed", "FirstFeasible"}
SLOW_WIDE = SLOW | {"Greedy", "NearestCandidate"}


@pytest.mark.parametrize(
    ("name", "dtype", "grid"),
    [
        pytest.param(name, dtype, grid, marks=pytest.mark.slow if name in slow else ())
        for dtype, grid, slow in ((np.float32, "int32", SLOW), (np.float64, "int64", SLOW_WIDE))
        for name in SOLVERS
    ],
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(values, min_size=COUNT + 1, max_size=COUNT + 1), min_size=PROBLEMS, max_size=PROBLEMS),
    st.booleans(),
    tolerances,
)
def test_status_and_residual_are_true_at_any_scale(name, dtype, grid, rows, reachable, tolerance):
    drawn = np.array(rows)
    candidates, targets = drawn[:, :COUNT].astype(dtype), drawn[:, COUNT].astype(dtype)
    if reachable:
        targets = (candidates[:, 0] + candidates[:, 3]) * dtype(1 + 1e-6)
    entry = SOLVERS[name]
    solution = entry.solve(candidates, targets, tolerance, grid=grid)
    check(solution, candidates, targets, tolerance, None if entry.size else entry.coefficients(COUNT))
    found = [whole / UNIT for whole in residuals_of(solution.coefficients, candidates, targets)]
    np.testing.assert_allclose(solution.residuals, found, rtol=1e-6, atol=1e-36)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [COUNT, pytest.param(28, marks=pytest.mark.slow)])
def test_what_the_grid_cannot_see_is_not_within(count, dtype):
    """Targets far below the step of the grid, which they share with candidates of 2**100."""
    candidates = np.zeros((PROBLEMS, count), dtype)
    candidates[:, :2] = 2.0**100, -(2.0**100)
    candidates[:, 2] = 1e-20
    targets = np.array([1e-16, 1e-28, 0, 1e-20, 2.0**100, 1e-16, 1e-42, 5e-16, 1e-20], dtype)
    for tolerance in (1e-20, 1e-29, 1e-44):
        solution = solve(Problem(candidates, targets, tolerance), MeetInTheMiddle(), grid="int32")
        check(solution, candidates, targets, tolerance)
        solution = solve(Problem(candidates, targets, tolerance), MeetInTheMiddle())
        check(solution, candidates, targets, tolerance)
        assert solution.within[[2, 4]].all()


def test_a_tolerance_that_float32_rounds_up_is_kept():
    nearly = np.float32(0.1)  # above 0.1
    candidates, targets = np.zeros((2, COUNT), np.float32), np.array([nearly, np.nextafter(nearly, np.float32(0))])
    for solver in (MeetInTheMiddle(), Smallest()):
        solution = solve(Problem(candidates, targets, 0.1), solver, grid="int32")
        assert solution.within.tolist() == [False, True]


def test_a_tolerance_beyond_all_candidates_is_met_by_none_of_them():
    candidates = np.full((1, COUNT), 0.01, np.float32)
    solution = solve(Problem(candidates, np.array([5], np.float32), 10.0), MeetInTheMiddle())
    assert solution.within.all()


def test_nothing_is_proved_below_the_step_of_the_grid():
    """On the coarse grid 1e-4 is nothing, so a subset within the tolerance may be overlooked; the finer finds it."""
    candidates = np.array([[1e6, 1e-4, 2e-4, -1e6, 3e-4, 0, 0]] * PROBLEMS, np.float32)
    problem = Problem(candidates, np.full(PROBLEMS, 3e-4, np.float32), 1e-6)
    assert (solve(problem, MeetInTheMiddle(), grid="int32").status == Status.NOT_FOUND).all()
    assert solve(problem, MeetInTheMiddle()).within.all()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(values, min_size=12, max_size=12), min_size=PROBLEMS, max_size=PROBLEMS), tolerances)
def test_vectors_and_fronts(rows, tolerance):
    """Of shapes that other tests compile: 9 vectors of three components, the last four of them 0, and 5 candidates."""
    drawn = np.array(rows).astype(np.float32)
    vectors, targets = np.zeros((PROBLEMS, 9, 3), np.float32), np.zeros((PROBLEMS, 3), np.float32)
    vectors[:, :5, :2], targets[:, :2] = drawn[:, :10].reshape(PROBLEMS, 5, 2), drawn[:, 10:]
    solution = solve(Problem(vectors, targets, tolerance), Vector())
    for d in range(2):
        left = residuals_of(solution.coefficients, vectors[:, :, d], targets[:, d])
        assert at_most(left[solution.within], tolerance)
        assert at_most(left, np.abs(targets).max(1))
    candidates, targets = drawn[:, :5], drawn[:, 5]
    front = solve(Problem(candidates, targets, tolerance), Pareto(5))
    for size in range(6):
        column = front.of_size(size)
        check(column, candidates, targets, tolerance)
        assert (column.sizes == size).all()


@pytest.mark.parametrize(
    ("each", "array"), [(1, np.asarray), (1, jax.numpy.asarray), (18, np.asarray), (6, np.asarray)]
)
def test_however_the_problems_are_given(each, array):
    rng = np.random.default_rng(0)
    shape = (18 // each, COUNT)
    rows = (rng.choice([-1, 1], shape) * 10.0 ** rng.uniform(-15, 15, shape)).astype(np.float32)
    own = np.repeat(rows, each, 0)
    targets = own[:, :3].sum(1) * np.float32(1 + 1e-6)
    shared = {"targets_per_row": each} if each < 18 else {}
    problem = Problem(array(rows if shared else rows[0]), array(targets), 1e-3, **shared)
    for grid in ("int32", "auto"):
        check(solve(problem, MeetInTheMiddle(), grid=grid), own, targets, 1e-3)


def test_tolerances_beneath_what_devices_can_tell_from_zero_are_refused():
    candidates, targets = np.zeros((2, 3)), np.zeros(2)
    with pytest.raises(InputError, match=r"at least 1.*e-289.*power of two"):
        Problem(candidates, targets, 1e-300)
    candidates, targets = jax.numpy.zeros((2, 3)), jax.numpy.zeros(2)
    with pytest.raises(InputError, match=r"at least 8.*e-25.*NumPy arrays"):
        Problem(candidates, targets, 1e-30)
