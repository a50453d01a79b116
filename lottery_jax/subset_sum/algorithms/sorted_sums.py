"""The least residual over all subsets, by meeting in the middle with sorting networks (Horowitz and Sahni 1974).

Everything is compare-exchange on integers with the batch along the last axis, so each step is a vector minimum and
maximum: no gather, no data-dependent branch. Signs make it symmetric: with d_k = |a_k|, the sum over a subset is
(sum a +- d_1 +- ... +- d_N) / 2, and the list of all +-d_1 ... +-d_h is its own mirror image, so only its upper half
is built and sorted. The halves' lists meet in a merge; a tag in the lowest bit tells the sides apart, and the closest
pair from different sides is adjacent in the merged order.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_NETWORK_LIMIT = 12  # candidates per half up to which sorting networks compile quickly; XLA's sort beyond

_MINIMUM = 6

_UNROLLED = 64  # rows; more compile for seconds, and a loop's own cost no longer shows


def closest_subset(candidates: jax.Array, targets: jax.Array) -> jax.Array:
    """Chosen candidates, bool [N, B], of the subset sum nearest to each target (int [N, B] and [B]).

    The sum of |candidates| must be below 2**29 (int32) or 2**60 (int64). Zeros are never chosen.
    """
    count = candidates.shape[0]
    if count < _MINIMUM:
        padding = jnp.zeros((_MINIMUM - count, *candidates.shape[1:]), candidates.dtype)
        return closest_subset(jnp.concatenate([candidates, padding]), targets)[:count]
    dtype = candidates.dtype  # named in each sum: with 64-bit types on, int32 would add up to int64
    low, high = (f(candidates, 0).sum(0, dtype=dtype) for f in (jnp.minimum, jnp.maximum))
    # Twice for the centring, twice for the tag.
    wanted = 2 * (2 * jnp.clip(targets, low, high) - candidates.sum(0, dtype=dtype))
    plus = _closest_signs(2 * jnp.abs(candidates), wanted)
    return jnp.where(candidates > 0, plus, ~plus) & (candidates != 0)


def _closest_signs(d: jax.Array, wanted: jax.Array) -> jax.Array:
    """Where the sign is +, bool [N, B], in the nearest +-d_1 +- ... +-d_N to `wanted` (all even)."""
    half = d.shape[0] // 2
    left, right, rest = d[:half], d[half : 2 * half], d[2 * half :]
    shifts = [-rest[0], rest[0]] if len(rest) else [jnp.zeros_like(wanted)]
    gap, lower, second = _closest_pair(left, right, [wanted - shift + 1 for shift in shifts])
    shift = jnp.where(second, shifts[-1], shifts[0])
    is_right = (lower & 1) == 1
    from_left = jnp.where(is_right, lower + gap, lower)
    from_right = wanted - shift - (jnp.where(is_right, lower, lower + gap) - 1)
    signs = [_find_sum(left, from_left), _find_sum(right, from_right)]
    return jnp.concatenate([*signs, second[None]] if len(rest) else signs)


def _closest_pair(
    left: jax.Array, right: jax.Array, goals: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The closest of the sums +-left and goal - (+-right), where goals are odd and all else is even.

    left and right [h, B]; one or two goals [B]. Three answers [B]: the distance, the lower of the two values (the
    largest such for ties), and whether the second goal came strictly closer than the first.
    """
    if len(left) <= _NETWORK_LIMIT:
        lists = upper_half(jnp.stack([left, right], 1))
        merged = [_merge(lists[:, 0], lists[:, 1], goal) for goal in goals]
    else:
        a, b = _all_sums(left), _all_sums(right)
        merged = [_sorted_pairs(a, goal - b) for goal in goals]
    pairs, gap = merged[0], _least_gap(merged[0])
    second = jnp.zeros_like(gap, bool)
    if len(merged) == 2:
        other = _least_gap(merged[1])
        second = other < gap
        pairs, gap = (jnp.where(second, *both) for both in ((merged[1], pairs), (other, gap)))
    return gap, _lower_at(pairs, gap), second


def _stage(columns: Sequence[jax.Array]) -> list[jax.Array]:
    """One compare-exchange stage on arrays [groups, width, ...]: the two halves of each width against each other."""
    halves = [(c[:, : c.shape[1] // 2], c[:, c.shape[1] // 2 :]) for c in columns]
    return [f(x, y) for x, y in halves for f in (jnp.minimum, jnp.maximum)]


def _restack(columns: Sequence[jax.Array]) -> jax.Array:
    groups, width, *tail = columns[0].shape
    return jnp.stack(columns, 1).reshape(groups * len(columns), width, *tail)


def _finish(columns: list[jax.Array], done: int, stages: int, most: int) -> jax.Array:
    """The rest of `stages` stages, of which `columns` have had `done`, in fused passes of at most `most` stages."""
    passes = -(-stages // most)
    for place in range(passes):
        for _ in range(stages // passes + (place < stages % passes) - done):
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


def _merge(left: jax.Array, right: jax.Array, wanted: jax.Array) -> jax.Array:
    """Merge the lists +-left and wanted - (+-right), given by upper halves [M, B], all but the last stage.

    Returns [2 * M, 2, B]: pairs in ascending order, each still to be put in order.
    """
    top = -left[::-1], wanted + right[::-1]
    bottom = left, wanted - right
    rows = [f(*side)[None] for f in (jnp.minimum, jnp.maximum) for side in (top, bottom)]
    columns = [f(rows[i], rows[i + 1]) for i in (0, 2) for f in (jnp.minimum, jnp.maximum)]
    return _finish(columns, 2, len(left).bit_length(), most=3)  # three stages a pass measured fastest on CPU


def _all_sums(d: jax.Array) -> jax.Array:
    """All sums +-d_1 ... +-d_h, [2**h, B]; sign of d_k is + where bit k of the position is set."""
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
    """The least gap between neighbours of different sides, which is odd, [B]."""
    most = jnp.iinfo(pairs.dtype).max
    inside, _, across, _ = _gaps(pairs)
    return jnp.minimum(*(jnp.where((gap & 1) == 1, gap, most).min(0) for gap in (inside, across)))


def _lower_at(pairs: jax.Array, least: jax.Array) -> jax.Array:
    """The lower value where a gap is `least`, the largest such for ties, [B]."""
    none = jnp.iinfo(pairs.dtype).min
    inside, lower, across, upper = _gaps(pairs)
    found = [jnp.where(gap == least, low, none).max(0) for gap, low in ((inside, lower), (across, upper))]
    return jnp.maximum(*found)


def _find_sum(d: jax.Array, value: jax.Array) -> jax.Array:
    """Signs, bool [h, B], of the first combination +-d_1 ... +-d_h that equals `value`."""
    count = d.shape[0]
    low, high = _all_sums(d[: count // 2]), _all_sums(d[count // 2 :])
    # Row by row of the smaller list: a reduction over both axes at once would not be vectorised.
    first = jnp.full_like(low, 2**count, jnp.int32)

    def nearest(row: jax.Array | int, first: jax.Array) -> jax.Array:
        return jnp.minimum(first, jnp.where(low == value - high[row], jnp.int32(row * len(low)), 2**count))

    if len(high) <= _UNROLLED:
        for row in range(len(high)):
            first = nearest(row, first)
    else:
        first = jax.lax.fori_loop(0, len(high), nearest, first)
    position = (first + jnp.arange(len(low), dtype=jnp.int32)[:, None]).min(0)
    return (position[None] >> jnp.arange(count, dtype=jnp.int32)[:, None]) & 1 == 1
