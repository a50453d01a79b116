"""The differencing method of Karmarkar and Karp."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.search.differencing import differenced, sides_of
from lottery_jax.subset_sum.search.positive import from_positive, to_positive
from lottery_jax.subset_sum.solver import SinglePass


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

    def chunk(self, candidates: int, cpu: bool) -> int:
        return max(1, min(256, 2 ** (17 if cpu else 24) // candidates))
