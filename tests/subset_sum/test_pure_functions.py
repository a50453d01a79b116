"""The searches as pure functions: bit-equal to `solve` under every transformation, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.subset_sum import (
    MeetInTheMiddle,
    Pareto,
    Problem,
    Randomized,
    Smallest,
    Solution,
    closest_subset,
    randomized_subset,
    smallest_subset,
    solve,
    subset_count,
)
from tests.subset_sum.catalogue import COUNT
from tests.subset_sum.instances import instances
from tests.subset_sum.test_status import tolerances, values

KEY = jax.random.key(3)
CANDIDATES, TARGETS = instances(COUNT)
ONE = np.ones(COUNT, np.float32)


def closest(candidates, targets):
    return closest_subset(candidates, targets, 0.03)


def smallest(candidates, targets):
    return smallest_subset(candidates, targets, 0.03)


def randomized(candidates, targets):
    return randomized_subset(candidates, targets, KEY, 0.03, left=4, restarts=2)


SOLVERS = {closest: MeetInTheMiddle(), smallest: Smallest(), randomized: Randomized(left=4, restarts=2)}
TRANSFORMED = {
    "none": lambda function: function,
    "jit": jax.jit,
    "vmap": jax.vmap,
    "jit of vmap": lambda function: jax.jit(jax.vmap(function)),
    "vmap of jit": lambda function: jax.vmap(jax.jit(function)),
    "map": lambda function: jax.jit(lambda *arrays: jax.lax.map(lambda own: function(*own), arrays)),
}


def assert_same(found: Solution, expected: Solution) -> None:
    for name in ("bits", "residuals", "status"):
        here, there = np.asarray(getattr(found, name)), getattr(expected, name)
        assert (here.dtype, here.shape) == (there.dtype, there.shape)
        assert here.tobytes() == there.tobytes(), name
    np.testing.assert_array_equal(found.subsets, expected.subsets)
    np.testing.assert_array_equal(found.sizes, expected.sizes)
    np.testing.assert_array_equal(found.within, expected.within)


@pytest.mark.parametrize(
    ("function", "transformed"),
    [
        *((closest, name) for name in TRANSFORMED),
        *((function, "jit of vmap") for function in (smallest, randomized)),
        *(
            pytest.param(function, name, marks=pytest.mark.slow)
            for function in (smallest, randomized)
            for name in TRANSFORMED
            if name != "jit of vmap"
        ),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_answers_are_those_of_solve(function, transformed):
    expected = solve(Problem(CANDIDATES, TARGETS, 0.03), SOLVERS[function], key=KEY, grid="int32")
    assert_same(TRANSFORMED[transformed](function)(CANDIDATES, TARGETS), expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(values, min_size=COUNT + 1, max_size=COUNT + 1), min_size=9, max_size=9), tolerances)
def test_floats_of_any_scale_have_the_bits_of_solve(rows, tolerance):
    drawn = np.array(rows).astype(np.float32)
    problem = Problem(jnp.asarray(drawn[:, :COUNT]), jnp.asarray(drawn[:, COUNT]), max(tolerance, 2.0**-80))
    found = jax.jit(closest_subset)(problem.candidates, problem.targets, problem.tolerance)
    expected = solve(problem, MeetInTheMiddle(), grid="int32")
    for name in ("bits", "residuals"):
        assert np.asarray(getattr(found, name)).tobytes() == getattr(expected, name).tobytes()


def test_more_candidates_take_the_64_bit_grid():
    rng = np.random.default_rng(0)
    candidates, targets = rng.uniform(-1, 1, (3, 26)).astype(np.float32), rng.uniform(-1, 1, 3).astype(np.float32)
    found = jax.jit(closest_subset)(candidates, targets)
    expected = solve(Problem(candidates, targets, 1e-6), MeetInTheMiddle())
    np.testing.assert_array_equal(found.bits, expected.bits)
    np.testing.assert_array_equal(found.residuals, expected.residuals.astype(np.float32))
    wide = closest_subset(candidates.astype(np.float64), targets.astype(np.float64))
    assert wide.residuals.dtype == np.float64
    np.testing.assert_array_equal(wide.residuals, expected.residuals)


def test_one_candidate_row_and_leading_axes_broadcast():
    targets = TARGETS[:12].reshape(3, 4)
    found = closest_subset(CANDIDATES[0], targets)
    expected = solve(Problem(CANDIDATES[0], targets.reshape(-1), 0.1), MeetInTheMiddle(), grid="int32")
    assert found.bits.shape == (3, 4, 1) and found.subsets.shape == (3, 4, COUNT)
    np.testing.assert_array_equal(found.residuals, expected.residuals.reshape(3, 4))


def test_each_key_of_vmap_has_its_own_positions():
    rng = np.random.default_rng(1)
    candidates, keys = rng.uniform(-1, 1, (2, 12)).astype(np.float32), jax.random.split(KEY, 3)

    def one(key):
        return randomized_subset(candidates, np.zeros(2, np.float32), key, left=4, restarts=2).residuals

    np.testing.assert_array_equal(jax.vmap(one)(keys), np.stack([one(key) for key in keys]))


def test_values_that_are_not_finite_have_no_residual():
    candidates, targets = CANDIDATES.copy(), TARGETS.copy()
    candidates[1, 2], targets[4] = np.nan, np.inf
    found, expected = closest(candidates, targets), closest(CANDIDATES, TARGETS)
    assert np.flatnonzero(np.isnan(found.residuals)).tolist() == [1, 4]
    assert not found.bits[1:5:3].any() and not found.within[1:5:3].any()
    others = np.setdiff1d(np.arange(len(TARGETS)), [1, 4])
    assert_same(found[others], jax.tree.map(np.asarray, expected[others]))


@pytest.mark.parametrize("transformed", [lambda f: f, jax.jit, lambda f: lambda *a: jax.vmap(f)(*a)])
def test_a_gradient_is_refused_and_the_advice_works(transformed):
    function = transformed(lambda candidates, targets: closest_subset(candidates, targets).residuals)

    def loss(candidates, stop):
        stopped = jax.lax.stop_gradient(candidates) if stop else candidates
        return (function(stopped, TARGETS) * candidates[:, 0]).sum()

    with pytest.raises(InputError, match=r"closest_subset must not be differentiated.*stop_gradient"):
        jax.grad(loss)(CANDIDATES, False)
    gradient = jax.grad(loss)(CANDIDATES, True)
    np.testing.assert_array_equal(gradient[:, 0], function(CANDIDATES, TARGETS))


@pytest.mark.parametrize("traced", [True, False])
def test_solve_in_a_trace_names_the_functions(traced):
    fixed = Problem(CANDIDATES, TARGETS, 0.03)
    with pytest.raises(InputError, match=r"solve must be called outside of jit.*closest_subset"):
        jax.jit(lambda problem: solve(problem if traced else fixed, MeetInTheMiddle()).residuals)(fixed)


def test_no_problems():
    none = np.zeros((0, COUNT), np.float32)
    for kind in (np.asarray, jnp.asarray):
        for solver in (MeetInTheMiddle(), Smallest(), Pareto(2)):
            answer = solve(Problem(kind(none), kind(none[:, 0]), 0.1), solver)
            assert answer.bits.shape[::2] == (0, 1) or answer.bits.shape == (0, 1)
    assert solve(Problem(none, none[:, 0], np.zeros(0)), MeetInTheMiddle()).residuals.shape == (0,)
    found = jax.jit(closest)(none, none[:, 0])
    assert (found.bits.shape, found.residuals.shape, found.subsets.shape) == ((0, 1), (0,), (0, COUNT))
    assert subset_count(none.astype(int), np.zeros(0, int)).shape == (0,)


def test_problems_and_answers_are_pytrees():
    problem = Problem(CANDIDATES, TARGETS, 0.03)
    doubled = jax.tree.map(lambda part: 2 * part, problem)
    assert isinstance(doubled, Problem) and doubled.tolerance == 0.06
    solution, front = solve(problem, MeetInTheMiddle()), solve(problem, Pareto(2))
    for answer in (problem, solution, front):
        leaves, structure = jax.tree.flatten(answer)
        again = jax.tree.unflatten(structure, leaves)
        assert type(again) is type(answer) and all(getattr(again, name) is vars(answer)[name] for name in vars(answer))
    moved = jax.jit(lambda answer: answer)(solution)
    assert moved.candidates == COUNT and moved.solver == MeetInTheMiddle()
    np.testing.assert_array_equal(moved.subsets, solution.subsets)
    np.testing.assert_array_equal(jax.jit(lambda answer: answer.coefficients)(solution), solution.coefficients)


def test_one_problem_or_a_slice_of_a_solution():
    solution = solve(Problem(CANDIDATES, TARGETS, 0.03), MeetInTheMiddle())
    one, some = solution[5], solution[3:9]
    assert (
        one.residuals == solution.residuals[5] and one.sizes == solution.sizes[5] and one.within == solution.within[5]
    )
    np.testing.assert_array_equal(one.subsets, solution.subsets[5])
    np.testing.assert_array_equal(some.coefficients, solution.coefficients[3:9])


MASKED = np.ma.masked_array(CANDIDATES, CANDIDATES > 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: closest_subset(ONE[:0], np.float32(1)), r"\[\.\.\., N\]"),
        (lambda: closest_subset(np.ones((3, COUNT), np.float32), np.ones(2, np.float32)), "broadcast"),
        (lambda: closest_subset(ONE.astype(np.int32), np.ones(2, np.float32)), "both be integers or both floats"),
        (lambda: closest_subset(ONE.astype(complex), 1.0), "float32, float64 or integers"),
        (lambda: closest_subset(MASKED, TARGETS), "candidates must not be a masked array"),
        (lambda: closest_subset(ONE, 1.0, grid="int16"), "grid 'int16' is unknown"),
        (lambda: closest_subset(ONE, 1.0, -0.1), "positive"),
        (lambda: closest_subset(np.ones(45, np.float32), 1.0), "up to 44; use Randomized"),
        (lambda: randomized_subset(ONE, 1.0, np.zeros(2, np.uint32)), r"jax.random.key\(seed\)"),
        (lambda: subset_count(ONE, 1.0), "must be integers"),
        (lambda: Problem(MASKED, TARGETS, 0.1), "candidates must not be a masked array"),
        (lambda: Problem(CANDIDATES, np.ma.masked_array(TARGETS, False), 0.1), "targets must not be a masked array"),
        (lambda: Problem(CANDIDATES, TARGETS), "tolerance must be a positive number, got None"),
        (lambda: Problem(CANDIDATES, TARGETS, TARGETS), "tolerance must be a positive number"),
        (lambda: Problem(CANDIDATES, TARGETS, ONE), r"shape \(48,\)"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("solver", [MeetInTheMiddle(), pytest.param(Smallest(), marks=pytest.mark.slow)])
def test_each_problem_may_have_its_own_tolerance(solver, kind):
    tolerance = np.geomspace(1e-3, 1, len(TARGETS))
    found = solve(Problem(kind(CANDIDATES), kind(TARGETS), tolerance), solver, grid="int32")
    for limit in tolerance[::9]:
        alone = solve(Problem(CANDIDATES, TARGETS, float(limit)), solver, grid="int32")
        assert_same(found[tolerance == limit], alone[tolerance == limit])
    function = smallest_subset if solver == Smallest() else closest_subset
    assert_same(function(CANDIDATES, TARGETS, tolerance), found)
    rows = solve(Problem(kind(CANDIDATES[:6]), kind(TARGETS), tolerance, targets_per_row=8), solver, grid="int32")
    repeated = solve(Problem(np.repeat(CANDIDATES[:6], 8, 0), TARGETS, tolerance), solver, grid="int32")
    assert_same(rows, repeated)
