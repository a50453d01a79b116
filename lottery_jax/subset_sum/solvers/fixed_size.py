"""The subset of least residual of exactly k candidates, for one k or for all k up to a bound."""

import dataclasses
from typing import ClassVar

import jax
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.algorithms.by_size import closest_of_sizes, problems_at_once
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import ParetoFront, Solution
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class FixedSize(SinglePass[Solution]):
    """The subset of least residual among those of exactly k candidates, exact; ``Pareto`` solves for many k at once.

    C(N, k) subsets are tried, three vector operations each; more than 2**26 are sorted (``algorithms.by_size``).
    Natale et al. 2024, section 1: with n >= c log2(k / eps) / H2(k / n) candidates a target in [-sqrt k, sqrt k] is
    within eps of a sum.

    Args:
        k: Number of kept candidates.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.25, 0.125]), np.array([0.6]), tolerance=0.1)
    >>> solve(problem, FixedSize(2)).subsets
    array([[ True, False,  True]])
    """

    k: int
    max_candidates: ClassVar[int] = 40
    fixed_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k < 0:
            raise InputError(f"k must be 0 or more, got {self.k}; it is the number of kept candidates")

    def check(self, candidates: int) -> None:
        super().check(candidates)
        if self.k > candidates:
            raise InputError(
                f"a subset of k = {self.k} needs as many candidates; N is {candidates}, so use a smaller k"
            )

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return closest_of_sizes(grid.candidates, grid.targets, (self.k,))[0]

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return problems_at_once(candidates, (self.k,), cpu)


@dataclasses.dataclass(frozen=True)
class Pareto(SinglePass[ParetoFront]):
    """The subset of least residual of each size 0, 1, ..., k_max, exact: ``solve`` returns a ``ParetoFront``.

    Three vector operations for each subset of up to k_max candidates: 82,000 subsets for N = 21 and k_max = 6. Sizes
    with more than 2**26 subsets are sorted (``algorithms.by_size``).

    Args:
        k_max: The largest number of kept candidates.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.25, 0.125]), np.array([0.6]), tolerance=0.01)
    >>> solve(problem, Pareto(2)).residuals
    array([[-0.6  , -0.1  ,  0.025]])
    """

    k_max: int = 6
    max_candidates: ClassVar[int] = 40
    fixed_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k_max < 0:
            raise InputError(f"k_max must be 0 or more, got {self.k_max}; it is the largest number of kept candidates")

    @property
    def subset_axes(self) -> tuple[int, ...]:
        return (self.k_max + 1,)

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return closest_of_sizes(grid.candidates, grid.targets, tuple(range(self.k_max + 1)))

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return problems_at_once(candidates, tuple(range(self.k_max + 1)), cpu)

    def finalise(self, found: Solution) -> ParetoFront:
        exists = np.arange(self.k_max + 1) <= found.candidates
        residuals = np.where(exists, found.residuals, found.residuals.dtype.type(np.inf))
        return ParetoFront(found.bits, residuals, found.within & exists, found.candidates)
