"""Choosing a size on every front: against all combinations, exactly within budget, and as far from best as it says."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lottery_jax.approximation.allocation import ParetoFronts
from lottery_jax.errors import InputError

# Residuals and importances are small whole numbers, so that errors add up exactly and ties are many.
RESIDUALS = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 6.0, math.inf]))
)


def all_choices(errors):
    """(kept, error) of every combination of sizes that have a subset."""
    found = []
    for sizes in itertools.product(range(errors.shape[1]), repeat=len(errors)):
        error = sum(errors[row, size] for row, size in enumerate(sizes))
        if math.isfinite(error):
            found.append((sum(sizes), error))
    return found


def least_error(choices, kept):
    return min((error for total, error in choices if total <= kept), default=None)


def least_kept(choices, error):
    return min((total for total, each in choices if each <= error), default=None)


def weighted(residuals, importance):
    return np.where(
        np.isinf(residuals), math.inf, importance[:, None] * np.where(np.isinf(residuals), 0, residuals) ** 2
    )


@st.composite
def instances(draw):
    residuals = draw(RESIDUALS)
    residuals[:, 0] = np.where(np.isinf(residuals).all(1), 5.0, residuals[:, 0])
    importance = draw(arrays(np.float64, len(residuals), elements=st.sampled_from([0.0, 1.0, 2.0, 5.0])))
    return residuals, importance


@given(instances())
def test_every_budget_of_kept_weights_against_all_combinations(instance):
    residuals, importance = instance
    errors = weighted(residuals, importance)
    choices, fronts = all_choices(errors), ParetoFronts(residuals, importance)
    smallest, previous = min(choices)[0], math.inf
    for kept in range(smallest, errors.size + 2):
        found, best = fronts.within_kept(kept), least_error(choices, kept)
        assert found.sizes.dtype == np.int64 and found.kept == found.sizes.sum() <= kept
        assert found.error == sum(errors[row, size] for row, size in enumerate(found.sizes))
        assert found.bound - 1e-9 <= best <= found.error <= previous
        # Less than one step of a hull away from the best.
        assert found.error - best <= found.multiplier * (errors.shape[1] - 2) + 1e-9
        if found.bound == found.error:
            assert found.error == best
        previous = found.error
        # Nothing that still fits would lower the error.
        for row in range(len(errors)):
            for more in range(1, kept - found.kept + 1):
                if found.sizes[row] + more < errors.shape[1]:
                    assert errors[row, found.sizes[row] + more] >= errors[row, found.sizes[row]]
    with pytest.raises(InputError, match="smallest subsets"):
        fronts.within_kept(smallest - 1) if smallest else ParetoFronts(np.array([[math.inf, 1.0]])).within_kept(0)


@given(instances())
def test_what_a_multiplier_reaches_is_optimal(instance):
    residuals, importance = instance
    errors = weighted(residuals, importance)
    choices, fronts = all_choices(errors), ParetoFronts(residuals, importance)
    for multiplier in (*fronts.breakpoints, math.inf):
        taken = fronts.rates >= multiplier
        kept = int(fronts.start.sum() + fronts.widths[taken].sum())
        found = fronts.within_kept(kept)
        assert found.kept == kept and found.error == least_error(choices, kept)
        # The same point of the curve from the other side.
        assert fronts.within_error(found.error).kept == kept == least_kept(choices, found.error)
        # And it minimises error + multiplier * kept over all combinations.
        if math.isfinite(multiplier):
            least = min(error + multiplier * total for total, error in choices)
            assert found.error + multiplier * kept == pytest.approx(least, rel=1e-12)


@given(instances())
def test_every_budget_of_error_against_all_combinations(instance):
    residuals, importance = instance
    errors = weighted(residuals, importance)
    choices, fronts = all_choices(errors), ParetoFronts(residuals, importance)
    lowest, highest = min(error for _, error in choices), max(error for _, error in choices)
    previous = math.inf
    for error in np.unique([*np.linspace(lowest, highest + 1, 23), *(each for _, each in choices)]):
        found, best = fronts.within_error(float(error)), least_kept(choices, error)
        assert found.kept == found.sizes.sum() <= previous
        assert found.error == sum(errors[row, size] for row, size in enumerate(found.sizes)) <= error
        assert found.bound <= best <= found.kept < best + errors.shape[1]
        previous = found.kept
    if lowest:
        with pytest.raises(InputError, match="the least is"):
            fronts.within_error(lowest * 0.999)


@given(instances(), st.randoms(use_true_random=False))
def test_order_and_larger_sizes_change_no_total(instance, random):
    residuals, importance = instance
    fronts, order = ParetoFronts(residuals, importance), list(range(len(residuals)))
    random.shuffle(order)
    shuffled = ParetoFronts(residuals[order], importance[order])
    negated = ParetoFronts(-np.where(np.isinf(residuals), -np.inf, residuals), importance)
    unsure = ParetoFronts(residuals, importance, larger=True)
    for kept in range(int(fronts.start.sum()), residuals.size + 1):
        found = fronts.within_kept(kept)
        np.testing.assert_array_equal(found.sizes, fronts.within_kept(kept).sizes)
        np.testing.assert_array_equal(found.sizes, negated.within_kept(kept).sizes)
        np.testing.assert_array_equal(found.sizes, unsure.within_kept(kept).sizes)
        assert (shuffled.within_kept(kept).kept, shuffled.within_kept(kept).error) == (found.kept, found.error)
        assert unsure.within_kept(kept).bound <= found.bound


@given(instances())
def test_no_order_of_the_weights_changes_a_total(instance):
    """All orders of the weights, for budgets of both kinds; the totals are those of the first order."""
    residuals, importance = instance
    fronts, errors = ParetoFronts(residuals, importance), weighted(residuals, importance)
    budgets = range(int(fronts.start.sum()), errors.size + 1)
    within = np.unique([error for _, error in all_choices(errors)])
    kept = [(found.kept, found.error, found.bound) for found in map(fronts.within_kept, budgets)]
    least = [(found.kept, found.error, found.bound) for found in map(fronts.within_error, within)]
    for order in itertools.islice(itertools.permutations(range(len(residuals))), 1, None):
        other = ParetoFronts(residuals[list(order)], importance[list(order)])
        assert [(found.kept, found.error, found.bound) for found in map(other.within_kept, budgets)] == kept
        assert [(found.kept, found.error, found.bound) for found in map(other.within_error, within)] == least


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_tied_steps_fill_the_budget(order):
    """One step of width 1 and one of width 2 have the same slope; the wider one fits a budget of 2 and is better."""
    residuals = np.array([[0.0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]])[list(order)]
    importance = np.array([2.0, 1, 2])[list(order)]
    found, choices = ParetoFronts(residuals, importance).within_kept(2), all_choices(weighted(residuals, importance))
    assert (found.kept, found.error) == (2, 1.0) and found.error == least_error(choices, 2)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 20))
def test_tied_steps_are_taken_widest_first(widths, kept):
    """One step of equal slope for each weight: the best choice if the widest steps fill the budget."""
    errors = np.where(np.arange(5) < np.array(widths)[:, None], np.array(widths, float)[:, None], 0.0)
    left = kept
    for width in sorted(widths, reverse=True):
        left -= width if width <= left else 0
    found = ParetoFronts(np.ones((len(widths), 5)) * (errors > 0), np.array(widths, float)).within_kept(kept)
    assert found.error == sum(widths) - (kept - left)
    if not left:
        assert found.error == least_error(all_choices(errors), kept)


@given(st.integers(0, 2**32 - 1))
def test_the_bound_holds_for_sizes_left_out(seed):
    """Fronts cut off at K = 1, the optimum taken over all sizes up to 3."""
    residuals = np.random.default_rng(seed).uniform(0, 1, (3, 4))
    residuals = np.minimum.accumulate(residuals, 1)
    choices, fronts = all_choices(residuals**2), ParetoFronts(residuals[:, :2], larger=True)
    for kept in range(7):
        assert fronts.within_kept(kept).bound <= least_error(choices, kept) + 1e-12
    for error in fronts.within_kept(9).error * np.array([1.01, 1.1, 1.5, 2]):
        assert fronts.within_error(error).bound <= least_kept(choices, error)


def test_many_fronts_are_within_one_step_of_the_best():
    """20,000 random fronts: the sizes by one multiplier and the last few weights, and the gap to the bound is tiny."""
    rng = np.random.default_rng(0)
    residuals = rng.uniform(-1, 1, (20_000, 7)).astype(np.float32) * 0.3 ** np.arange(7, dtype=np.float32)
    importance = rng.lognormal(size=20_000)
    fronts = ParetoFronts(residuals, importance)
    for kept in (0, 1, 12_345, 50_000, 119_999, 120_000, 10**9):
        found = fronts.within_kept(kept)
        exact = math.fsum(importance * residuals.astype(np.float64)[np.arange(20_000), found.sizes] ** 2)
        assert found.error == pytest.approx(exact, rel=1e-12)
        assert kept - found.kept == 0 or found.kept == fronts.within_kept(10**9).kept
        assert found.error - found.bound <= 6 * found.multiplier
        assert fronts.within_error(found.error).kept <= found.kept
    with pytest.raises(InputError, match="the least is"):
        fronts.within_error(found.error * (1 - 1e-12))


def test_by_hand():
    # Weight 0 falls 4 -> 1 -> 0 (squared 16, 1, 0), weight 1 falls 3 -> 3 -> 0 (9, 9, 0): its hull skips size 1.
    fronts = ParetoFronts(np.array([[4.0, 1.0, 0.0], [3.0, 3.0, 0.0]]))
    np.testing.assert_array_equal(fronts.breakpoints, [1, 4.5, 15])
    sizes = [fronts.within_kept(kept).sizes.tolist() for kept in range(6)]
    # With two, the step of two does not fit behind the first, and the last of weight 0 does.
    assert sizes == [[0, 0], [1, 0], [2, 0], [1, 2], [2, 2], [2, 2]]
    assert fronts.within_kept(2).bound == 10 - 4.5 and fronts.within_kept(2).error == 9
    assert fronts.within_error(1).sizes.tolist() == [1, 2] and fronts.within_error(9).sizes.tolist() == [2, 0]
    assert fronts.within_error(25).sizes.tolist() == [0, 0]


def test_equal_fronts_are_served_in_order():
    fronts = ParetoFronts(np.array([[2.0, 0.0]] * 5))
    assert fronts.within_kept(3).sizes.tolist() == [1, 1, 1, 0, 0]
    assert fronts.within_error(8).sizes.tolist() == [1, 1, 1, 0, 0]
    assert fronts.within_error(7.9).sizes.tolist() == [1, 1, 1, 1, 0]


def test_without_importance_nothing_is_kept():
    fronts = ParetoFronts(np.array([[2.0, 0.0], [1.0, 0.5]]), np.zeros(2))
    found = fronts.within_kept(2)
    assert found.sizes.tolist() == [0, 0] and found.error == found.bound == 0
    assert fronts.within_error(0).kept == 0
    some = ParetoFronts(np.array([[2.0, 0.0], [1.0, 0.5]]), np.array([0, 3]))
    assert some.within_kept(2).sizes.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"residuals": np.array([1.0, 0.5])}, r"\[P weights, K \+ 1 sizes\]"),
        ({"residuals": np.array([[1, 0]])}, "int64"),
        ({"residuals": np.zeros((0, 3))}, "shape"),
        ({"residuals": np.array([[np.nan, 0.0]])}, "NaN"),
        ({"residuals": np.array([[np.inf, np.inf]])}, "no subset of any size"),
        ({"residuals": np.array([[1e200, 0.0]]), "importance": np.array([1.0])}, "overflows"),
        ({"importance": np.array([np.nan])}, "1 importances are NaN"),
        ({"importance": np.array([-1.0])}, "negative"),
        ({"importance": np.array([np.inf])}, "infinite"),
        ({"importance": np.array(["high"])}, "numbers"),
        ({"importance": np.ones(2)}, r"shape \[1\]"),
    ],
)
def test_bad_fronts_are_refused(change, words):
    arguments = {"residuals": np.array([[1.0, 0.5]]), "importance": None, **change}
    with pytest.raises(InputError, match=words):
        ParetoFronts(**arguments)


@pytest.mark.parametrize("kept", [-1, 1.5, True, float("nan"), "3", 2**70])
def test_bad_budgets_of_kept_weights_are_refused(kept):
    with pytest.raises(InputError, match="whole number"):
        ParetoFronts(np.array([[1.0, 0.5]])).within_kept(kept)


@pytest.mark.parametrize("error", [-1e-9, float("nan"), float("inf")])
def test_bad_budgets_of_error_are_refused(error):
    with pytest.raises(InputError, match="budget of error"):
        ParetoFronts(np.array([[1.0, 0.5]])).within_error(error)
