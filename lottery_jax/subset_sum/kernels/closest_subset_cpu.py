"""The exact search of ``algorithms.sorted_sums`` compiled by Numba, bit-equal, for candidates on the 32-bit grid.

XLA writes every stage of a sorting network to memory and reads an element once for each output that needs it. Here
sixteen problems are interleaved, their lists stay in the second-level cache, and three stages run in registers for one
load and one store of each element. The comparisons are the same.
All functions are in one file, because Numba's disk cache does not notice changes in other files.
"""

from collections.abc import Callable

import numpy as np
from numba import njit, uint64

from lottery_jax.subset_sum.kernels.numba_jit import compiled_by_numba

_LANES = 16  # interleaved problems: a cache line, one or two vector registers

_CACHED_ROWS = 512  # rows of a list that the first-level cache holds

_REPEAT = 16  # rows of a list that are processed together with one value of each lane


def meet_in_the_middle_on_cpu(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Chosen candidates, bool [N, P], as ``sorted_sums.meet_in_the_middle``: int32 [N, P] and [P], N from 12 to 24.

    >>> candidates = np.arange(1, 13, dtype=np.int32)[:, None]
    >>> int((meet_in_the_middle_on_cpu(candidates, np.array([40], np.int32)) * candidates).sum())
    40
    """
    count, problems = candidates.shape
    chosen = np.empty((count, problems), bool)
    _search(np.ascontiguousarray(candidates), np.ascontiguousarray(targets), chosen)
    return chosen


# The width is a constant of the compiled code, so that the compiler sees that the rows of a block do not overlap.
def _stages(width: int, ways: int) -> Callable:
    """One, two or three stages (2, 4 or 8 ways) on blocks of `width` rows, in place."""
    q, block = uint64(width // ways * _LANES), uint64(width * _LANES)
    q2, q3, q4, q5, q6, q7 = (uint64(k * width // ways * _LANES) for k in range(2, 8))

    @compiled_by_numba
    def two_ways(x, size):
        for start in range(uint64(0), size, block):
            for step in range(q):
                t = start + uint64(step)
                a0, a1 = x[t], x[t + q]
                x[t], x[t + q] = min(a0, a1), max(a0, a1)

    @compiled_by_numba
    def four_ways(x, size):
        for start in range(uint64(0), size, block):
            for step in range(q):
                t = start + uint64(step)
                a0, a1, a2, a3 = x[t], x[t + q], x[t + q2], x[t + q3]
                b0, b1, b2, b3 = min(a0, a2), min(a1, a3), max(a0, a2), max(a1, a3)
                x[t], x[t + q], x[t + q2], x[t + q3] = min(b0, b1), max(b0, b1), min(b2, b3), max(b2, b3)

    @compiled_by_numba
    def eight_ways(x, size):
        for start in range(uint64(0), size, block):
            for step in range(q):
                t = start + uint64(step)
                a0, a1, a2, a3 = x[t], x[t + q], x[t + q2], x[t + q3]
                a4, a5, a6, a7 = x[t + q4], x[t + q5], x[t + q6], x[t + q7]
                b0, b1, b2, b3 = min(a0, a4), min(a1, a5), min(a2, a6), min(a3, a7)
                b4, b5, b6, b7 = max(a0, a4), max(a1, a5), max(a2, a6), max(a3, a7)
                a0, a1, a2, a3 = min(b0, b2), min(b1, b3), max(b0, b2), max(b1, b3)
                a4, a5, a6, a7 = min(b4, b6), min(b5, b7), max(b4, b6), max(b5, b7)
                x[t], x[t + q], x[t + q2], x[t + q3] = min(a0, a1), max(a0, a1), min(a2, a3), max(a2, a3)
                x[t + q4], x[t + q5], x[t + q6], x[t + q7] = min(a4, a5), max(a4, a5), min(a6, a7), max(a6, a7)

    return {2: two_ways, 4: four_ways, 8: eight_ways}[ways]


_two_2, _two_16, _four_4, _four_32 = _stages(2, 2), _stages(16, 2), _stages(4, 4), _stages(32, 4)

_eight_8, _eight_16, _eight_32, _eight_64, _eight_128 = (_stages(width, 8) for width in (8, 16, 32, 64, 128))

_eight_256, _eight_512, _eight_1024, _eight_2048 = (_stages(width, 8) for width in (256, 512, 1024, 2048))

_eight_4096, _eight_8192 = _stages(4096, 8), _stages(8192, 8)


@compiled_by_numba
def _bitonic(x, size, width, last):
    """All stages from blocks of `width` rows down to blocks of `last`, in place."""
    while width >= uint64(8) * last:
        if width == 8:
            _eight_8(x, size)
        elif width == 16:
            _eight_16(x, size)
        elif width == 32:
            _eight_32(x, size)
        elif width == 64:
            _eight_64(x, size)
        elif width == 128:
            _eight_128(x, size)
        elif width == 256:
            _eight_256(x, size)
        elif width == 512:
            _eight_512(x, size)
        elif width == 1024:
            _eight_1024(x, size)
        elif width == 2048:
            _eight_2048(x, size)
        elif width == 4096:
            _eight_4096(x, size)
        else:
            _eight_8192(x, size)
        width //= 8
    if width == 2 * last:
        if last == 1:
            _two_2(x, size)
        elif last == 8:
            _two_16(x, size)
    elif width == 4 * last:
        if last == 1:
            _four_4(x, size)
        elif last == 8:
            _four_32(x, size)


@compiled_by_numba
def _upper_half(d, first, count, u, spare, step):
    """The positive half, ascending, of all sums of +-d[k], first <= k < first + count: ``u`` [2**(count - 1) rows].

    ``spare`` has the same size; the two lists alternate so that the last one is ``u``.
    """
    lanes = uint64(_LANES)
    here, there = (u, spare) if count % 2 else (spare, u)
    for lane in range(lanes):
        here[lane] = d[first, lane]
    for k in range(1, count):
        m = uint64(1) << uint64(k - 1)
        size, together = m * lanes, min(m, uint64(_REPEAT)) * lanes
        for t in range(together):
            step[t] = d[first + k, uint64(t) % lanes]
        for row in range(m):
            up, down = uint64(row) * lanes, (m - uint64(1) - uint64(row)) * lanes
            for lane in range(lanes):
                there[down + lane] = here[up + lane]
        # The new sums |step - u| (u descending) and step + u form a bitonic sequence.
        for at in range(uint64(0), size, together):
            for t in range(together):
                low = uint64(at) + uint64(t)
                below, above = np.int32(abs(step[t] - there[low])), np.int32(step[t] + here[low])
                there[low], there[size + low] = min(below, above), max(below, above)
        for at in range(uint64(0), uint64(2) * size, size):
            _bitonic(there[at : at + size], size, m, uint64(1))
        here, there = there, here


@njit(inline="always")
def _gap(low_end, high_end):
    gap = np.int32(high_end - low_end)
    return gap if gap & 1 else np.int32(2**31 - 1)


@compiled_by_numba
def _least_gaps(left, right, m, target, x, above, least, lower):
    """Merge +-left with target - (+-right): the least gap between neighbours of different sides and the lower value."""
    lanes = uint64(_LANES)
    middle, second = m * lanes, uint64(2) * m * lanes
    # One input and one output array for each loop, so that the compiler can prove that they do not overlap.
    for t in range(middle):
        x[middle + uint64(t)] = left[t]
    for row in range(m):
        source, mirrored = uint64(row) * lanes, (m - uint64(1) - uint64(row)) * lanes
        for lane in range(lanes):
            x[mirrored + lane] = np.int32(-left[source + lane])
        for lane in range(lanes):
            x[second + mirrored + lane] = np.int32(target[lane] + right[source + lane])
        for lane in range(lanes):
            x[second + middle + source + lane] = np.int32(target[lane] - right[source + lane])
    size, width = uint64(4) * m * lanes, uint64(4) * m
    while width > _CACHED_ROWS:
        _bitonic(x, size, width, width // uint64(8))
        width //= uint64(8)
    for lane in range(lanes):
        # Nothing precedes the first row: an even gap, which is never chosen.
        least[lane], lower[lane], above[lane] = np.int32(2**31 - 1), np.int32(0), np.int32(0)
    q2, q3, q4 = uint64(2) * lanes, uint64(3) * lanes, uint64(4) * lanes
    q5, q6, q7 = uint64(5) * lanes, uint64(6) * lanes, uint64(7) * lanes
    cached = min(size, uint64(_CACHED_ROWS) * lanes)
    for at in range(uint64(0), size, uint64(8) * lanes):
        if at % cached == 0:
            _bitonic(x[at : at + cached], cached, width, uint64(8))
        for lane in range(lanes):
            t = uint64(at) + lane
            a0, a1, a2, a3 = x[t], x[t + lanes], x[t + q2], x[t + q3]
            a4, a5, a6, a7 = x[t + q4], x[t + q5], x[t + q6], x[t + q7]
            b0, b1, b2, b3 = min(a0, a4), min(a1, a5), min(a2, a6), min(a3, a7)
            b4, b5, b6, b7 = max(a0, a4), max(a1, a5), max(a2, a6), max(a3, a7)
            a0, a1, a2, a3 = min(b0, b2), min(b1, b3), max(b0, b2), max(b1, b3)
            a4, a5, a6, a7 = min(b4, b6), min(b5, b7), max(b4, b6), max(b5, b7)
            b0, b1, b2, b3 = min(a0, a1), max(a0, a1), min(a2, a3), max(a2, a3)
            b4, b5, b6, b7 = min(a4, a5), max(a4, a5), min(a6, a7), max(a6, a7)
            below = above[lane] if at else b0
            g0, g1, g2, g3 = _gap(below, b0), _gap(b0, b1), _gap(b1, b2), _gap(b2, b3)
            g4, g5, g6, g7 = _gap(b3, b4), _gap(b4, b5), _gap(b5, b6), _gap(b6, b7)
            gap = min(min(min(g0, g1), min(g2, g3)), min(min(g4, g5), min(g6, g7)))
            low = b0 if g1 == gap else below
            low = b1 if g2 == gap else low
            low = b2 if g3 == gap else low
            low = b3 if g4 == gap else low
            low = b4 if g5 == gap else low
            low = b5 if g6 == gap else low
            low = b6 if g7 == gap else low
            lower[lane] = low if gap <= least[lane] else lower[lane]
            least[lane], above[lane] = min(gap, least[lane]), b7


@compiled_by_numba
def _first_signs(d, first, count, value, x, found):
    """The first combination +-d[first] ... that equals ``value``, for each lane; bit k is set for a plus."""
    lanes, low = uint64(_LANES), count // 2
    rows = 1 << low
    for lane in range(lanes):
        x[lane], found[lane] = value[lane], np.int32(0)
    for k in range(low):
        for row in range(1 << k):
            here, new = uint64(row) * lanes, uint64(row + (1 << k)) * lanes
            for lane in range(lanes):
                rest = x[here + lane]
                x[new + lane], x[here + lane] = np.int32(rest - d[first + k, lane]), np.int32(rest + d[first + k, lane])
    high = x[uint64(rows) * lanes : uint64(rows + 1) * lanes]
    for row in range((1 << (count - low)) - 1, -1, -1):
        for lane in range(lanes):
            high[lane] = 0
        for k in range(count - low):
            for lane in range(lanes):
                step = d[first + low + k, lane]
                high[lane] += step if row >> k & 1 else -step
        # Downwards, so that the first match is written last.
        for i in range(rows - 4, -1, -4):
            index, here = np.int32(row * rows + i), uint64(i) * lanes
            for lane in range(lanes):
                t, target = here + lane, high[lane]
                best = index + np.int32(3) if x[t + uint64(3) * lanes] == target else found[lane]
                best = index + np.int32(2) if x[t + uint64(2) * lanes] == target else best
                best = index + np.int32(1) if x[t + lanes] == target else best
                found[lane] = index if x[t] == target else best


@compiled_by_numba
def _search(candidates, targets, chosen):
    count, problems = candidates.shape
    half, odd = count // 2, count % 2
    m, lanes = 1 << (half - 1), _LANES
    left, right, x = np.empty(m * lanes, np.int32), np.empty(m * lanes, np.int32), np.empty(4 * m * lanes, np.int32)
    d, by_lane = np.zeros((count, lanes), np.int32), np.zeros((12, lanes), np.int32)
    step = np.empty(_REPEAT * lanes, np.int32)
    target, shift, above, least, lower = by_lane[0], by_lane[1], by_lane[2], by_lane[3], by_lane[4]
    gap, low_end, chosen_shift = by_lane[5], by_lane[6], by_lane[7]
    left_value, right_value, left_index, right_index = by_lane[8], by_lane[9], by_lane[10], by_lane[11]
    for start in range(0, problems, lanes):
        used = min(lanes, problems - start)
        for lane in range(used):
            total, least_sum, most_sum = np.int32(0), np.int32(0), np.int32(0)
            for k in range(count):
                a = candidates[k, start + lane]
                d[k, lane] = np.int32(2 * abs(a))
                total += a
                least_sum += min(a, np.int32(0))
                most_sum += max(a, np.int32(0))
            # Twice for the centring, twice for the tag.
            target[lane] = np.int32(2 * (2 * min(max(targets[start + lane], least_sum), most_sum) - total))
        _upper_half(d, 0, half, left, x, step)
        _upper_half(d, half, half, right, x, step)
        for side in range(1 + odd):
            for lane in range(lanes):
                last = d[count - 1, lane] if odd else np.int32(0)
                shift[lane] = target[lane] - (last if side else -last) + np.int32(1)
            _least_gaps(left, right, np.uint64(m), shift, x, above, least, lower)
            for lane in range(lanes):
                if side == 0 or least[lane] < gap[lane]:
                    gap[lane], low_end[lane], chosen_shift[lane] = least[lane], lower[lane], shift[lane]
        for lane in range(lanes):
            high_end = low_end[lane] + gap[lane]
            is_right = (low_end[lane] & 1) == 1
            left_value[lane] = high_end if is_right else low_end[lane]
            right_value[lane] = chosen_shift[lane] - (low_end[lane] if is_right else high_end)
        _first_signs(d, 0, half, left_value, x, left_index)
        _first_signs(d, half, half, right_value, x, right_index)
        for lane in range(used):
            for k in range(count):
                a = candidates[k, start + lane]
                if k < half:
                    plus = left_index[lane] >> k & 1
                elif k < 2 * half:
                    plus = right_index[lane] >> (k - half) & 1
                else:
                    last = d[count - 1, lane]
                    plus = chosen_shift[lane] == target[lane] - last + 1 and last != 0
                chosen[k, start + lane] = ((plus != 0) == (a > 0)) and a != 0
