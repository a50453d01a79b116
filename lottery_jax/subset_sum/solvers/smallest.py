"""Fewest candidates within the tolerance.

The first subset within the tolerance.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.algorithms.by_size import (
    closest_of_size,
    closest_of_sizes,
    first_of_size,
    first_of_sizes,
    problems_at_once,
)
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.kernels import at_hand
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.solver import HostSearch, SearchPass, Solver
from lottery_jax.subset_sum.solvers.exact import MeetInTheMiddle

_ENUMERATED = (0, 1, 2), (3,), (4,), (5,)


@dataclasses.dataclass(frozen=True)
class Smallest(Solver[Solution]):
    """The fewest candidates within the tolerance, exact; among those the least residual.

    Sizes up to 5 are enumerated, each for the problems that the ones before left open. What remains is first asked for
    its least residual (a problem that fails here has no solution), then met in the middle size by size.
    On CPU, with Numba installed, 12 to 24 candidates are enumerated by `kernels.by_size_cpu`: the same answers, sooner.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.3, 0.2, 0.1]), np.array([0.0, 0.6]), tolerance=0.01)
    >>> solve(problem, Smallest()).sizes
    array([0, 2])
    """

    max_candidates: ClassVar[int] = 40

    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        return size_after_size(candidates, Enumerate, BySize())


def size_after_size(candidates: int, enumerate_: "type[Enumerate]", further: "BySize") -> tuple[SearchPass, ...]:
    """Small sizes by enumeration; of the rest those that have a solution, then further sizes."""
    enumerated = [sizes for sizes in _ENUMERATED if sizes[-1] <= candidates] or [(0, 1)]
    return (*(enumerate_(sizes) for sizes in enumerated), Feasible(), further)


@dataclasses.dataclass(frozen=True)
class Enumerate(SearchPass):
    """The best subset of the first of `sizes` that has one within the tolerance, by enumeration."""

    sizes: tuple[int, ...]
    failure: ClassVar[Status] = Status.NOT_FOUND

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        a = grid.candidates
        chosen = closest_of_sizes(a, grid.targets, self.sizes)
        answer = chosen[-1]
        for subset in chosen[-2::-1]:
            distance = jnp.abs(jnp.where(subset, a, 0).sum(0, dtype=a.dtype) - grid.targets)
            answer = jnp.where(distance <= grid.tolerance, subset, answer)
        return answer

    def on_host(self, candidates: int, problems: int, key: jax.Array | None) -> HostSearch | None:
        if 2 * self.sizes[-1] > candidates or not at_hand("by_size_cpu", candidates, problems):
            return None
        from lottery_jax.subset_sum.kernels import by_size_cpu  # Numba takes a while to import

        def search(grid: Grid, count: int) -> np.ndarray:
            own = grid.on_host(count)
            return by_size_cpu.first_within(own.candidates, own.targets, own.tolerance, self.sizes)

        return search

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return problems_at_once(candidates, self.sizes, cpu)

    def still_open(self, within: np.ndarray) -> np.ndarray:
        return ~within


@dataclasses.dataclass(frozen=True)
class Feasible(MeetInTheMiddle):
    """The least residual of what is left: a problem beyond the tolerance here has no solution and stops."""

    def still_open(self, within: np.ndarray) -> np.ndarray:
        return within


@dataclasses.dataclass(frozen=True)
class BySize(SearchPass):
    """Further sizes in turn: a meeting in the middle where the two parts' sizes must add up."""

    wide: ClassVar[bool] = True

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        a = grid.candidates.astype(jnp.int64)
        target, tolerance = grid.targets.astype(jnp.int64), grid.tolerance.astype(jnp.int64)
        count, batch = a.shape

        def step(state):
            size, chosen, open_ = state
            subset, within = self.of_size(a, target, tolerance, size)
            found = open_ & within
            return size + 1, jnp.where(found, subset, chosen), open_ & ~found

        def unfinished(state):
            return jnp.any(state[2]) & (state[0] <= count)

        start = (jnp.int64(min(_ENUMERATED[-1][-1], count) + 1), jnp.zeros(a.shape, bool), jnp.ones(batch, bool))
        return jax.lax.while_loop(unfinished, step, start)[1]

    def of_size(
        self, candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, size: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The subset of one size, bool [N, B], and whether it is within the tolerance, bool [B]."""
        subset, residual = closest_of_size(candidates, targets, size)
        return subset, jnp.abs(residual) <= tolerance

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return 2 ** max((16 if cpu else 24) - (candidates + 1) // 2, 0)


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

    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
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
