"""Meeting in the middle by size: the least residual among the subsets of exactly k candidates, for any k.

All sums of a half are sorted by (size of the subset, sum) as one integer, and those of the other half by what they lack
in size and sum: the nearest pair is adjacent. O(N 2**(N/2)) for each k, where `by_size` takes C(N, k).
"""

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.engine.grid import INT64_BITS

_BAND = 2 ** (INT64_BITS + 4)  # sizes are kept apart by more than any two sums differ


def closest_of_size(candidates: jax.Array, targets: jax.Array, size: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Chosen candidates, bool [N, B], and |residual|, [B], of the nearest sum of `size` candidates: int64 [N, B], [B].

    At most 40 candidates, on the 64-bit grid. `size` is from 0 to N and may be traced.
    """
    count = candidates.shape[0]
    half = count // 2
    left, right = subset_sums(candidates[:half]), subset_sums(candidates[half:])
    band = jnp.int64(_BAND)
    left_keys = 2 * left + band * sizes_of_subsets(half)
    # A left part of size i meets right parts of size - i.
    right_keys = 2 * (targets - right) + 1 + band * (jnp.int64(size) - sizes_of_subsets(count - half))
    merged = jax.lax.sort(jnp.concatenate([left_keys, right_keys]), dimension=0)
    gap = merged[1:] - merged[:-1]
    gap = jnp.where((gap & 1) == 1, gap, jnp.iinfo(jnp.int64).max)
    least = gap.min(0)
    lower = jnp.where(gap == least, merged[:-1], jnp.iinfo(jnp.int64).min).max(0)
    upper = lower + least
    is_right = (lower & 1) == 1
    places = (
        (_position(left_keys, jnp.where(is_right, upper, lower)), half),
        (_position(right_keys, jnp.where(is_right, lower, upper)), count - half),
    )
    bits = [(at[None] >> jnp.arange(rows, dtype=jnp.int64)[:, None]) & 1 == 1 for at, rows in places]
    return jnp.concatenate(bits), jnp.where(is_right, (least + 1) // 2, (least - 1) // 2)


def subset_sums(a: jax.Array) -> jax.Array:
    """Sums of all subsets of the rows, [2**rows, B]; row k is in those whose position has bit k set."""
    sums = jnp.zeros((1, *a.shape[1:]), a.dtype)
    for row in a:
        sums = jnp.concatenate([sums, sums + row])
    return sums


def sizes_of_subsets(rows: int) -> jax.Array:
    """How many rows each of these has, int64 [2**rows, 1]."""
    return jnp.asarray(np.bitwise_count(np.arange(2**rows)).astype(np.int64))[:, None]


def _position(keys: jax.Array, value: jax.Array) -> jax.Array:
    place = jnp.arange(keys.shape[0], dtype=jnp.int64)[:, None]
    return jnp.where(keys == value, place, keys.shape[0]).min(0)
