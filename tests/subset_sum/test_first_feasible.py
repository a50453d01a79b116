"""`FirstFeasible` against `itertools.combinations`, whose order is the one that is meant."""

import itertools

import numpy as np
import pytest

from lottery_jax.subset_sum import FirstFeasible, Problem, Smallest, Status, choose_solver, solve


def first_by_trying(row: np.ndarray, target: int, tolerance: int, most: int) -> list[int] | None:
    for size in range(most + 1):
        for subset in itertools.combinations(range(len(row)), size):
            if abs(sum(int(row[k]) for k in subset) - target) <= tolerance:
                return list(subset)
    return None


def integers(count: int, problems: int, most: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Integers, exact on every grid; small ones have many subsets of one sum, which the order must tell apart."""
    rng = np.random.default_rng(seed)
    candidates = rng.integers(-most, most + 1, (problems, count))
    return candidates, rng.integers(-3 * most, 3 * most + 1, problems)


def check(candidates: np.ndarray, targets: np.ndarray, tolerance: int, most: int, dtype: type = np.float32) -> None:
    problem = Problem(candidates.astype(dtype), targets.astype(dtype), tolerance + 0.5)
    solution = solve(problem, FirstFeasible())
    for row, target, subset, status in zip(candidates, targets, solution.subsets, solution.status, strict=True):
        expected = first_by_trying(row, int(target), tolerance, most)
        if expected is None:
            assert status == Status.INFEASIBLE
        else:
            assert np.flatnonzero(subset).tolist() == expected and status == Status.WITHIN


@pytest.mark.parametrize(("most", "tolerance"), [(3, 0), pytest.param(1000, 40, marks=pytest.mark.slow)])
def test_it_is_the_first_of_all(most: int, tolerance: int) -> None:
    """Sizes from 0 to 7, enumerated and sorted, and problems without any."""
    candidates, targets = integers(7, 64, most)
    candidates[:8] = np.abs(candidates[:8]) + 1
    targets[:8] = candidates[:8].sum(1) - np.arange(8) % 2 * candidates[:8, 0]  # all of them, or all but the first
    targets[8:12] = 50 * most
    check(candidates, targets, tolerance, 7)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "most", "dtype"), [(1, 3, np.float32), (2, 3, np.float32), (12, 2**20, np.float64)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_first_of_all_whatever_the_number(count: int, most: int, dtype: type, seed: int) -> None:
    candidates, targets = integers(count, 40, most, seed)
    sizes = np.random.default_rng(seed).random((40, count)).argsort(1) < np.arange(40)[:, None] % (count + 1)
    targets[10:] = (candidates * sizes).sum(1)[10:]
    check(candidates, targets, 0, count, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(16, 6), (16, 9), (30, 4)])
def test_where_only_the_order_decides(count: int, size: int) -> None:
    """Positive candidates of nearly one size: only subsets of exactly so many reach the target, and very many do."""
    candidates = 1000 + np.random.default_rng(4).integers(0, 3, (6, count))
    targets = candidates[:, -size:].sum(1)  # the last of them at least
    solution = solve(Problem(candidates.astype(np.float32), targets.astype(np.float32), 0.5), FirstFeasible())
    for row, target, subset in zip(candidates.tolist(), targets, solution.subsets, strict=True):
        subsets = itertools.combinations(range(count), size)
        expected = next(some for some in subsets if sum(row[k] for k in some) == target)
        assert np.flatnonzero(subset).tolist() == list(expected)


@pytest.mark.slow
def test_it_keeps_as_few_as_the_smallest() -> None:
    rng = np.random.default_rng(0)
    problem = Problem(rng.uniform(-1, 1, (200, 14)), rng.uniform(-1, 1, 200), 1e-2)
    first, smallest = solve(problem, FirstFeasible()), solve(problem, Smallest())
    np.testing.assert_array_equal(first.status, smallest.status)
    np.testing.assert_array_equal(first.sizes[first.within], smallest.sizes[first.within])
    assert (np.abs(first.residuals) >= np.abs(smallest.residuals)).all() and (first.bits != smallest.bits).any()


def test_the_objective_chooses_it() -> None:
    assert choose_solver(21, objective="first") == FirstFeasible()
