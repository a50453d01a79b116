"""One candidate."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.search.pairs import first_row
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class NearestCandidate(SinglePass[Solution]):
    """The candidate nearest to the target, the first of equally near ones; none where 0 is as near. Any N, no sums.

    The least residual falls as 1 / N, where that of subsets falls as 2**-N. Malach et al. 2020 approximate each weight
    by one product so. Two operations for each candidate.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, -0.25, 0.125]), np.array([0.3, -0.1]), tolerance=0.2)
    >>> solve(problem, NearestCandidate()).subsets
    array([[False, False,  True],
           [False, False, False]])
    """

    max_candidates: ClassVar[int] = 2**16
    failure: ClassVar[Status] = Status.NOT_FOUND

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        distance = jnp.abs(grid.candidates - grid.targets)
        least = distance.min(0)
        nearest = jnp.arange(len(distance), dtype=jnp.int32)[:, None] == first_row(distance == least)
        return nearest & (least < jnp.abs(grid.targets))

    def chunk(self, candidates: int, cpu: bool) -> int:
        return max(1, min(512, 2 ** (18 if cpu else 26) // candidates))
