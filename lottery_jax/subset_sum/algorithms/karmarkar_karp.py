"""Differencing (Karmarkar and Karp 1982) of a subset-sum problem as a partition.

Signs do not matter: dropping a negative candidate is keeping its opposite, and keeping a set is dropping the others. So
every problem is one of candidates |a| and a target t of at most half their sum. A subset of X with sum t is a partition
of X and one more number, the bias sum X - 2 t, whose side tells which of the two sets is the subset (Kumar and Natale
2025, Lemma 2). Differencing puts the two largest numbers on opposite sides, which replaces them by their difference,
until few numbers remain.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum.engine.grid import Grid


def to_partition(grid: Grid) -> tuple[jax.Array, jax.Array]:
    """The bias and all |candidates|, [N + 1, B], and whether the subset stands for the dropped candidates, bool [B]."""
    a = grid.candidates
    sizes = jnp.abs(a)
    total = sizes.sum(0, dtype=a.dtype)
    target = jnp.clip(grid.targets - jnp.minimum(a, 0).sum(0, dtype=a.dtype), 0, total)
    complement = 2 * target > total
    target = jnp.where(complement, total - target, target)
    return jnp.concatenate([(total - 2 * target)[None], sizes]), complement


def from_partition(side: jax.Array, complement: jax.Array, candidates: jax.Array) -> jax.Array:
    """Chosen candidates, bool [N, B], from the sides of the bias and of all |candidates|; zeros are never chosen."""
    # With the bias on one side, the numbers on that side and the others differ by the bias.
    kept = (side[1:] == side[0]) != complement
    return jnp.where(candidates > 0, kept, ~kept) & (candidates != 0)


def sorted_down(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Non-negative values [N, B] in descending order and the row of each; equal values keep their order."""
    rows = jax.lax.broadcasted_iota(jnp.int32, values.shape, 0)
    negated, order = jax.lax.sort((-values, rows), dimension=0, num_keys=1)
    return -negated, order


def unsorted(order: jax.Array, kept: jax.Array) -> jax.Array:
    """Booleans [N, B] in the order of rows before ``sorted_down``."""
    _, restored = jax.lax.sort((order, kept.astype(jnp.int32)), dimension=0, num_keys=1)
    return restored == 1


class Differences(NamedTuple):
    """The L numbers that remain of ``count`` numbers, rows of [M, B]."""

    values: jax.Array  # descending, [L, B]
    names: jax.Array  # the row whose side each value has, int32 [L, B]
    larger: jax.Array  # the row of the larger number of each step, int32 [count - L, B]
    smaller: jax.Array  # the row of the smaller number, which is on the opposite side, int32 [count - L, B]


def differenced(numbers: jax.Array, left: int, count: int | None = None) -> Differences:
    """Difference non-negative numbers [M, B] until ``left`` remain; of equal numbers the older come first.

    ``count`` rows are numbers, by default all; the others are -1.
    """
    count = len(numbers) if count is None else count
    values, names = (rows[:count] for rows in sorted_down(numbers))

    def step(state, _):
        values, names = state
        new = values[0] - values[1]
        # The others move up by two rows, and by one row after the position of the difference.
        end = jnp.full_like(values[:2], -1)
        by_one, by_two = (jnp.concatenate([values, end])[shift : shift + count] for shift in (1, 2))
        names_by_one, names_by_two = (jnp.concatenate([names, names[:2]])[shift : shift + count] for shift in (1, 2))
        before = by_two >= new
        inserted = jnp.concatenate([jnp.ones_like(before[:1]), before[:-1]])
        moved = jnp.where(before, by_two, jnp.where(inserted, new, by_one))
        # The difference has the name of the larger number, whose side it is on.
        renamed = jnp.where(before, names_by_two, jnp.where(inserted, names[0], names_by_one))
        return (moved, renamed), (names[0], names[1])

    (values, names), (larger, smaller) = jax.lax.scan(step, (values, names), length=max(count - left, 0))
    return Differences(values[:left], names[:left], larger, smaller)


def sides_of(found: Differences, remaining: jax.Array, rows: int) -> jax.Array:
    """The side of each of M rows, bool [M, B], from the sides of the remaining numbers, bool [L, B]."""
    column = jnp.arange(remaining.shape[1], dtype=jnp.int32)
    start = jnp.zeros((rows, len(column)), bool).at[found.names, column].set(remaining)

    def oppose(side, pair):
        larger, smaller = pair
        return side.at[smaller, column].set(~side[larger, column]), None

    return jax.lax.scan(oppose, start, (found.larger, found.smaller), reverse=True)[0]
