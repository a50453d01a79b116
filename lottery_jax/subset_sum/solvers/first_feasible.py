"""The first subset within the tolerance."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.search.by_size import problems_at_once
from lottery_jax.subset_sum.search.first import first_of_size, first_of_sizes
from lottery_jax.subset_sum.solver import Solver, Stage
from lottery_jax.subset_sum.solvers.smallest import Feasible

_ENUMERATED = (0, 1, 2), (3,), (4,), (5,)


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
        enumerated = [sizes for sizes in _ENUMERATED if sizes[-1] <= candidates] or [(0, 1)]
        return (*(FirstOf(sizes) for sizes in enumerated), Feasible(), FirstBySize())


@dataclasses.dataclass(frozen=True)
class FirstOf(Stage):
    """The first subset of `sizes`, by enumeration."""

    sizes: tuple[int, ...]
    failure: ClassVar[Status] = Status.NOT_FOUND

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return first_of_sizes(grid.candidates, grid.targets, grid.tolerance, self.sizes)[0]

    def chunk(self, candidates: int, cpu: bool) -> int:
        return problems_at_once(candidates, self.sizes, cpu)

    def still_open(self, within: np.ndarray) -> np.ndarray:
        return ~within


@dataclasses.dataclass(frozen=True)
class FirstBySize(Stage):
    """Further sizes in turn, by sorted halves."""

    wide: ClassVar[bool] = True

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        a = grid.candidates.astype(jnp.int64)
        target, tolerance = grid.targets.astype(jnp.int64), grid.tolerance.astype(jnp.int64)
        count, batch = a.shape

        def step(state):
            size, chosen, open_ = state
            subset, found = first_of_size(a, target, tolerance, size)
            return size + 1, jnp.where(open_ & found, subset, chosen), open_ & ~found

        def unfinished(state):
            return jnp.any(state[2]) & (state[0] <= count)

        start = (jnp.int64(min(_ENUMERATED[-1][-1], count) + 1), jnp.zeros(a.shape, bool), jnp.ones(batch, bool))
        return jax.lax.while_loop(unfinished, step, start)[1]

    def chunk(self, candidates: int, cpu: bool) -> int:
        return 2 ** max((16 if cpu else 24) - (candidates + 1) // 2, 0)
