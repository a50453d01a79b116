"""Every solver, with what its answers may be: the coefficients it chooses from, and if it finds the best of them."""

import dataclasses
import itertools

import jax
import numpy as np

from lottery_jax.subset_sum import (
    Auto,
    Differencing,
    Exhaustive,
    FirstFeasible,
    FixedSize,
    Greedy,
    MeetInTheMiddle,
    NearestCandidate,
    Problem,
    Randomized,
    Signed,
    Smallest,
    Solution,
    Solver,
    solve,
)

COUNT = 7
"""Candidates of most tests: with 9 to 64 problems they all run the same compiled program."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """exact: the residual is the least one of `coefficients`. Otherwise it is only not below that."""

    solver: Solver
    exact: bool
    values: tuple[int, ...] = (0, 1)
    size: int | None = None

    def coefficients(self, count: int) -> np.ndarray:
        """All choices that are allowed, [C, N]."""
        all_ = np.array(list(itertools.product(self.values, repeat=count)))
        return all_ if self.size is None else all_[np.abs(all_).sum(1) == self.size]

    def solve(self, candidates: np.ndarray, targets: np.ndarray, tolerance: float = 0.03, **options) -> Solution:
        return solve(Problem(candidates, targets, tolerance), self.solver, key=jax.random.key(0), **options)


SOLVERS = {
    type(entry.solver).__name__: entry
    for entry in (
        Entry(Exhaustive(), exact=True),
        Entry(MeetInTheMiddle(), exact=True),
        Entry(Auto(), exact=True),
        Entry(FixedSize(3), exact=True, size=3),
        Entry(Signed(), exact=True, values=(-1, 0, 1)),
        Entry(Smallest(), exact=False),
        Entry(FirstFeasible(), exact=False),
        Entry(Greedy(), exact=False),
        Entry(Differencing(), exact=False),
        Entry(NearestCandidate(), exact=False),
        Entry(Randomized(left=4), exact=False),
    )
}
