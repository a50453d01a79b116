"""Differencing, the step of Karmarkar and Karp 1982: the two largest numbers are put on opposite sides of a partition.

That leaves their difference in place of both. A subset sum t of non-negative numbers X is a partition of X and one more
number, the bias sum X - 2 t, whose side says which of the two sets the subset is (Kumar and Natale 2025, Lemma 2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lottery_jax.subset_sum.search.positive import sorted_down


class Differences(NamedTuple):
    """What is left when `count` numbers, rows of [M, B], have been differenced down to L.

    values: [L, B], descending. names: the row that each goes by, int32 [L, B]. larger, smaller: the rows that were put
    on opposite sides at each step, int32 [count - L, B].
    """

    values: jax.Array
    names: jax.Array
    larger: jax.Array
    smaller: jax.Array


def differenced(numbers: jax.Array, left: int, count: int | None = None) -> Differences:
    """Difference non-negative numbers [M, B] until `left` of them are left; of equal ones the oldest come first.

    count: so many of the rows are numbers, where the others are -1.
    """
    count = len(numbers) if count is None else count
    values, names = (rows[:count] for rows in sorted_down(numbers))

    def step(state, _):
        values, names = state
        new = values[0] - values[1]
        # The rest moves up by two rows, and by one behind the place where the difference belongs.
        end = jnp.full_like(values[:2], -1)
        by_one, by_two = (jnp.concatenate([values, end])[shift : shift + count] for shift in (1, 2))
        names_by_one, names_by_two = (jnp.concatenate([names, names[:2]])[shift : shift + count] for shift in (1, 2))
        before = by_two >= new
        here = jnp.concatenate([jnp.ones_like(before[:1]), before[:-1]])
        moved = jnp.where(before, by_two, jnp.where(here, new, by_one))
        # The difference goes by the name of the larger number, whose side it is on.
        renamed = jnp.where(before, names_by_two, jnp.where(here, names[0], names_by_one))
        return (moved, renamed), (names[0], names[1])

    (values, names), (larger, smaller) = jax.lax.scan(step, (values, names), length=max(count - left, 0))
    return Differences(values[:left], names[:left], larger, smaller)


def sides_of(found: Differences, of_left: jax.Array, rows: int) -> jax.Array:
    """The side of each of M rows, bool [M, B], from the sides of what was left, bool [L, B]."""
    column = jnp.arange(of_left.shape[1], dtype=jnp.int32)
    start = jnp.zeros((rows, len(column)), bool).at[found.names, column].set(of_left)

    def oppose(side, pair):
        larger, smaller = pair
        return side.at[smaller, column].set(~side[larger, column]), None

    return jax.lax.scan(oppose, start, (found.larger, found.smaller), reverse=True)[0]
