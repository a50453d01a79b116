"""The form in which a problem's order and signs no longer show: positive candidates, largest first.

Leaving out a negative candidate is taking its opposite, and keeping a set is dropping the others. So every problem is
one of candidates |a|, descending, and a target of at most half their sum; solvers that work on it give a problem, its
permutations and its mirror image the same residual.

Differencing, the step of Karmarkar and Karp 1982: the two largest numbers are put on opposite sides of a partition.

That leaves their difference in place of both. A subset sum t of non-negative numbers X is a partition of X and one more
number, the bias sum X - 2 t, whose side says which of the two sets the subset is (Kumar and Natale 2025, Lemma 2).
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
