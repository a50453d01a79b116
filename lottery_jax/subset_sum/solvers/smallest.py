"""Subsets within the tolerance of the fewest candidates: the best one, or the lexicographically first."""

import dataclasses
from typing import Any, ClassVar

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
from lottery_jax.subset_sum.kernels import kernel_is_ready
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.solver import CpuKernel, SearchPass, Solver
from lottery_jax.subset_sum.solvers.exact import MeetInTheMiddle

_ENUMERATED = (0, 1, 2), (3,), (4,), (5,)


@dataclasses.dataclass(frozen=True)
class Smallest(Solver[Solution]):
    """The subset of fewest candidates within the tolerance, exact; among those the one of least residual.

    Sizes up to 5 are enumerated, each for the unsolved problems. ``MeetInTheMiddle`` then finds the problems without a
    solution; the others are sorted size by size. On CPU with Numba, ``kernels.by_size_cpu`` enumerates 12 to 24
    candidates; the answers are the same.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.3, 0.2, 0.1]), np.array([0.0, 0.6]), tolerance=0.01)
    >>> solve(problem, Smallest()).sizes
    array([0, 2])
    """

    max_candidates: ClassVar[int] = 40

    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        return _passes(candidates, Enumerate, SortBySize())


def _passes(candidates: int, enumerate_: "type[Enumerate]", larger_sizes: "SortBySize") -> tuple[SearchPass, ...]:
    """Small sizes by enumeration; then, for feasible problems, larger sizes by sorting."""
    enumerated = [sizes for sizes in _ENUMERATED if sizes[-1] <= candidates] or [(0, 1)]
    return (*(enumerate_(sizes) for sizes in enumerated), Feasible(), larger_sizes)


@dataclasses.dataclass(frozen=True)
class Enumerate(SearchPass):
    """The best subset of the first of ``sizes`` that has one within the tolerance, by enumeration."""

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

    def cpu_kernel(self, candidates: int, problems: int, key: jax.Array | None) -> CpuKernel | None:
        if 2 * self.sizes[-1] > candidates or not kernel_is_ready("by_size_cpu", candidates, problems):
            return None
        from lottery_jax.subset_sum.kernels import by_size_cpu  # importing Numba takes a while

        def search(grid: Grid, count: int) -> np.ndarray:
            arrays = grid.on_host(count)
            return by_size_cpu.first_within(arrays.candidates, arrays.targets, arrays.tolerance, self.sizes)

        return search

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return problems_at_once(candidates, self.sizes, cpu)

    def unsolved(self, within: Any) -> Any:
        return ~within


@dataclasses.dataclass(frozen=True)
class Feasible(MeetInTheMiddle):
    """The least residual of unsolved problems: one beyond the tolerance has no solution and needs no further pass."""

    def unsolved(self, within: Any) -> Any:
        return within


@dataclasses.dataclass(frozen=True)
class SortBySize(SearchPass):
    """Larger sizes one after the other, each by sorting the sums of both halves."""

    needs_int64: ClassVar[bool] = True

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        a = grid.candidates.astype(jnp.int64)
        target, tolerance = grid.targets.astype(jnp.int64), grid.tolerance.astype(jnp.int64)
        count = len(a)

        def step(state):
            size, chosen, unsolved = state
            subset, within = self.of_size(a, target, tolerance, size)
            found = unsolved & within
            return size + 1, jnp.where(found, subset, chosen), unsolved & ~found

        def unfinished(state):
            return jnp.any(state[2]) & (state[0] <= count)

        start = (jnp.int64(min(_ENUMERATED[-1][-1], count) + 1), jnp.zeros_like(a, bool), jnp.ones_like(target, bool))
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
    """The first subset within the tolerance by size, then lexicographically, exact on the grid.

    The order is {} < {0} < {1} < ... < {0, 1} < {0, 2} < ... < {1, 2}, so that the rank of the subset has a short code.
    The passes are those of ``Smallest``.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.3, 0.2, 0.1]), np.array([0.0, 0.6]), tolerance=0.11)
    >>> solve(problem, FirstFeasible()).subsets.astype(int)
    array([[0, 0, 0, 0],
           [1, 0, 0, 0]])
    """

    max_candidates: ClassVar[int] = 40

    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        return _passes(candidates, EnumerateFirst, SortFirstBySize())


@dataclasses.dataclass(frozen=True)
class EnumerateFirst(Enumerate):
    """The first subset of ``sizes`` within the tolerance, by enumeration."""

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return first_of_sizes(grid.candidates, grid.targets, grid.tolerance, self.sizes)[0]

    def cpu_kernel(self, candidates: int, problems: int, key: jax.Array | None) -> None:
        return None


@dataclasses.dataclass(frozen=True)
class SortFirstBySize(SortBySize):
    """``SortBySize`` for the first subset of a size."""

    def of_size(
        self, candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, size: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return first_of_size(candidates, targets, tolerance, size)
