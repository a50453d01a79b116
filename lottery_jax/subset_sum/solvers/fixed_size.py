"""Exactly k candidates."""

import dataclasses
from typing import ClassVar

import jax

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution
from lottery_jax.subset_sum.search.by_size import closest_of_sizes, problems_at_once
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class FixedSize(SinglePass[Solution]):
    """The subset of least residual among those of exactly k candidates, exact; `Pareto` gives many k at once.

    A problem marked infeasible has no subset of k candidates within the tolerance. C(N, k) subsets are tried, three
    vector operations each; where these are more than 2**26, halves are sorted (`sorted_by_size`). Natale et al. 2024,
    section 1: with n >= c log2(k / eps) / H2(k / n) candidates a target in [-sqrt k, sqrt k] is within eps of a sum.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.25, 0.125]), np.array([0.6]), tolerance=0.1)
    >>> solve(problem, FixedSize(2)).subsets
    array([[ True, False,  True]])
    """

    k: int
    max_candidates: ClassVar[int] = 40
    sized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k < 0:
            raise InputError(f"k must be 0 or more, not {self.k}; it is the number of kept candidates")

    def check(self, candidates: int) -> None:
        super().check(candidates)
        if self.k > candidates:
            raise InputError(
                f"a subset of k = {self.k} needs as many candidates; N is {candidates}, so use a smaller k"
            )

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return closest_of_sizes(grid.candidates, grid.targets, (self.k,))[0]

    def chunk(self, candidates: int, cpu: bool) -> int:
        return problems_at_once(candidates, (self.k,), cpu)
