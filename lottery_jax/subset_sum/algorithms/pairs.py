"""Trying all pairs of two lists of sums: the nearest one, for sums of one or of several components.

Three vector operations for each pair and component (subtract, absolute value, maximum or minimum), with nothing stored
per pair: only the least distance of each entry of one list is kept, and its partner is looked for afterwards.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_ROWS = 16  # rows of the shorter list in one pass over the longer: with fewer, the time goes into memory


def nearest_pair(long: jax.Array, short: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows i and j, [B] each, of the least distance of long[i] from short[j]; the first i, and for it the first j.

    long: int [L, B] or [L, D, B]; short: [S, B] or [S, D, B]. Distance is the largest |component|.
    """
    distance = least_distances(long, short)
    least = distance.min(0)
    at = first_row(distance == least)
    value = jnp.take_along_axis(long, jnp.broadcast_to(at, (1, *long.shape[1:])), 0)
    return at, first_row(distances(value, short) == least)


def least_distances(long: jax.Array, short: jax.Array) -> jax.Array:
    """The least distance of each long[i] from any short[j], [L, B]."""
    passes = -(-len(short) // max(_ROWS, 1024 // len(long)))
    rows = -(-len(short) // passes)

    def one_pass(least: jax.Array, some: jax.Array) -> tuple[jax.Array, None]:
        return jnp.minimum(least, distances(long, some[:, None]).min(0)), None

    # A row tried twice changes nothing.
    again = jnp.broadcast_to(short[:1], (passes * rows - len(short), *short.shape[1:]))
    padded = jnp.concatenate([short, again])
    farthest = jnp.full((len(long), long.shape[-1]), jnp.iinfo(long.dtype).max)
    return jax.lax.scan(one_pass, farthest, padded.reshape(passes, rows, *short.shape[1:]))[0]


def distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """The largest |component| of x - y: for x [L, B] of one component or [L, D, B] of several."""
    if x.ndim == 2:
        return jnp.abs(x - y)
    # One component after the other: a reduction would be kept apart from the one that follows.
    return functools.reduce(jnp.maximum, [jnp.abs(x[:, d] - y[..., d, :]) for d in range(x.shape[1])])


def first_row(true: jax.Array) -> jax.Array:
    """The first row that is true, int32 [B]."""
    place = jnp.arange(len(true), dtype=jnp.int32)[:, None]
    return jnp.where(true, place, len(true) - 1).min(0)


def nearest_of_all(candidates: jax.Array, targets: jax.Array) -> jax.Array:
    """Chosen candidates, bool [N, B], of the nearest of all 2**N sums: candidates [N, B] or [N, D, B].

    Zeros are never chosen: of equal sums the first wins, and it is the one without them.
    """
    count = candidates.shape[0]
    half = count // 2
    at, partner = nearest_pair(_all_sums(candidates[half:]), targets - _all_sums(candidates[:half]))
    words = (partner, half), (at, count - half)
    return jnp.concatenate([bit_rows(word, rows) for word, rows in words])


def bit_rows(words: jax.Array, count: int) -> jax.Array:
    """The lowest `count` bits of integers [B] as booleans [count, B]."""
    return (words[None] >> jnp.arange(count, dtype=words.dtype)[:, None]) & 1 == 1


def _all_sums(a: jax.Array) -> jax.Array:
    """Sums of all subsets of the rows, [2**rows, ...]; row k is in those whose position has bit k set."""
    sums = jnp.zeros((1, *a.shape[1:]), a.dtype)
    for row in a:
        sums = jnp.concatenate([sums, sums + row])
    return sums


def masks_of_size(count: int, size: int) -> np.ndarray:
    """All subsets of `size` of up to 32, uint32 [C(count, size)], ascending: bit k is set where k is a member."""
    masks = np.zeros(1, np.uint32)
    for taken in range(1, size + 1):
        # Those whose last member is `row` come after all that have only members before it.
        shorter = [masks[: math.comb(row, taken - 1)] | np.uint32(1 << row) for row in range(count)]
        masks = np.concatenate(shorter)
    return masks
