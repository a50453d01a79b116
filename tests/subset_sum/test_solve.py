"""The front door: chunks, packing, devices, refusals."""

import jax
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.subset_sum import MeetInTheMiddle, Problem, Randomized, Smallest, Status, solve, unpack_bits
from tests.subset_sum.oracles import recomputed

RANDOMIZED = Randomized(left=8, restarts=4)


def uniform(problems, count, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(-1, 1, (problems, count)).astype(np.float32),
        rng.uniform(-0.5, 0.5, problems).astype(np.float32),
    )


def test_answers_do_not_depend_on_the_batch():
    """Several calls, and several chunks in a call; for every solver see the catalogue."""
    candidates, targets = uniform(700, 12)
    whole = solve(Problem(candidates, targets, 0.01), MeetInTheMiddle())
    for part in (slice(0, 1), slice(5, 69), slice(300, 700)):
        alone = solve(Problem(candidates[part], targets[part], 0.01), MeetInTheMiddle())
        np.testing.assert_array_equal(alone.bits, whole.bits[part])
        np.testing.assert_array_equal(alone.status, whole.status[part])


def test_jax_arrays_are_taken_as_they_are():
    candidates, targets = uniform(5, 7)
    first = solve(Problem(candidates, targets, 0.01), MeetInTheMiddle())
    second = solve(Problem(jax.numpy.asarray(candidates), jax.numpy.asarray(targets), 0.01), MeetInTheMiddle())
    np.testing.assert_array_equal(first.bits, second.bits)


@pytest.mark.slow
def test_randomized_gets_better_with_its_budget():
    candidates, targets = uniform(64, 300)
    problem, key = Problem(candidates, targets, 1e-7), jax.random.key(0)
    medians = [
        np.median(recomputed(solve(problem, solver, key=key), candidates, targets))
        for solver in (Randomized(left=6), Randomized(left=6, restarts=16), Randomized(left=16, restarts=16))
    ]
    assert medians[0] > 6 * medians[1] > 60 * medians[2]


@pytest.mark.parametrize(("count", "least"), [(100, -25.5), (1000, -45)])
def test_randomized_gets_far_below_what_windows_would(count, least):
    """Windows of 16 leave 2**-20, whatever N; the bits say the same as the residual."""
    rng = np.random.default_rng(count)
    candidates, targets = rng.uniform(-1, 1, (64, count)), rng.uniform(-1, 1, 64)
    solution = solve(Problem(candidates, targets, 1e-6), Randomized(left=12), key=jax.random.key(0))
    assert np.log2(np.median(np.abs(solution.residuals))) < least and solution.within.all()
    np.testing.assert_allclose(recomputed(solution, candidates, targets), np.abs(solution.residuals), atol=1e-12)


def test_randomized_knows_the_exact_ends_of_what_subsets_reach():
    candidates, _ = uniform(8, 30)
    wide = candidates.astype(np.float64)
    for targets, kept in ((np.maximum(wide, 0).sum(1), candidates > 0), (np.zeros(8), np.zeros((8, 30), bool))):
        solution = solve(Problem(wide, targets, 1e-9), RANDOMIZED, key=jax.random.key(0))
        np.testing.assert_array_equal(solution.subsets, kept)


def test_randomized_says_not_found_where_nothing_is_proved():
    candidates, targets = (values.astype(np.float64) for values in uniform(8, 30))
    solution = solve(Problem(candidates, targets + 100, 0.01), RANDOMIZED, key=jax.random.key(0))
    assert (solution.status == Status.NOT_FOUND).all()
    # All positive candidates are the best one can do.
    np.testing.assert_array_equal(solution.subsets, candidates > 0)


def test_bits_are_little_endian():
    bits = np.array([[1 | 1 << 31, 1 << 2]], np.uint32)
    assert np.flatnonzero(unpack_bits(bits, 40)).tolist() == [0, 31, 34]


def test_progress_counts_every_problem():
    seen = []
    candidates, targets = uniform(700, 12)
    for solver in (MeetInTheMiddle(), Smallest()):
        seen.clear()
        solve(Problem(candidates, targets, 0.01), solver, progress=lambda *done: seen.append(done))
        assert seen == sorted(seen) and seen[-1] == (700, 700)


GOOD = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("candidates", "targets", "tolerance", "words"),
    [
        (np.zeros((2, 0), np.float32), np.zeros(2, np.float32), 0.1, "at least one candidate"),
        (GOOD, np.zeros(3, np.float32), 0.1, "shape"),
        (GOOD, np.zeros((2, 1), np.float32), 0.1, "shape"),
        (GOOD.astype(int), np.zeros(2, np.float32), 0.1, "int64"),
        (GOOD, np.zeros(2, np.float32), 0.0, "tolerance"),
        (GOOD, np.zeros(2, np.float32), float("nan"), "tolerance"),
        (GOOD + np.nan, np.zeros(2, np.float32), 0.1, "NaN"),
        (GOOD, np.array([0, np.inf], np.float32), 0.1, "targets"),
    ],
)
def test_bad_problems_are_refused(candidates, targets, tolerance, words):
    with pytest.raises(InputError, match=words):
        solve(Problem(candidates, targets, tolerance), MeetInTheMiddle())


def test_too_many_candidates_names_the_solver_that_takes_them():
    candidates, targets = uniform(2, 45)
    with pytest.raises(InputError, match=r"45 candidates.*MeetInTheMiddle.*44.*Randomized"):
        solve(Problem(candidates, targets, 0.1), MeetInTheMiddle())


def test_randomized_asks_for_a_key():
    with pytest.raises(InputError, match=r"jax.random.key"):
        solve(Problem(*uniform(2, 4), 0.1), RANDOMIZED)


@pytest.mark.parametrize("fields", [{"left": 0}, {"left": 40}, {"restarts": 0}])
def test_randomized_refuses_a_senseless_budget(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        Randomized(**fields)


@pytest.mark.parametrize("each", [1, 3, 50])
def test_rows_of_candidates_serve_their_neighbours(each):
    rng = np.random.default_rng(each)
    rows = rng.uniform(-1, 1, (150 // each, 7)).astype(np.float32)
    targets = rng.uniform(-2, 2, 150).astype(np.float32)
    for solver in (MeetInTheMiddle(), Smallest()):  # the second leaves gaps between the problems still open
        repeated = solve(Problem(np.repeat(rows, each, 0), targets, 1e-3), solver)
        for xp in (np, jax.numpy):
            grouped = solve(Problem(xp.asarray(rows), xp.asarray(targets), 1e-3, targets_per_row=each), solver)
            for name in ("bits", "residuals", "status"):
                np.testing.assert_array_equal(getattr(grouped, name), getattr(repeated, name))


@pytest.mark.parametrize("each", [0, 4, 300])
def test_rows_that_do_not_fit_the_targets_are_refused(each):
    with pytest.raises(InputError, match="targets_per_row"):
        Problem(np.ones((3, 12), np.float32), np.ones(6, np.float32), 0.1, targets_per_row=each)


def test_the_rows_of_problems_still_open_may_look_like_neighbours():
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.1, 1, (3, 12)).astype(np.float32)
    targets = np.zeros(9, np.float32)
    targets[[0, 1, 6]] = 3.3, 4.4, 2.2  # as many as there are rows from the first to the last of them
    solution = solve(Problem(rows, targets, 1e-2, targets_per_row=3), Smallest())
    assert (solution.sizes[targets > 0] > 2).all()
    found = recomputed(solution, np.repeat(rows, 3, 0), targets)
    np.testing.assert_allclose(np.abs(solution.residuals), found, atol=1e-6)
    np.testing.assert_array_equal(solution.within, found <= 1e-2)
