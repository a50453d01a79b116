"""Fewest candidates within the tolerance."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.grid import Grid
from lottery_jax.subset_sum.meet_in_the_middle import MeetInTheMiddle
from lottery_jax.subset_sum.solver import Solver, Stage
from lottery_jax.subset_sum.sorted_by_size import closest_of_size


@dataclasses.dataclass(frozen=True)
class Smallest(Solver):
    """The fewest candidates within the tolerance, exact; among those the least residual.

    Sizes up to 3 are enumerated, each only for the problems that a smaller size left open. What remains is first
    asked for its least residual (a problem that fails here has no solution), then met in the middle size by size.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.3, 0.2, 0.1]), np.array([0.0, 0.6]), tolerance=0.01)
    >>> solve(problem, Smallest()).sizes
    array([0, 2])
    """

    max_candidates: ClassVar[int] = 40

    def stages(self, candidates: int) -> tuple[Stage, ...]:
        enumerated = [Enumerate(size) for size in (1, 2, 3) if size <= candidates]
        return (*enumerated, Feasible(), BySize())


@dataclasses.dataclass(frozen=True)
class Enumerate(Stage):
    """The best subset of exactly `size` candidates (and the empty one before size 1), by enumeration."""

    size: int

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        a, target = grid.candidates, grid.targets
        count = a.shape[0]
        sums, members = a, np.arange(count)[:, None]
        for _ in range(self.size - 1):
            # Rows whose last member comes before the new one: combinations in order, none twice.
            pairs = [(row, new) for row in range(len(members)) for new in range(members[row, -1] + 1, count)]
            rows, new = np.array(pairs).T
            sums = sums[rows] + a[new]
            members = np.concatenate([members[rows], new[:, None]], 1)
        distance = jnp.abs(sums - target)
        least = distance.min(0)
        place = jnp.arange(len(members), dtype=jnp.int32)[:, None]
        best = jnp.where(distance == least, place, len(members)).min(0)
        table = np.zeros((len(members), count), bool)
        table[np.arange(len(members))[:, None], members] = True
        chosen = jnp.asarray(table)[best].T
        empty = jnp.abs(target) <= grid.tolerance
        return chosen & ~empty if self.size == 1 else chosen

    def chunk(self, candidates: int, cpu: bool) -> int:
        combinations = math.comb(candidates, self.size)
        return max(1, min(4096, 2 ** (18 - (combinations - 1).bit_length()))) if cpu else 2**14

    def still_open(self, within: np.ndarray) -> np.ndarray:
        return ~within


@dataclasses.dataclass(frozen=True)
class Feasible(MeetInTheMiddle):
    """The least residual of what is left: a problem beyond the tolerance here has no solution and stops."""

    def still_open(self, within: np.ndarray) -> np.ndarray:
        return within


@dataclasses.dataclass(frozen=True)
class BySize(Stage):
    """Sizes 4, 5, ... in turn: a meeting in the middle where the two parts' sizes must add up."""

    wide: ClassVar[bool] = True

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        a = grid.candidates.astype(jnp.int64)
        target, tolerance = grid.targets.astype(jnp.int64), grid.tolerance.astype(jnp.int64)
        count, batch = a.shape

        def step(state):
            size, chosen, open_ = state
            subset, residual = closest_of_size(a, target, size)
            found = open_ & (jnp.abs(residual) <= tolerance)
            return size + 1, jnp.where(found, subset, chosen), open_ & ~found

        def unfinished(state):
            return jnp.any(state[2]) & (state[0] <= count)

        start = (jnp.int64(4), jnp.zeros(a.shape, bool), jnp.ones(batch, bool))
        return jax.lax.while_loop(unfinished, step, start)[1]

    def chunk(self, candidates: int, cpu: bool) -> int:
        return 2 ** max((16 if cpu else 24) - (candidates + 1) // 2, 0)
