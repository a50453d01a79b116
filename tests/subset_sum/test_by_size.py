"""`Pareto` and `FixedSize` against brute force over all subsets."""

import itertools

import jax
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.subset_sum import FixedSize, Pareto, Problem, Smallest, Status, solve
from lottery_jax.subset_sum.algorithms.by_size import closest_of_size
from tests.subset_sum.instances import instances
from tests.subset_sum.oracles import least_residuals_by_size


def recomputed_front(front, candidates, targets):
    sums = np.einsum("pkn,pn->pk", front.subsets.astype(np.float64), candidates.astype(np.float64))
    return sums - targets.astype(np.float64)[:, None]


@pytest.mark.parametrize(("count", "k_max"), [(1, 3), (2, 1), (5, 5), pytest.param(13, 13, marks=pytest.mark.slow)])
def test_pareto_is_exact_for_every_size(count, k_max):
    candidates, targets = instances(count)
    front = solve(Problem(candidates, targets, 0.03), Pareto(k_max))
    best = least_residuals_by_size(candidates, targets, k_max)
    there = np.arange(k_max + 1) <= count
    found = recomputed_front(front, candidates, targets)
    # Within N + 1 steps of the 32-bit grid, whose step is at most sum |a| / 2**28.
    slack = (count + 1) * np.abs(candidates).sum(1, keepdims=True) * 2.0**-28
    assert (np.abs(found) <= best + slack)[:, there].all()
    np.testing.assert_allclose(front.residuals[:, there], found[:, there], rtol=1e-5, atol=2e-6)
    assert np.isposinf(front.residuals[:, ~there]).all() and not front.bits[:, ~there].any()
    np.testing.assert_array_equal(front.subsets.sum(2)[:, there], np.tile(front.sizes[there], (len(targets), 1)))
    np.testing.assert_array_equal(front.within[:, there], (np.abs(found) <= 0.03)[:, there])
    assert not front.within[:, ~there].any()


@pytest.mark.slow
def test_fixed_size_is_the_column_of_the_front():
    candidates, targets = instances(13)
    problem = Problem(candidates, targets, 0.03)
    front = solve(problem, Pareto(13))
    for size in (1, 6, 7):
        alone, column = solve(problem, FixedSize(size)), front.of_size(size)
        np.testing.assert_array_equal(alone.bits, column.bits)
        np.testing.assert_array_equal(alone.residuals, column.residuals)
        np.testing.assert_array_equal(alone.status, column.status)
        assert (alone.sizes == size).all()


def test_the_first_column_within_is_the_smallest():
    problem = Problem(*instances(5), 0.03)
    fewest, smallest = solve(problem, Pareto(5)).smallest(), solve(problem, Smallest())
    np.testing.assert_array_equal(fewest.within, smallest.within)
    np.testing.assert_array_equal(fewest.sizes[fewest.within], smallest.sizes[fewest.within])
    assert (fewest.status[~fewest.within] == Status.NOT_FOUND).all()


@pytest.mark.slow
def test_pareto_at_the_size_in_use():
    rng = np.random.default_rng(21)
    candidates = rng.uniform(-0.5, 0.5, (8, 21)).astype(np.float32)
    targets = rng.uniform(-0.5, 0.5, 8).astype(np.float32)
    front = solve(Problem(candidates, targets, 0.01), Pareto(6))
    best = least_residuals_by_size(candidates, targets, 6)
    assert (np.abs(recomputed_front(front, candidates, targets)) <= best + 22 * 21 * 2.0**-28).all()


def test_sorting_finds_what_trying_all_finds():
    rng = np.random.default_rng(0)
    values, wanted = rng.integers(-(2**40), 2**40, (9, 16)), rng.integers(-(2**40), 2**40, 16)
    values[:, :4] >>= 39  # ties
    with jax.enable_x64(True):
        sort = jax.jit(closest_of_size)
        found = [sort(values, wanted, size) for size in range(10)]
    for size, (chosen, residual) in enumerate(found):
        members = np.array(list(itertools.combinations(range(9), size)), int)
        best = np.abs(values[members].sum(1) - wanted).min(0)
        np.testing.assert_array_equal(np.abs(residual), best)
        np.testing.assert_array_equal(np.abs(np.where(chosen, values, 0).sum(0) - wanted), best)
        assert (np.sum(chosen, 0) == size).all()


@pytest.mark.slow
def test_half_of_forty_candidates():
    rng = np.random.default_rng(0)
    candidates, targets = rng.uniform(-1, 1, (1, 40)), rng.uniform(-1, 1, 1)
    solution = solve(Problem(candidates, targets, 1e-6), FixedSize(20))
    found = (solution.subsets * candidates).sum() - targets[0]
    assert (
        solution.sizes[0] == 20
        and solution.within[0]
        and abs(found) < 1e-9
        and np.isclose(found, solution.residuals[0], atol=1e-13)
    )


def test_no_problems_give_an_empty_front():
    front = solve(Problem(np.zeros((0, 5), np.float32), np.zeros(0, np.float32), 0.1), Pareto(2))
    assert front.bits.shape == (0, 3, 1) and front.subsets.shape == (0, 3, 5) and front.smallest().bits.shape == (0, 1)


def test_senseless_sizes_are_refused():
    problem = Problem(*instances(5), 0.1)
    with pytest.raises(InputError, match=r"k = 6.*N is 5.*smaller k"):
        solve(problem, FixedSize(6))
    for solver in (FixedSize, Pareto):
        with pytest.raises(InputError, match="0 or more, got -1"):
            solver(-1)
    wide = Problem(np.zeros((1, 40), np.float32), np.zeros(1, np.float32), 0.1)
    with pytest.raises(InputError, match=r"sizes \[20\] of 40 candidates need the 64-bit grid"):
        solve(wide, FixedSize(20), grid="int32")
    with pytest.raises(InputError, match="from 0 to 5, got 6"):
        solve(problem, Pareto(5)).of_size(6)
