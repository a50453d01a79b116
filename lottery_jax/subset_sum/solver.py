"""The interface of solvers: frozen, hashable data with a search over one chunk of problems on the integer grid."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

import jax
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.engine.grid import INT64_BITS, Grid
from lottery_jax.subset_sum.problem import Problem, Solution, Status

Answer = TypeVar("Answer")

CpuKernel = Callable[[Grid, int], np.ndarray]
"""Maps a grid of B problems and P <= B to the chosen candidates of the first P, bool [N, P].

The grid is padded to B problems so that JAX compiles few shapes.
"""

SharedCpuKernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps candidates int32 [G, N] and targets int32 [G, R], a grid for each row, to chosen candidates, bool [G, N, R]."""


class SearchPass(abc.ABC):
    """One pass over the problems that earlier passes did not solve; passes are frozen, hashable dataclasses."""

    failure: ClassVar[Status] = Status.INFEASIBLE
    """Status of a problem for which this pass finds no subset within the tolerance."""
    fixed_size: ClassVar[bool] = False
    """True if the subset's size is prescribed, so that the empty subset cannot replace a worse one."""
    needs_int64: ClassVar[bool] = False
    """True if the pass needs the 64-bit grid."""
    finest_grid: ClassVar[bool] = False
    """True if the 64-bit grid may have sums up to 2**60, more than a float64 holds."""

    integer_bits: ClassVar[int] = INT64_BITS
    """Sums of |integers| below 2**integer_bits cannot overflow."""

    @abc.abstractmethod
    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        """Chosen candidates, bool [N, B]."""

    @abc.abstractmethod
    def chunk_size(self, candidates: int, cpu: bool) -> int:
        """Number of problems B that are searched at once."""

    def cpu_kernel(self, candidates: int, problems: int, key: jax.Array | None) -> CpuKernel | None:
        """A compiled equivalent of ``search`` for the CPU, or None if none is available or worth compiling.

        It serves the 64-bit grid if the pass ``needs_int64``, else the 32-bit grid.
        """
        return None

    def shared_cpu_kernel(self, candidates: int, problems: int, targets_per_row: int) -> SharedCpuKernel | None:
        """As ``cpu_kernel``, for rows of candidates that serve several targets."""
        return None

    def unsolved(self, within: Any) -> Any:
        """Which problems need the next pass, bool [P], from which are within the tolerance after this one."""
        return np.zeros(len(within), bool)


class Solver(abc.ABC, Generic[Answer]):
    """A method to solve subset-sum problems; concrete solvers are frozen, hashable dataclasses.

    ``Answer`` is the type that ``solve`` returns: ``Solution``, or the result of ``finalise``.
    """

    max_candidates: ClassVar[int]
    needs_key: ClassVar[bool] = False
    accepts: ClassVar[tuple[Literal["numbers", "vectors"], ...]] = ("numbers",)
    """The kinds of candidates that the solver takes."""
    subset_axes: tuple[int, ...] = ()
    """The axes after P if the solver returns several subsets for each problem."""

    @abc.abstractmethod
    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        """The search passes, cheapest first."""

    def resolve(self, problem: Problem) -> "Solver[Answer]":
        """The solver that solves ``problem``: this one, except for ``Auto``."""
        return self

    def transform(self, problem: Problem) -> Problem:
        """The problem that the passes search."""
        return problem

    def finalise(self, found: Solution) -> Answer:
        """The answer of ``solve``, from the subsets of the transformed problem, bits [P, *subset_axes, W]."""
        return cast(Answer, found)

    def check(self, candidates: int) -> None:
        """Raise ``InputError`` if the solver does not take this many candidates."""
        if candidates > self.max_candidates:
            larger = "VectorWindows" if "vectors" in self.accepts else "Randomized"
            raise InputError(
                f"N = {candidates} candidates is too many for {type(self).__name__}, which takes up to"
                f" {self.max_candidates}; use {larger} for any N"
            )


class SinglePass(Solver[Answer], SearchPass):
    """A solver with one pass, itself."""

    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        return (self,)
