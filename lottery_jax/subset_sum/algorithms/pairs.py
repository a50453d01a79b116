"""The nearest pair of two lists of sums, of numbers or vectors, by trying all pairs.

Each pair and component costs three vector operations (subtract, absolute value, maximum or minimum) and no memory: only
the least distance of each entry of one list is stored, and its partner is searched afterwards.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_ROWS = 16  # rows of the shorter list in one pass over the longer; fewer are limited by memory traffic


def nearest_pair(long: jax.Array, short: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows i and j, [B] each, of the least distance of long[i] and short[j]: the first i, and for it the first j.

    Integers [L, B] and [S, B], or vectors [L, D, B] and [S, D, B]; the distance is the largest |component|.
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

    def one_pass(least: jax.Array, rows: jax.Array) -> tuple[jax.Array, None]:
        return jnp.minimum(least, distances(long, rows[:, None]).min(0)), None

    # Repeating a row does not change the minimum.
    padding = jnp.broadcast_to(short[:1], (passes * rows - len(short), *short.shape[1:]))
    padded = jnp.concatenate([short, padding])
    farthest = jnp.full_like(long if long.ndim == 2 else long[:, 0], jnp.iinfo(long.dtype).max)
    return jax.lax.scan(one_pass, farthest, padded.reshape(passes, rows, *short.shape[1:]))[0]


def distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """The largest |component| of x - y, for numbers x [L, B] or vectors [L, D, B]."""
    if x.ndim == 2:
        return jnp.abs(x - y)
    # One component after the other, because XLA does not fuse a reduction with the next one.
    return functools.reduce(jnp.maximum, [jnp.abs(x[:, d] - y[..., d, :]) for d in range(x.shape[1])])


def first_row(true: jax.Array) -> jax.Array:
    """The first row that is true, int32 [B]."""
    row = jnp.arange(len(true), dtype=jnp.int32)[:, None]
    return jnp.where(true, row, len(true) - 1).min(0)


def nearest_of_all(candidates: jax.Array, targets: jax.Array) -> jax.Array:
    """Chosen candidates, bool [N, B], of the nearest of all 2**N sums: candidates [N, B] or [N, D, B].

    Zeros are never chosen, because the first of equal sums is the one without them.
    """
    count = candidates.shape[0]
    half = count // 2
    at, partner = nearest_pair(subset_sums(candidates[half:]), targets - subset_sums(candidates[:half]))
    words = (partner, half), (at, count - half)
    return jnp.concatenate([bit_rows(word, rows) for word, rows in words])


def bit_rows(words: jax.Array, count: int) -> jax.Array:
    """The lowest `count` bits of integers [B] as booleans [count, B]."""
    return (words[None] >> jnp.arange(count, dtype=words.dtype)[:, None]) & 1 == 1


def subset_sums(a: jax.Array) -> jax.Array:
    """Sums of all subsets of the rows, [2**rows, ...]; subset i contains row k if bit k of i is set."""
    sums = jnp.zeros_like(a, shape=(1, *a.shape[1:]))
    for row in a:
        sums = jnp.concatenate([sums, sums + row])
    return sums


def masks_of_size(count: int, size: int) -> np.ndarray:
    """All subsets of ``size`` of ``count`` <= 32 as bits, uint32 [C(count, size)], ascending."""
    masks = np.zeros(1, np.uint32)
    for taken in range(1, size + 1):
        # Subsets whose last member is `row` come after all subsets of the rows before it.
        shorter = [masks[: math.comb(row, taken - 1)] | np.uint32(1 << row) for row in range(count)]
        masks = np.concatenate(shorter)
    return masks
