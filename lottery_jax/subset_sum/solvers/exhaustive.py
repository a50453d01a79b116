"""All subsets, one after the other."""

import dataclasses
from typing import ClassVar

import jax

from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution
from lottery_jax.subset_sum.search.pairs import nearest_of_all
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class Exhaustive(SinglePass[Solution]):
    """The subset of least residual, exact, by trying all 2**N: for checking the other solvers, and for small N.

    Three vector operations for each subset; memory for the 2**(N/2) sums of each half and no more.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, -0.25, 0.125]), np.array([0.3]), tolerance=0.2)
    >>> solve(problem, Exhaustive()).subsets
    array([[ True, True, False]])
    """

    max_candidates: ClassVar[int] = 26

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return nearest_of_all(grid.candidates, grid.targets)

    def chunk(self, candidates: int, cpu: bool) -> int:
        half = (candidates + 1) // 2
        return min(128, 2 ** (17 - half)) if cpu else min(2**14, 2 ** (24 - half))
