"""The subset of least residual among those of k candidates, and the first subset within the tolerance, by size.

A subset of size k joins a subset of size i of the first half of the candidates and one of size k - i of the second.
Small sizes try all C(N, k) pairs: a subtraction, an absolute value and a minimum each. Larger sizes sort: sums of the
first half by (size, sum) as one integer, together with the size and sum that the second half's subsets leave; the
nearest pair is adjacent, in O(N 2**(N/2)) for each k.

The first subset within the tolerance has the fewest candidates and is lexicographically first among those: {0, 1} <
{0, 2} < {1, 2}. Read as a number whose highest bit is position 0, an earlier subset of a size is a larger number. So
the largest number of a part in the first half that any part in the second half completes is found first, then the
largest number that completes it.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.algorithms.pairs import bit_rows, first_row, least_distances, masks_of_size, subset_sums
from lottery_jax.subset_sum.engine.grid import INT64_BITS

_BAND = 2 ** (INT64_BITS + 4)  # separates sizes by more than the difference of any two sums
_MAX_ENUMERATED = 2**26  # subsets of one size; sizes with more are sorted


def closest_of_size(candidates: jax.Array, targets: jax.Array, size: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Chosen candidates, bool [N, B], and |residual|, [B], of the nearest sum of ``size`` candidates, by sorting.

    Candidates are int64 [N, B], N up to 40, and targets int64 [B]; ``size``, from 0 to N, may be traced.
    """
    count = candidates.shape[0]
    half = count // 2
    left, right = subset_sums(candidates[:half]), subset_sums(candidates[half:])
    band = jnp.int64(_BAND)
    left_keys = 2 * left + band * _subset_sizes(half)
    # A left part of size i meets right parts of size - i.
    right_keys = 2 * (targets - right) + 1 + band * (jnp.int64(size) - _subset_sizes(count - half))
    merged = jax.lax.sort(jnp.concatenate([left_keys, right_keys]), dimension=0)
    gap = merged[1:] - merged[:-1]
    # A gap below a sum of the first half is one too small.
    gap = jnp.where((gap & 1) == 1, gap + (merged[:-1] & 1), jnp.iinfo(jnp.int64).max)
    least = gap.min(0)
    lower = jnp.where(gap == least, merged[:-1], jnp.iinfo(jnp.int64).min).max(0)
    is_right = (lower & 1) == 1
    upper = jnp.where(is_right, lower + least - 1, lower + least)
    first = first_row(left_keys == jnp.where(is_right, upper, lower))
    second = first_row(right_keys == jnp.where(is_right, lower, upper))
    return jnp.concatenate([bit_rows(first, half), bit_rows(second, count - half)]), least // 2


def _subset_sizes(rows: int) -> jax.Array:
    """The sizes of the subsets of ``subset_sums``, int64 [2**rows, 1]."""
    return jnp.asarray(np.bitwise_count(np.arange(2**rows)).astype(np.int64))[:, None]


def closest_of_sizes(candidates: jax.Array, targets: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Chosen candidates, bool [K, N, B], of the nearest subset sum of each of K sizes (int [N, B] and [B]).

    A size above N chooses nothing. Sizes above N / 2 are found by their complement, and sizes with the most subsets by
    ``closest_of_size``.
    """
    count = candidates.shape[0]
    sorted_ = _sorted_sizes(count, sizes)
    few = [size for size in sizes if 2 * size <= count and size not in sorted_]
    many = [size for size in sizes if count / 2 < size <= count and size not in sorted_]
    chosen = dict.fromkeys(sizes, jnp.zeros_like(candidates, bool))
    if sorted_:
        if candidates.dtype != jnp.int64:
            raise InputError(f"sizes {sorted_} of {count} candidates need the 64-bit grid; leave grid at auto")
        # One compiled program for all sizes.
        found = jax.lax.map(lambda size: closest_of_size(candidates, targets, size)[0], jnp.array(sorted_, jnp.int64))
        chosen |= dict(zip(sorted_, found, strict=True))
    if few:
        chosen |= _closest(candidates, targets, few)
    if many:
        rest = candidates.sum(0, dtype=candidates.dtype) - targets
        dropped = _closest(candidates, rest, [count - size for size in many])
        chosen |= {count - size: ~subset for size, subset in dropped.items()}
    return jnp.stack([chosen[size] for size in sizes])


def problems_at_once(candidates: int, sizes: tuple[int, ...], cpu: bool) -> int:
    """Problems in a chunk: lists fit a core's second-level cache, or take about 1 GiB on an accelerator."""
    half = candidates - candidates // 2
    sorted_ = _sorted_sizes(candidates, sizes)
    if sorted_:
        return 2 ** max((16 if cpu else 24) - half, 0)
    most = max(min(size, candidates - size) for size in sizes if size <= candidates)
    longest = sum(math.comb(half, size) for size in range(most + 1))
    return (
        max(1, min(128, 2 ** (18 - longest.bit_length()))) if cpu else 2 ** min(max(24 - longest.bit_length(), 0), 14)
    )


def _sorted_sizes(candidates: int, sizes: tuple[int, ...]) -> list[int]:
    return [size for size in sizes if math.comb(candidates, size) > _MAX_ENUMERATED]


def sums_by_size(a: jax.Array, most: int) -> list[jax.Array]:
    """Sums of all subsets of 0, 1, ..., ``most`` rows of ``a``, each size in the order of ``masks_of_size``."""
    count = len(a)
    sums = [jnp.zeros_like(a, shape=(1, a.shape[1]))]
    for size in range(1, min(most, count) + 1):
        # Subsets whose last member is `row` add it to the subsets of the rows before, which come first in their list.
        fewer = [math.comb(row, size - 1) for row in range(count)]
        shorter = np.concatenate([np.arange(number, dtype=np.int32) for number in fewer])
        sums.append(_rows(sums[-1], shorter) + _rows(a, np.repeat(np.arange(count, dtype=np.int32), fewer)))
    return sums


def _rows(a: jax.Array, index: np.ndarray) -> jax.Array:
    return a.at[index].get(mode="promise_in_bounds")  # the index is a constant, so no bounds are checked


def _closest(candidates: jax.Array, targets: jax.Array, sizes: list[int]) -> dict[int, jax.Array]:
    """Chosen candidates, bool [N, B], for each of the sizes, none above N / 2."""
    count = candidates.shape[0]
    half, most = count // 2, max(sizes)
    left, right = sums_by_size(candidates[:half], most), sums_by_size(candidates[half:], most)
    distance: dict[tuple[int, int], jax.Array] = {}
    for i in range(len(left)):
        # All sizes of right parts that may join a left part of size i, at once.
        partners = [size - i for size in sizes if 0 <= size - i < len(right)]
        if partners:
            least = least_distances(jnp.concatenate([right[j] for j in partners]), targets - left[i])
            ends = np.cumsum([len(right[j]) for j in partners])[:-1]
            distance |= {(i, j): part for j, part in zip(partners, jnp.split(least, ends), strict=True)}
    masks = [
        [masks_of_size(rows, size) for size in range(len(sums))] for rows, sums in ((half, left), (count - half, right))
    ]
    chosen = {}
    for size in sizes:
        pairs = [(i, size - i) for i in range(size + 1) if (i, size - i) in distance]
        rows = jnp.concatenate([distance[pair] for pair in pairs])
        least = rows.min(0)
        at = first_row(rows == least)
        value = jnp.take_along_axis(jnp.concatenate([right[j] for _, j in pairs]), at[None], 0)
        left_size = jnp.asarray(np.repeat([i for i, _ in pairs], [len(right[j]) for _, j in pairs]))[at]
        sizes_of_rows = jnp.asarray(np.repeat([i for i, _ in pairs], [len(left[i]) for i, _ in pairs]))
        matches = jnp.abs(targets - jnp.concatenate([left[i] for i, _ in pairs]) - value) == least
        partner = first_row(matches & (sizes_of_rows[:, None] == left_size))
        words = (
            (jnp.asarray(np.concatenate([masks[0][i] for i, _ in pairs]))[partner], half),
            (jnp.asarray(np.concatenate([masks[1][j] for _, j in pairs]))[at], count - half),
        )
        chosen[size] = jnp.concatenate([bit_rows(word, rows) for word, rows in words])
    return chosen


def first_of_sizes(
    candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, sizes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """The first subset within the tolerance among those of the first of ``sizes`` that has one, by enumeration.

    Integers [N, B], [B] and [B], and ascending sizes, to chosen candidates, bool [N, B], and which problems have a
    subset, bool [B].
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
        rest, missing = _remainder(first, candidates, targets, size)
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
    """As ``first_of_sizes`` for one size, which may be traced, by sorting: int64 [N, B], [B] and [B], N up to 40.

    Sums of the first half are sorted, by size, among the differences of the target and the sums of the second half. A
    part can be completed if the next difference below or above it is within the tolerance.
    """
    count = len(candidates)
    half = count // 2
    left, right = subset_sums(candidates[:half]), subset_sums(candidates[half:])
    numbers = [_number(np.arange(2**rows, dtype=np.uint32), rows)[:, None] for rows in (half, count - half)]
    band, far = jnp.int64(_BAND), jnp.int64(2**62)
    left_keys = left + band * _subset_sizes(half)
    right_keys = targets - right + band * (jnp.int64(size) - _subset_sizes(count - half))
    number = jnp.concatenate([jnp.broadcast_to(numbers[0], left.shape), jnp.full(right.shape, -1, jnp.int32)])
    key, number = jax.lax.sort((jnp.concatenate([left_keys, right_keys]), number), dimension=0, num_keys=1)
    below = jax.lax.cummax(jnp.where(number < 0, key, -far), axis=0)
    above = jax.lax.cummin(jnp.where(number < 0, key, far), axis=0, reverse=True)
    best = jnp.where((key - below <= tolerance) | (above - key <= tolerance), number, -1).max(0)
    first = _members(best, half)
    rest, missing = _remainder(first, candidates, targets, size)
    near = (jnp.abs(rest - right) <= tolerance) & (missing.astype(jnp.int64) == _subset_sizes(count - half))
    second = jnp.where(near, numbers[1], -1).max(0)
    return jnp.concatenate([first, _members(second, count - half)]) & (best >= 0), best >= 0


def _number(masks: np.ndarray, rows: int) -> np.ndarray:
    """Subsets with bit k for position k as numbers whose highest bit is position 0, int32."""
    number = np.zeros(len(masks), np.int32)
    for k in range(rows):
        number |= (masks >> k & 1).astype(np.int32) << (rows - 1 - k)
    return number


def _members(number: jax.Array, rows: int) -> jax.Array:
    """The positions in a number, bool [rows, B]; -1 has none."""
    bits = number[None] >> jnp.arange(rows - 1, -1, -1, dtype=jnp.int32)[:, None]
    return (bits & 1 == 1) & (number >= 0)


def _remainder(
    first: jax.Array, candidates: jax.Array, targets: jax.Array, size: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """The target and size that remain after a part in the first half, bool [h, B]."""
    taken = jnp.where(first, candidates[: len(first)], 0).sum(0, dtype=candidates.dtype)
    return targets - taken, jnp.asarray(size, jnp.int32) - first.sum(0, dtype=jnp.int32)
