"""The first subset within the tolerance: fewest candidates, and of as many the lexicographically first.

Of two subsets of one size the first is the one that has the least position in which they differ: {0, 1} < {0, 2} <
{1, 2}. Read as a number whose highest bit is position 0, a subset comes before another of its size when its number is
larger. The same order of the parts of both in the first half of the candidates decides, and that of the parts in the
second half only where those are equal: so the largest number of a part in the first half that some part in the second
completes is looked for, and then the largest of what completes it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.engine.grid import INT64_BITS
from lottery_jax.subset_sum.search.by_size import sums_by_size
from lottery_jax.subset_sum.search.pairs import least_distances, masks_of_size
from lottery_jax.subset_sum.search.sorted_by_size import sizes_of_subsets, subset_sums

_BAND = 2 ** (INT64_BITS + 4)  # sizes are kept apart by more than any two sums differ


def first_of_sizes(
    candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, sizes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """The first subset of the first of `sizes` that has one within the tolerance, bool [N, B], and where, bool [B].

    Integers [N, B], [B] and [B]. All C(N, size) subsets are tried, as pairs of halves: three vector operations each.
    """
    count = len(candidates)
    half, most = count // 2, min(max(sizes), count)
    left, right = sums_by_size(candidates[:half], most), sums_by_size(candidates[half:], most)
    numbers = [
        [_number(masks_of_size(rows, size), rows)[:, None] for size in range(len(sums))]
        for rows, sums in ((half, left), (count - half, right))
    ]
    chosen, found = jnp.zeros(candidates.shape, bool), jnp.zeros(targets.shape, bool)
    for size in sizes:
        best = jnp.full(targets.shape, -1, jnp.int32)
        for i in range(len(left)):
            if 0 <= size - i < len(right):
                near = least_distances(targets - left[i], right[size - i]) <= tolerance
                best = jnp.maximum(best, jnp.where(near, numbers[0][i], -1).max(0))
        first = _members(best, half)
        rest, missing = _left_over(first, candidates, targets, size)
        second = jnp.full(targets.shape, -1, jnp.int32)
        for j in range(len(right)):
            near = (jnp.abs(rest - right[j]) <= tolerance) & (missing == j)
            second = jnp.maximum(second, jnp.where(near, numbers[1][j], -1).max(0))
        new = (best >= 0) & ~found
        chosen = jnp.where(new, jnp.concatenate([first, _members(second, count - half)]), chosen)
        found = found | new
    return chosen, found


def first_of_size(
    candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, size: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """As `first_of_sizes`, for one size that may be traced, by sorting: int64 [N, B], [B] and [B], N up to 40.

    The sums of the first half, by size, are sorted among what the second half's subsets lack to the size and the
    target: a part can be completed where one of those is near below or above it.
    """
    count = len(candidates)
    half = count // 2
    left, right = subset_sums(candidates[:half]), subset_sums(candidates[half:])
    numbers = [_number(np.arange(2**rows, dtype=np.uint32), rows)[:, None] for rows in (half, count - half)]
    band, far = jnp.int64(_BAND), jnp.int64(2**62)
    own = left + band * sizes_of_subsets(half)
    wanted = targets - right + band * (jnp.int64(size) - sizes_of_subsets(count - half))
    number = jnp.concatenate([jnp.broadcast_to(numbers[0], left.shape), jnp.full(right.shape, -1, jnp.int32)])
    key, number = jax.lax.sort((jnp.concatenate([own, wanted]), number), dimension=0, num_keys=1)
    below = jax.lax.cummax(jnp.where(number < 0, key, -far), axis=0)
    above = jax.lax.cummin(jnp.where(number < 0, key, far), axis=0, reverse=True)
    best = jnp.where((key - below <= tolerance) | (above - key <= tolerance), number, -1).max(0)
    first = _members(best, half)
    rest, missing = _left_over(first, candidates, targets, size)
    near = (jnp.abs(rest - right) <= tolerance) & (missing.astype(jnp.int64) == sizes_of_subsets(count - half))
    second = jnp.where(near, numbers[1], -1).max(0)
    return jnp.concatenate([first, _members(second, count - half)]) & (best >= 0), best >= 0


def _number(masks: np.ndarray, rows: int) -> np.ndarray:
    """Subsets, bit k for position k, as numbers whose highest bit is position 0, int32."""
    number = np.zeros(len(masks), np.int32)
    for k in range(rows):
        number |= (masks >> k & 1).astype(np.int32) << (rows - 1 - k)
    return number


def _members(number: jax.Array, rows: int) -> jax.Array:
    """The positions of a number, bool [rows, B]; none of -1."""
    bits = number[None] >> jnp.arange(rows - 1, -1, -1, dtype=jnp.int32)[:, None]
    return (bits & 1 == 1) & (number >= 0)


def _left_over(
    first: jax.Array, candidates: jax.Array, targets: jax.Array, size: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """What a part in the first half, bool [h, B], leaves of the target, and of the size."""
    taken = jnp.where(first, candidates[: len(first)], 0).sum(0, dtype=candidates.dtype)
    return targets - taken, jnp.asarray(size, jnp.int32) - first.sum(0, dtype=jnp.int32)
