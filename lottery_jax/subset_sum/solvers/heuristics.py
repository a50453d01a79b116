"""One candidate.

Greedy: the largest candidate that still fits, again and again.
The differencing method of Karmarkar and Karp.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum.algorithms.karmarkar_karp import (
    differenced,
    from_positive,
    sides_of,
    sorted_down,
    to_positive,
    unsorted,
)
from lottery_jax.subset_sum.algorithms.pairs import first_row
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution, Status
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

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return max(1, min(512, 2 ** (18 if cpu else 26) // candidates))


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

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return max(1, min(512, 2 ** (18 if cpu else 26) // candidates))


@dataclasses.dataclass(frozen=True)
class Differencing(SinglePass[Solution]):
    """The two largest numbers are put on opposite sides, which leaves their difference; until one number is left.

    A subset sum t of the numbers X is a partition of X with bias Lambda - 2 t, Lambda = sum X: one more number, whose
    side says which of the two sets is the subset. The residual falls as N**(-0.72 ln N), so this is for hundreds or
    thousands of candidates, where nothing exact is in reach; about 8 N**2 vector operations, no key, no budget.
    Karmarkar and Karp 1982; the bias: Kumar and Natale 2025, Lemma 2.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> candidates = np.random.default_rng(0).uniform(-1, 1, (4, 300))
    >>> solve(Problem(candidates, np.full(4, 0.3), tolerance=1e-4), Differencing()).within.all()
    np.True_
    """

    max_candidates: ClassVar[int] = 2**14
    failure: ClassVar[Status] = Status.NOT_FOUND
    fine: ClassVar[bool] = True

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        form = to_positive(grid)
        bias = form.values.sum(0, dtype=form.values.dtype) - 2 * form.target
        found = differenced(jnp.concatenate([bias[None], form.values]), 1)
        side = sides_of(found, jnp.ones_like(found.names, bool), len(form.values) + 1)
        # With the bias on one side, the values on that side and the others differ by the bias: those are the subset.
        return from_positive(form, side[1:] == side[0], grid.candidates)

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return max(1, min(256, 2 ** (17 if cpu else 24) // candidates))
