"""The first subset within the tolerance."""

import dataclasses
from typing import ClassVar

import jax

from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution
from lottery_jax.subset_sum.search.first import first_of_size, first_of_sizes
from lottery_jax.subset_sum.solver import Solver, Stage
from lottery_jax.subset_sum.solvers.smallest import BySize, Enumerate, size_after_size


@dataclasses.dataclass(frozen=True)
class FirstFeasible(Solver[Solution]):
    """The first subset within the tolerance, by size and of one size lexicographically, exact on the grid.

    {} < {0} < {1} < ... < {0, 1} < {0, 2} < ... < {1, 2}: of two subsets of a size the one with the least position in
    which they differ is the first. Its rank in that order is as short to write as a subset's can be whose rank means
    nothing else. Sizes up to 5 are enumerated, C(N, k) subsets with three vector operations each, for the problems that
    the ones before left open. What remains is first asked for its least residual (a problem that fails here has no
    solution), then its halves are sorted size by size.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.3, 0.2, 0.1]), np.array([0.0, 0.6]), tolerance=0.11)
    >>> solve(problem, FirstFeasible()).subsets.astype(int)
    array([[0, 0, 0, 0],
           [1, 0, 0, 0]])
    """

    max_candidates: ClassVar[int] = 40

    def stages(self, candidates: int) -> tuple[Stage, ...]:
        return size_after_size(candidates, FirstOf, FirstBySize())


@dataclasses.dataclass(frozen=True)
class FirstOf(Enumerate):
    """The first subset of `sizes`, by enumeration."""

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return first_of_sizes(grid.candidates, grid.targets, grid.tolerance, self.sizes)[0]

    def on_host(self, candidates: int, problems: int, key: jax.Array | None) -> None:
        return None


@dataclasses.dataclass(frozen=True)
class FirstBySize(BySize):
    """Further sizes in turn, by sorted halves."""

    def of_size(
        self, candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, size: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return first_of_size(candidates, targets, tolerance, size)
