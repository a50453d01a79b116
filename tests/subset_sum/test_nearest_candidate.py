"""`NearestCandidate` against NumPy in float64, for few candidates and for very many."""

import numpy as np
import pytest

from lottery_jax.subset_sum import NearestCandidate, Problem, Status, solve
from tests.subset_sum.instances import instances


@pytest.mark.parametrize("count", [7, 300])
def test_it_is_the_nearest_or_none(count: int) -> None:
    candidates, targets = instances(count)
    solution = solve(Problem(candidates, targets, 0.03), NearestCandidate())
    wanted = targets.astype(np.float64)
    distance = np.abs(candidates.astype(np.float64) - wanted[:, None])
    least = np.minimum(distance.min(1), np.abs(wanted))
    # Within two steps of the grid; the one of 64 bits has steps of next to nothing.
    slack = 2 * np.abs(candidates).sum(1) * (2.0**-28 if count <= 24 else 2.0**-50)
    found = np.abs((solution.subsets * candidates.astype(np.float64)).sum(1) - wanted)
    assert (solution.sizes <= 1).all() and (found <= least + slack).all()
    np.testing.assert_allclose(np.abs(solution.residuals), found, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(solution.sizes == 0, np.abs(wanted) <= distance.min(1))
    assert set(np.unique(solution.status)) == {Status.WITHIN, Status.NOT_FOUND}


def test_of_equally_near_ones_the_first() -> None:
    candidates = np.array([[1.0, 0.5, 0.25, 0.5, 0.25, 0.0, -0.5]], np.float32)
    solution = solve(Problem(candidates, np.array([0.375], np.float32), 0.2), NearestCandidate())
    np.testing.assert_array_equal(np.flatnonzero(solution.subsets), [1])


@pytest.mark.slow
def test_as_many_candidates_as_it_takes() -> None:
    """65,536, in chunks of a few problems: memory does not grow with the number of problems."""
    random = np.random.default_rng(0)
    candidates = random.uniform(-1, 1, NearestCandidate.max_candidates).astype(np.float32)
    targets = random.uniform(-0.5, 0.5, 100).astype(np.float32)
    solution = solve(Problem(candidates, targets, 1e-3), NearestCandidate())
    least = np.abs(candidates.astype(np.float64) - targets[:, None].astype(np.float64)).min(1)
    np.testing.assert_allclose(np.abs(solution.residuals), least, atol=1e-7)
    assert solution.within.all() and (solution.sizes == 1).all()
