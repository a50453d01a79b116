"""What a solver is: a frozen description and a search over one chunk on the grid."""

import abc
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar, cast

import jax
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Problem, Solution, Status

Answer = TypeVar("Answer")

HostSearch = Callable[[Grid, int], np.ndarray]
"""Problems on the grid, and how many of them are to be solved, P, to those' chosen candidates, bool [N, P].

The others are there to keep shapes few, for what is compiled by JAX.
"""

SharedSearch = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Candidates int32 [G, N] and targets int32 [G, R] on the grid, each row with its own, to the chosen [G, N, R]."""


class SearchPass(abc.ABC):
    """One pass over the problems that earlier passes left open. Concrete stages are frozen, hashable dataclasses."""

    failure: ClassVar[Status] = Status.INFEASIBLE
    """What it means for a problem when this pass finds no subset within the tolerance."""
    sized: ClassVar[bool] = False
    """True where the size of the subset was asked for, so that the empty one is no answer."""
    wide: ClassVar[bool] = False
    """True where the pass needs the 64-bit grid."""
    fine: ClassVar[bool] = False
    """True where that grid may be the finest, of sums below 2**60: more than a float64 holds."""

    @abc.abstractmethod
    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        """Chosen candidates, bool [N, B]."""

    @abc.abstractmethod
    def chunk_size(self, candidates: int, cpu: bool) -> int:
        """Number of problems to search at once."""

    def on_host(self, candidates: int, problems: int, key: jax.Array | None) -> HostSearch | None:
        """`search` with the same answers as code compiled for the CPU, where there is one and it is worth its start.

        It is used on the 64-bit grid where the pass is `wide`, else on the other.
        """
        return None

    def on_host_shared(self, candidates: int, problems: int, each: int) -> SharedSearch | None:
        """As `on_host`, where a row of candidates serves `each` targets."""
        return None

    def still_open(self, within: np.ndarray) -> np.ndarray:
        """Which problems go on to the next pass, given which are within the tolerance now."""
        return np.zeros(len(within), bool)


class Solver(abc.ABC, Generic[Answer]):
    """A way to solve subset-sum problems. Concrete solvers are frozen, hashable dataclasses with documented fields.

    `Answer` is what `solve` returns: a `Solution`, or what the solver's `answer` makes of one.
    """

    max_candidates: ClassVar[int]
    needs_key: ClassVar[bool] = False
    vectors: ClassVar[tuple[bool, ...]] = (False,)
    """Whether it takes candidates that are plain numbers (False), vectors (True), or both."""

    @property
    def columns(self) -> tuple[int, ...]:
        """The axes behind P where each problem gets several subsets."""
        return ()

    @abc.abstractmethod
    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        """The passes, cheapest first."""

    def resolved(self, problem: Problem) -> "Solver[Answer]":
        """The solver that does the work."""
        return self

    def prepared(self, problem: Problem) -> Problem:
        """The problem that the passes search."""
        return problem

    def answer(self, found: Solution) -> Answer:
        """What `solve` returns, made of the subsets of the problem that was prepared: bits [P, *columns, W]."""
        return cast(Answer, found)

    def check(self, candidates: int) -> None:
        """Raise `InputError` where this many candidates are beyond the solver."""
        if candidates > self.max_candidates:
            raise InputError(
                f"N = {candidates} candidates is too many for {type(self).__name__}, which takes up to"
                f" {self.max_candidates}; use {'VectorWindows' if True in self.vectors else 'Randomized'} for any N"
            )


class SinglePass(Solver[Answer], SearchPass):
    """A solver that is its own only pass."""

    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        return (self,)
