"""The least residual over all subsets, by meeting in the middle with sorting networks (Horowitz and Sahni 1974).

All steps are vector minima and maxima of integers, without gathers or data-dependent branches. With d_k = |a_k|, the
sum of a subset is (sum a +- d_1 +- ... +- d_N) / 2, and the list of all +-d_1 ... +-d_h is symmetric, so only its upper
half is built and sorted. The lists of both halves are merged; a tag in the lowest bit tells them apart, and the closest
pair of different lists is adjacent in the merged order.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

_MAX_NETWORK_CANDIDATES = 12  # of a half; sorting networks of more compile slowly, so XLA's sort takes over

_MIN_CANDIDATES = 6

_MAX_UNROLLED_ROWS = 64  # more compile for seconds, and the overhead of a loop is then negligible


def meet_in_the_middle(candidates: jax.Array, targets: jax.Array) -> jax.Array:
    """Chosen candidates, bool [N, B], of the subset sum nearest to each target (int [N, B] and [B]).

    The sum of |candidates| must be below 2**29 (int32) or 2**60 (int64). Zeros are never chosen.
    """
    count = candidates.shape[0]
    if count < _MIN_CANDIDATES:
        padding = jnp.zeros((_MIN_CANDIDATES - count, *candidates.shape[1:]), candidates.dtype)
        return meet_in_the_middle(jnp.concatenate([candidates, padding]), targets)[:count]
    dtype = candidates.dtype  # given to each sum: with 64-bit types enabled, int32 sums would be int64
    low = jnp.minimum(candidates, 0).sum(0, dtype=dtype)
    high = jnp.maximum(candidates, 0).sum(0, dtype=dtype)
    # Twice for the centring, twice for the tag.
    target = 2 * (2 * jnp.clip(targets, low, high) - candidates.sum(0, dtype=dtype))
    plus = _closest_signs(2 * jnp.abs(candidates), target)
    return jnp.where(candidates > 0, plus, ~plus) & (candidates != 0)


def _closest_signs(d: jax.Array, target: jax.Array) -> jax.Array:
    """Which signs are +, bool [N, B], in the sum +-d_1 +- ... +-d_N nearest to ``target`` (all even)."""
    half, odd = divmod(len(d), 2)
    left, right = d[:half], d[half : 2 * half]
    merge = _merged_with(left, right)
    # The last of an odd number is subtracted or added.
    shift = -d[-1] if odd else jnp.zeros_like(target)
    pairs = merge(target - shift + 1)
    gap = _least_gap(pairs)
    added = jnp.zeros_like(gap, bool)
    if odd:
        other_pairs = merge(target + shift + 1)
        other_gap = _least_gap(other_pairs)
        added = other_gap < gap
        pairs, gap = jnp.where(added, other_pairs, pairs), jnp.where(added, other_gap, gap)
        shift = jnp.where(added, -shift, shift)
    # The lower value of the least gap, the largest such for ties.
    none = jnp.iinfo(pairs.dtype).min
    inside, low, across, middle = _gaps(pairs)
    lower = jnp.maximum(jnp.where(inside == gap, low, none).max(0), jnp.where(across == gap, middle, none).max(0))
    is_right = (lower & 1) == 1
    from_left = jnp.where(is_right, lower + gap, lower)
    from_right = target - shift - (jnp.where(is_right, lower, lower + gap) - 1)
    signs = [_find_sum(left, from_left), _find_sum(right, from_right)]
    return jnp.concatenate([*signs, added[None]] if odd else signs)


def _merged_with(left: jax.Array, right: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The function that merges all +-left sums and target - (+-right) sums of a target, as ``_merge`` does."""
    if len(left) <= _MAX_NETWORK_CANDIDATES:
        lists = upper_half(jnp.stack([left, right], 1))
        return functools.partial(_merge, lists[:, 0], lists[:, 1])
    return functools.partial(_sorted_pairs, _signed_sums(left), _signed_sums(right))


def count_within(candidates: jax.Array, targets: jax.Array, tolerance: jax.Array) -> jax.Array:
    """Number of subsets whose sum is within the tolerance of the target, [B], in the dtype of the candidates.

    Integers [N, B], [B] and [B]; the sum of |candidates| as for ``meet_in_the_middle``, and the number below 2**N, so
    that int32 takes up to 30 candidates. Zeros count as members, so that each doubles the number.
    """
    missing = _MIN_CANDIDATES - len(candidates)
    if missing > 0:
        padding = jnp.zeros((missing, *candidates.shape[1:]), candidates.dtype)
        return count_within(jnp.concatenate([candidates, padding]), targets, tolerance) >> missing
    dtype = candidates.dtype
    low = jnp.minimum(candidates, 0).sum(0, dtype=dtype)
    high = jnp.maximum(candidates, 0).sum(0, dtype=dtype)
    # All sums up to the upper end, without those below the lower end.
    ends = jnp.clip(targets + tolerance, low - 1, high), jnp.clip(targets - tolerance - 1, low - 1, high)
    d = 2 * jnp.abs(candidates)
    half, odd = divmod(len(d), 2)
    merge = _merged_with(d[:half], d[half : 2 * half])
    count = jnp.zeros_like(targets)
    for end, sign in zip(ends, (1, -1), strict=True):
        target = 2 * (2 * end - candidates.sum(0, dtype=dtype)) + 1
        for shift in (-d[-1], d[-1]) if odd else (0,):
            count = count + sign * _rank_sum(merge(target + shift))
    return count


def _rank_sum(pairs: jax.Array) -> jax.Array:
    """The sum of the positions of odd values in the sorted list, which wraps around, [B]."""
    first, second = jnp.minimum(pairs[:, 0], pairs[:, 1]), jnp.maximum(pairs[:, 0], pairs[:, 1])
    position = jnp.arange(0, 2 * len(pairs), 2, dtype=pairs.dtype)[:, None]
    return ((first & 1) * position + (second & 1) * (position + 1)).sum(0, dtype=pairs.dtype)


def _finish(columns: list[jax.Array], done: int, stages: int, most: int) -> jax.Array:
    """The last ``stages - done`` of ``stages`` compare-exchange stages, in fused passes of at most ``most`` stages.

    A stage of arrays [groups, width, ...] compares the lower and the upper half of each width.
    """
    passes = -(-stages // most)
    for number in range(passes):
        for _ in range(stages // passes + (number < stages % passes) - done):
            halves: list[jax.Array] = []
            for column in columns:
                lower, upper = column[:, : column.shape[1] // 2], column[:, column.shape[1] // 2 :]
                halves += [jnp.minimum(lower, upper), jnp.maximum(lower, upper)]
            columns = halves
        groups, width, *tail = columns[0].shape
        columns, done = [jnp.stack(columns, 1).reshape(groups * len(columns), width, *tail)], 0
    return columns[0]


def upper_half(d: jax.Array) -> jax.Array:
    """The positive half, ascending, of all sums +-d_1 ... +-d_h: [h, ...] -> [2**(h - 1), ...]."""
    upper = d[:1]
    for step in d[1:]:
        # The new sums |step - u| (u descending) and step + u form a bitonic sequence: a merge sorts it.
        below, above = jnp.abs(step - upper[::-1]), step + upper
        columns = [jnp.minimum(below, above)[None], jnp.maximum(below, above)[None]]
        upper = _finish(columns, 1, len(upper).bit_length(), most=2)[:, 0]
    return upper


def _merge(left: jax.Array, right: jax.Array, target: jax.Array) -> jax.Array:
    """Merge the lists +-left and target - (+-right), given by upper halves [M, B], all but the last stage.

    Returns [2 * M, 2, B]: ascending pairs, whose two values are not yet in order. ``target`` is odd and all else is
    even, so that a gap between values of different lists is odd.
    """
    top, bottom = (-left[::-1], target + right[::-1]), (left, target - right)
    columns: list[jax.Array] = []
    for extreme in (jnp.minimum, jnp.maximum):
        first, second = extreme(*top)[None], extreme(*bottom)[None]
        columns += [jnp.minimum(first, second), jnp.maximum(first, second)]
    return _finish(columns, 2, len(left).bit_length(), most=3)  # three stages a pass are fastest on CPU


def _signed_sums(d: jax.Array) -> jax.Array:
    """All sums +-d_1 ... +-d_h, [2**h, B]; the sign of d_k in sum i is + if bit k of i is set."""
    sums = jnp.zeros_like(d[:1])
    for row in d:
        sums = jnp.concatenate([sums - row, sums + row])
    return sums


def _sorted_pairs(left: jax.Array, right: jax.Array, target: jax.Array) -> jax.Array:
    """As ``_merge``, by XLA's sort of the whole lists."""
    return jax.lax.sort(jnp.concatenate([left, target - right]), dimension=0).reshape(-1, 2, left.shape[-1])


def _gaps(pairs: jax.Array) -> tuple[jax.Array, ...]:
    """Gaps between neighbours and the lower value of each, inside pairs and across them: [M, 2, B] -> [M or M-1, B]."""
    lower, upper = jnp.minimum(pairs[:, 0], pairs[:, 1]), jnp.maximum(pairs[:, 0], pairs[:, 1])
    return upper - lower, lower, lower[1:] - upper[:-1], upper[:-1]


def _least_gap(pairs: jax.Array) -> jax.Array:
    """The least gap between neighbours of different lists, which is odd, [B]."""
    most = jnp.iinfo(pairs.dtype).max
    inside, _, across, _ = _gaps(pairs)
    return jnp.minimum(
        jnp.where((inside & 1) == 1, inside, most).min(0), jnp.where((across & 1) == 1, across, most).min(0)
    )


def _find_sum(d: jax.Array, value: jax.Array) -> jax.Array:
    """Signs, bool [h, B], of the first combination +-d_1 ... +-d_h that equals ``value``."""
    count = d.shape[0]
    low, high = _signed_sums(d[: count // 2]), _signed_sums(d[count // 2 :])
    # Row by row of the smaller list, because a reduction over both axes would not be vectorised.
    first = jnp.full_like(low, 2**count, jnp.int32)

    def nearest(row: jax.Array | int, first: jax.Array) -> jax.Array:
        return jnp.minimum(first, jnp.where(low == value - high[row], jnp.int32(row * len(low)), 2**count))

    if len(high) <= _MAX_UNROLLED_ROWS:
        for row in range(len(high)):
            first = nearest(row, first)
    else:
        first = jax.lax.fori_loop(0, len(high), nearest, first)
    position = (first + jnp.arange(len(low), dtype=jnp.int32)[:, None]).min(0)
    return (position[None] >> jnp.arange(count, dtype=jnp.int32)[:, None]) & 1 == 1
