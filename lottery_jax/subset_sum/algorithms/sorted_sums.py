"""The least residual over all subsets, by meeting in the middle with sorting networks (Horowitz and Sahni 1974).

All steps are vector minima and maxima of integers, without gathers or data-dependent branches. With d_k = |a_k|, the
sum of a subset is (sum a +- d_1 +- ... +- d_N) / 2, and the list of all +-d_1 ... +-d_h is symmetric, so only its upper
half is built and sorted. The lists of both halves are merged; a tag in the lowest bit tells them apart, and the closest
pair of different lists is adjacent in the merged order.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_MAX_NETWORK_CANDIDATES = 12  # of a half; sorting networks of more compile slowly, so XLA's sort takes over

_MIN_CANDIDATES = 6

_MAX_UNROLLED_ROWS = 64  # more compile for seconds, and the overhead of a loop is then negligible


def closest_subset(candidates: jax.Array, targets: jax.Array) -> jax.Array:
    """Chosen candidates, bool [N, B], of the subset sum nearest to each target (int [N, B] and [B]).

    The sum of |candidates| must be below 2**29 (int32) or 2**60 (int64). Zeros are never chosen.
    """
    count = candidates.shape[0]
    if count < _MIN_CANDIDATES:
        padding = jnp.zeros((_MIN_CANDIDATES - count, *candidates.shape[1:]), candidates.dtype)
        return closest_subset(jnp.concatenate([candidates, padding]), targets)[:count]
    dtype = candidates.dtype  # given to each sum: with 64-bit types enabled, int32 sums would be int64
    low, high = (f(candidates, 0).sum(0, dtype=dtype) for f in (jnp.minimum, jnp.maximum))
    # Twice for the centring, twice for the tag.
    target = 2 * (2 * jnp.clip(targets, low, high) - candidates.sum(0, dtype=dtype))
    plus = _closest_signs(2 * jnp.abs(candidates), target)
    return jnp.where(candidates > 0, plus, ~plus) & (candidates != 0)


def _closest_signs(d: jax.Array, target: jax.Array) -> jax.Array:
    """Which signs are +, bool [N, B], in the sum +-d_1 +- ... +-d_N nearest to ``target`` (all even)."""
    half = d.shape[0] // 2
    left, right, rest = d[:half], d[half : 2 * half], d[2 * half :]
    shifts = [-rest[0], rest[0]] if len(rest) else [jnp.zeros_like(target)]
    gap, lower, second = _closest_pair(left, right, [target - shift + 1 for shift in shifts])
    shift = jnp.where(second, shifts[-1], shifts[0])
    is_right = (lower & 1) == 1
    from_left = jnp.where(is_right, lower + gap, lower)
    from_right = target - shift - (jnp.where(is_right, lower, lower + gap) - 1)
    signs = [_find_sum(left, from_left), _find_sum(right, from_right)]
    return jnp.concatenate([*signs, second[None]] if len(rest) else signs)


def _closest_pair(
    left: jax.Array, right: jax.Array, targets: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The closest of the sums +-left and target - (+-right), where targets are odd and all else is even.

    Args:
        left: [h, B].
        right: [h, B].
        targets: One or two arrays [B].

    Returns:
        The distance, the lower of the two values (the largest such for ties), and whether the second target is
        strictly closer than the first, [B] each.
    """
    if len(left) <= _MAX_NETWORK_CANDIDATES:
        lists = upper_half(jnp.stack([left, right], 1))
        merged = [_merge(lists[:, 0], lists[:, 1], target) for target in targets]
    else:
        a, b = _signed_sums(left), _signed_sums(right)
        merged = [_sorted_pairs(a, target - b) for target in targets]
    pairs, gap = merged[0], _least_gap(merged[0])
    second = jnp.zeros_like(gap, bool)
    if len(merged) == 2:
        other = _least_gap(merged[1])
        second = other < gap
        pairs, gap = (jnp.where(second, *both) for both in ((merged[1], pairs), (other, gap)))
    return gap, _lower_at(pairs, gap), second


def _stage(columns: Sequence[jax.Array]) -> list[jax.Array]:
    """One compare-exchange stage on arrays [groups, width, ...]: the lower against the upper half of each width."""
    halves = [(c[:, : c.shape[1] // 2], c[:, c.shape[1] // 2 :]) for c in columns]
    return [f(x, y) for x, y in halves for f in (jnp.minimum, jnp.maximum)]


def _restack(columns: Sequence[jax.Array]) -> jax.Array:
    groups, width, *tail = columns[0].shape
    return jnp.stack(columns, 1).reshape(groups * len(columns), width, *tail)


def _finish(columns: list[jax.Array], done: int, stages: int, most: int) -> jax.Array:
    """The last ``stages - done`` of ``stages`` stages, in fused passes of at most ``most`` stages."""
    passes = -(-stages // most)
    for number in range(passes):
        for _ in range(stages // passes + (number < stages % passes) - done):
            columns = _stage(columns)
        columns, done = [_restack(columns)], 0
    return columns[0]


def upper_half(d: jax.Array) -> jax.Array:
    """The positive half, ascending, of all sums +-d_1 ... +-d_h: [h, ...] -> [2**(h - 1), ...]."""
    upper = d[:1]
    for step in d[1:]:
        # The new sums |step - u| (u descending) and step + u form a bitonic sequence: a merge sorts it.
        columns = [f(jnp.abs(step - upper[::-1]), step + upper)[None] for f in (jnp.minimum, jnp.maximum)]
        upper = _finish(columns, 1, len(upper).bit_length(), most=2)[:, 0]
    return upper


def _merge(left: jax.Array, right: jax.Array, target: jax.Array) -> jax.Array:
    """Merge the lists +-left and target - (+-right), given by upper halves [M, B], all but the last stage.

    Returns [2 * M, 2, B]: ascending pairs, whose two values are not yet in order.
    """
    top = -left[::-1], target + right[::-1]
    bottom = left, target - right
    rows = [f(*side)[None] for f in (jnp.minimum, jnp.maximum) for side in (top, bottom)]
    columns = [f(rows[i], rows[i + 1]) for i in (0, 2) for f in (jnp.minimum, jnp.maximum)]
    return _finish(columns, 2, len(left).bit_length(), most=3)  # three stages a pass are fastest on CPU


def _signed_sums(d: jax.Array) -> jax.Array:
    """All sums +-d_1 ... +-d_h, [2**h, B]; the sign of d_k in sum i is + if bit k of i is set."""
    sums = jnp.zeros_like(d[:1])
    for row in d:
        sums = jnp.concatenate([sums - row, sums + row])
    return sums


def _sorted_pairs(left: jax.Array, right: jax.Array) -> jax.Array:
    return jax.lax.sort(jnp.concatenate([left, right]), dimension=0).reshape(-1, 2, left.shape[-1])


def _gaps(pairs: jax.Array) -> tuple[jax.Array, ...]:
    """Gaps between neighbours and the lower value of each, inside pairs and across them: [M, 2, B] -> [M or M-1, B]."""
    lower, upper = jnp.minimum(pairs[:, 0], pairs[:, 1]), jnp.maximum(pairs[:, 0], pairs[:, 1])
    return upper - lower, lower, lower[1:] - upper[:-1], upper[:-1]


def _least_gap(pairs: jax.Array) -> jax.Array:
    """The least gap between neighbours of different lists, which is odd, [B]."""
    most = jnp.iinfo(pairs.dtype).max
    inside, _, across, _ = _gaps(pairs)
    return jnp.minimum(*(jnp.where((gap & 1) == 1, gap, most).min(0) for gap in (inside, across)))


def _lower_at(pairs: jax.Array, least: jax.Array) -> jax.Array:
    """The lower value of a gap equal to ``least``, the largest such for ties, [B]."""
    none = jnp.iinfo(pairs.dtype).min
    inside, lower, across, upper = _gaps(pairs)
    found = [jnp.where(gap == least, low, none).max(0) for gap, low in ((inside, lower), (across, upper))]
    return jnp.maximum(*found)


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
