"""The exact search for rows of candidates that serve many targets, compiled by Numba.

All sums of most candidates are sorted once for each row, with an index of evenly spaced values. A target then costs one
look-up for each sum of the other candidates: 64 for 21 candidates and about a hundred targets, instead of a merge of
two lists. If several subsets are equally near (about one problem of a hundred), ``closest_subset_cpu`` solves the
problem, which breaks ties as ``algorithms.sorted_sums`` does.
"""

import numpy as np

from lottery_jax.subset_sum.kernels.closest_subset_cpu import meet_in_the_middle_on_cpu
from lottery_jax.subset_sum.kernels.numba_jit import compiled_by_numba

_MIN_LISTED, _MAX_LISTED = 6, 16  # candidates in the sorted list; an entry has 16 bits for the subset


def closest_subset_shared(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Chosen candidates, bool [G, N, R], of the sums nearest to targets int32 [G, R]; candidates int32 [G, N].

    Bit-equal to ``sorted_sums.meet_in_the_middle`` of each target with the candidates of its row, N from 12 to 24.

    >>> candidates = np.arange(1, 13, dtype=np.int32)[None]
    >>> chosen = closest_subset_shared(candidates, np.array([[40, 7]], np.int32))
    >>> (chosen[0] * candidates[0][:, None]).sum(0)
    array([40,  7])
    """
    rows, count = candidates.shape
    per_row = targets.shape[1]
    chosen = np.zeros((rows, count, per_row), bool)
    if not chosen.size:
        return chosen
    tied = np.zeros((rows, per_row), bool)
    listed = _listed_candidates(count, per_row)
    _search(np.ascontiguousarray(candidates), np.ascontiguousarray(targets), listed, chosen, tied)
    row, column = np.nonzero(tied)
    if len(row):
        chosen[row, :, column] = meet_in_the_middle_on_cpu(candidates[row].T, targets[row, column]).T
    return chosen


def _listed_candidates(count: int, per_row: int) -> int:
    """Number of candidates in the sorted list; an entry costs about as much as a look-up."""
    return min(
        range(_MIN_LISTED, min(_MAX_LISTED, count - 1) + 1),
        key=lambda listed: 2 ** (listed + 1) + per_row * 2 ** (count - listed),
    )


@compiled_by_numba
def _sorted_list(a, entries, spare):
    """All subset sums of a [n], ascending, int64 [2**n]; the lowest 16 bits of an entry are the subset."""
    here, there = entries, spare
    here[0] = 0
    for k in range(len(a)):
        size = 1 << k
        step = (np.int64(a[k]) << 16) + size
        # Half of the entries from below and half from above: two independent chains of comparisons, of which neither
        # reaches the end of a list. There is no branch, which would be mispredicted every other time.
        low, high, low_top, high_top = 0, 0, size - 1, size - 1
        for position in range(size):
            first, second = here[low], here[high] + step
            from_low = first <= second
            there[position] = first if from_low else second
            low += np.int64(from_low)
            high += np.int64(not from_low)
            first, second = here[low_top], here[high_top] + step
            from_high = first <= second
            there[2 * size - 1 - position] = second if from_high else first
            high_top -= np.int64(from_high)
            low_top -= np.int64(not from_high)
        here, there = there, here
    return here


@compiled_by_numba
def _search(candidates, targets, listed, chosen, tied):
    rows, count = candidates.shape
    per_row, probed = targets.shape[1], count - listed
    size = 1 << listed
    buffers = np.empty((2, size), np.int64)
    # One more at both ends, so that every look-up has a neighbour on either side.
    values = np.empty(size + 2, np.int32)
    index = np.empty(2 * size + 2, np.int32)
    probes = np.empty(1 << probed, np.int32)
    far = np.int32(2**31 - 1)
    for row in range(rows):
        entries = _sorted_list(candidates[row, probed:], buffers[0], buffers[1])
        for position in range(size):
            values[position + 1] = np.int32(entries[position] >> 16)
        lowest, highest = np.int64(values[1]), np.int64(values[size])
        shift = 0
        while ((highest - lowest) >> shift) >= 2 * size:
            shift += 1
        # index[b]: position of the first value at or above lowest + b * 2**shift.
        buckets = ((highest - lowest) >> shift) + 1
        index[: buckets + 1] = 0
        index[buckets] = size + 1
        for position in range(size, 0, -1):
            index[(values[position] - lowest) >> shift] = position
        for b in range(buckets - 1, -1, -1):
            index[b] = index[b] if index[b] else index[b + 1]
        probes[0] = 0
        for k in range(probed):
            for i in range(1 << k):
                probes[(1 << k) + i] = probes[i] + candidates[row, k]
        for t in range(per_row):
            target = np.int64(targets[row, t])
            best, best_probe, best_position, tie = np.int64(far), 0, 0, False
            for probe in range(1 << probed):
                rest = target - probes[probe]
                if rest <= lowest:
                    position = 1
                elif rest > highest:
                    position = size + 1
                else:
                    position = index[(rest - lowest) >> shift]
                    while values[position] < rest:
                        position += 1
                # values[position - 1] < rest <= values[position]
                if position <= size:
                    distance = values[position] - rest
                    if distance <= best:
                        tie = distance == best or (position < size and values[position + 1] == values[position])
                        best, best_probe, best_position = distance, probe, position
                if position > 1:
                    distance = rest - values[position - 1]
                    if distance <= best:
                        tie = distance == best or (position > 2 and values[position - 2] == values[position - 1])
                        best, best_probe, best_position = distance, probe, position - 1
            tied[row, t] = tie
            for k in range(probed):
                chosen[row, k, t] = best_probe >> k & 1
            for k in range(listed):
                chosen[row, probed + k, t] = entries[best_position - 1] >> k & 1
