"""A solver: the nearest single candidate, or none. `solve` and `ToleranceObjective(solver=...)` take it."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum import Solution
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Status
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class Nearest(SinglePass[Solution]):
    """The candidate nearest to the target, where it is nearer than nothing."""

    max_candidates: ClassVar[int] = 2**16
    failure: ClassVar[Status] = Status.NOT_FOUND

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        left = jnp.abs(grid.targets - grid.candidates)
        nearest = jnp.arange(len(left))[:, None] == jnp.argmin(left, 0)
        return nearest & (left < jnp.abs(grid.targets))

    def chunk(self, candidates: int, cpu: bool) -> int:
        return 512
