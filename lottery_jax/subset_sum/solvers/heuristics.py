"""Fast solvers without a guarantee: the nearest candidate, greedy, and differencing."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum.algorithms.karmarkar_karp import (
    differenced,
    from_partition,
    sides_of,
    sorted_down,
    to_partition,
    unsorted,
)
from lottery_jax.subset_sum.algorithms.pairs import first_row
from lottery_jax.subset_sum.engine.grid import FINEST_BITS, Grid
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class NearestCandidate(SinglePass[Solution]):
    """The candidate nearest to the target, the first of equally near ones; none if 0 is as near.

    The residual falls as 1 / N, that of subsets as 2**-N. Two operations for each candidate. Malach et al. 2020
    approximate each weight by one product.

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
    """Repeatedly subtract the largest candidate of the target's sign that fits, in one pass over sorted candidates.

    If every interval [x, 1.618 x] of a range holds a candidate, a step leaves at most 1 - 1 / 1.618 = 0.382 of the
    target, so O(log 1/eps) log-uniform candidates suffice (Orseau et al. 2020, the golden-ratio decomposition). Uniform
    candidates are too rare near 0; they need a search. N log N operations for sorting, 4 N for the pass.

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

        def take(rest: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
            fits = (value > 0) & (value <= rest)
            return jnp.where(fits, rest - value, rest), fits

        return unsorted(order, jax.lax.scan(take, jnp.abs(target), values)[1])

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return max(1, min(512, 2 ** (18 if cpu else 26) // candidates))


@dataclasses.dataclass(frozen=True)
class Differencing(SinglePass[Solution]):
    """Karmarkar and Karp 1982: replace the two largest numbers by their difference until one number remains.

    The subset is one side of a partition of the candidates and the bias (Kumar and Natale 2025, Lemma 2). The residual
    falls as N**(-0.72 ln N), which suits hundreds or thousands of candidates. About 8 N**2 vector operations, no key.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> candidates = np.random.default_rng(0).uniform(-1, 1, (4, 300))
    >>> solve(Problem(candidates, np.full(4, 0.3), tolerance=1e-4), Differencing()).within.all()
    np.True_
    """

    max_candidates: ClassVar[int] = 2**14
    failure: ClassVar[Status] = Status.NOT_FOUND
    finest_grid: ClassVar[bool] = True
    integer_bits: ClassVar[int] = FINEST_BITS

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        numbers, complement = to_partition(grid)
        found = differenced(numbers, 1)
        side = sides_of(found, jnp.ones_like(found.names, bool), len(numbers))
        return from_partition(side, complement, grid.candidates)

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return max(1, min(256, 2 ** (17 if cpu else 24) // candidates))
