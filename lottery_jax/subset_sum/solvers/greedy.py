"""Greedy: the largest candidate that still fits, again and again."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.search.positive import sorted_down, unsorted
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class Greedy(SinglePass[Solution]):
    """The largest candidate not above what is left of the target, until none fits; any N, no search.

    Only candidates of the target's sign are used, so what is left only falls and never changes sign: one pass over
    them in descending order does it. Where every interval [x, 1.618 x] of a range holds a candidate, a step leaves at
    most 1 - 1 / 1.618 = 0.382 of what was left, and the next one needs smaller candidates, which are unused still: so
    O(log 1/eps) log-uniform candidates suffice (Orseau et al. 2020, the golden-ratio decomposition). Uniform candidates
    are too rare near 0; they need a search. N log N operations for sorting, 4 N for the pass.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, -0.25, 0.125, 0.0625]), np.array([0.2, -0.3]), tolerance=0.1)
    >>> solve(problem, Greedy()).subsets
    array([[False, False,  True,  True],
           [False,  True, False, False]])
    """

    max_candidates: ClassVar[int] = 2**16
    failure: ClassVar[Status] = Status.NOT_FOUND

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        a, target = grid.candidates, grid.targets
        values, order = sorted_down(jnp.maximum(jnp.where(target < 0, -a, a), 0))

        def take(left: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
            fits = (value > 0) & (value <= left)
            return jnp.where(fits, left - value, left), fits

        return unsorted(order, jax.lax.scan(take, jnp.abs(target), values)[1])

    def chunk(self, candidates: int, cpu: bool) -> int:
        return max(1, min(512, 2 ** (18 if cpu else 26) // candidates))
