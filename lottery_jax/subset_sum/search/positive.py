"""The form in which a problem's order and signs no longer show: positive candidates, largest first.

Leaving out a negative candidate is taking its opposite, and keeping a set is dropping the others. So every problem is
one of candidates |a|, descending, and a target of at most half their sum; solvers that work on it give a problem, its
permutations and its mirror image the same residual.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum.engine.grid import Grid


class Positive(NamedTuple):
    """values: |candidates| descending, [N, B]. target: [B], from 0 to half the sum of values.

    order: the candidate each value comes from, int32 [N, B]. turned: bool [B], true where a subset stands for what is
    left out.
    """

    values: jax.Array
    target: jax.Array
    order: jax.Array
    turned: jax.Array


def to_positive(grid: Grid) -> Positive:
    """The positive form of a chunk (candidates [N, B])."""
    target, turned = positive_target(grid)
    values, order = sorted_down(jnp.abs(grid.candidates))
    return Positive(values, target, order, turned)


def positive_target(grid: Grid) -> tuple[jax.Array, jax.Array]:
    """`target` and `turned` of the positive form."""
    a = grid.candidates
    total = jnp.abs(a).sum(0, dtype=a.dtype)
    target = jnp.clip(grid.targets - jnp.minimum(a, 0).sum(0, dtype=a.dtype), 0, total)
    turned = 2 * target > total
    return jnp.where(turned, total - target, target), turned


def from_positive(form: Positive, kept: jax.Array, candidates: jax.Array) -> jax.Array:
    """Chosen candidates, bool [N, B], where `kept` says which values are; zeros are never chosen."""
    return of_signs(unsorted(form.order, kept != form.turned), candidates)


def of_signs(plus: jax.Array, candidates: jax.Array) -> jax.Array:
    """Chosen candidates from those whose |candidate| counts as kept, bool [N, B]; zeros are never chosen."""
    return jnp.where(candidates > 0, plus, ~plus) & (candidates != 0)


def sorted_down(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Values [N, B], none below 0, in descending order, and the row each comes from (of equals the first first)."""
    place = jax.lax.broadcasted_iota(jnp.int32, values.shape, 0)
    down, order = jax.lax.sort((-values, place), dimension=0, num_keys=1)
    return -down, order


def unsorted(order: jax.Array, kept: jax.Array) -> jax.Array:
    """Put booleans [N, B] back to the rows they come from."""
    _, back = jax.lax.sort((order, kept.astype(jnp.int32)), dimension=0, num_keys=1)
    return back == 1
