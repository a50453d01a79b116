"""Differencing for ``Randomized`` compiled by Numba, bit-equal to ``algorithms.karmarkar_karp``.

The numbers of a problem are in a heap: each step removes the two largest and inserts their difference, which is usually
small, so it first sinks to the bottom and then rises. Of equal numbers the older one counts as the larger.
All functions are in one file, because Numba's disk cache does not notice changes in other files.
"""

import numpy as np
from numba import njit

from lottery_jax.subset_sum.kernels.closest_subset_cpu import meet_in_the_middle_on_cpu
from lottery_jax.subset_sum.kernels.numba_jit import compiled_by_numba

_ROUNDED_BITS = 28


def best_sides(numbers: np.ndarray, pairs: np.ndarray, left: int) -> np.ndarray:
    """The side of each number, bool [M, P], in the partition of least difference among several restarts.

    Numbers are non-negative int64 [M, P]; ``pairs``, int [R, 2], are the two rows that each restart differences first,
    -1 for the two largest. The exact search takes over when ``left`` + 1 numbers remain.

    >>> numbers = np.array([[9, 5, 4, 3, 3, 3, 2, 2, 1, 1, 1, 1, 1]]).T
    >>> side = best_sides(numbers, np.array([[-1, -1]]), 12)
    >>> int(numbers[side].sum()), int(numbers[~side].sum())
    (18, 18)
    """
    rows = np.ascontiguousarray(numbers.T)
    problems, count = rows.shape
    steps, remaining = max(count - left - 1, 0), min(left + 1, count)
    larger, smaller = (np.empty((problems, steps), np.int32) for _ in range(2))
    names = np.empty((problems, remaining), np.int32)
    doubled, targets = np.empty((remaining - 1, problems), np.int32), np.empty(problems, np.int32)
    best, side = np.full(problems, np.iinfo(np.int64).max), np.zeros(rows.shape, bool)
    for first, second in pairs.tolist():
        _search(rows, first, second, larger, smaller, names, doubled, targets)
        _take_better(rows, larger, smaller, names, meet_in_the_middle_on_cpu(doubled, targets), best, side)
    return side.T


@njit(inline="always")
def _before(value, name, other, other_name):
    return value > other or (value == other and name < other_name)


@compiled_by_numba
def _sink(values, names, count, hole, value, name):
    """Insert a number into a heap of ``count`` at the free position ``hole``, whose descendants are in order."""
    top, child = hole, 2 * hole + 1
    while child + 1 < count:
        child += 1 if _before(values[child + 1], names[child + 1], values[child], names[child]) else 0
        values[hole], names[hole] = values[child], names[child]
        hole, child = child, 2 * child + 1
    if child < count:
        values[hole], names[hole] = values[child], names[child]
        hole = child
    while hole > top:
        parent = (hole - 1) >> 1
        if _before(values[parent], names[parent], value, name):
            break
        values[hole], names[hole] = values[parent], names[parent]
        hole = parent
    values[hole], names[hole] = value, name


@compiled_by_numba
def _search(rows, first, second, larger, smaller, left_names, doubled, targets):
    """Difference each row; the remaining numbers become doubled candidates and targets of an exact search."""
    problems, numbers = rows.shape
    steps, left = larger.shape[1], left_names.shape[1]
    values, names = np.empty(numbers, np.int64), np.empty(numbers, np.int64)
    for p in range(problems):
        count, done = 0, 0
        paired = steps > 0 and first >= 0
        for k in range(numbers):
            if not paired or (k != first and k != second):
                values[count], names[count] = rows[p, k], k
                count += 1
        if paired:
            swap = rows[p, second] > rows[p, first]
            larger[p, 0], smaller[p, 0] = (second, first) if swap else (first, second)
            values[count], names[count] = abs(rows[p, first] - rows[p, second]), numbers
            count, done = count + 1, 1
        for hole in range(count // 2 - 1, -1, -1):
            _sink(values, names, count, hole, values[hole], names[hole])
        for step in range(done, steps):
            value, larger[p, step] = values[0], names[0]
            count -= 1
            _sink(values, names, count, 0, values[count], names[count])
            smaller[p, step] = names[0]
            _sink(values, names, count, 0, value - values[0], numbers + step)
        total = np.int64(0)
        for k in range(left):
            total += values[k]
        bits, rest = 0, total + (total >> 20)
        while rest:
            bits, rest = bits + 1, rest >> 1
        shift = max(bits - _ROUNDED_BITS, 0)
        half, others, largest = (np.int64(1) << shift) >> 1, np.int64(0), np.int64(0)
        for k in range(left):
            rounded = (values[0] + half) >> shift
            left_names[p, k] = names[0]
            if k == 0:
                largest = rounded
            else:
                doubled[k - 1, p] = 2 * rounded
                others += rounded
            count -= 1
            _sink(values, names, count, 0, values[count], names[count])
        targets[p] = others - largest


@compiled_by_numba
def _take_better(rows, larger, smaller, left_names, chosen, best, side):
    """Extend the sides of the remaining numbers to all; keep them if their difference is below the best so far."""
    problems, numbers = rows.shape
    steps, left = larger.shape[1], left_names.shape[1]
    sign = np.empty(numbers + steps, np.int64)
    for p in range(problems):
        sign[left_names[p, 0]] = 1
        for k in range(1, left):
            sign[left_names[p, k]] = 1 if chosen[k - 1, p] else -1
        for step in range(steps - 1, -1, -1):
            sign[larger[p, step]] = sign[numbers + step]
            sign[smaller[p, step]] = -sign[numbers + step]
        total = np.int64(0)
        for k in range(numbers):
            total += sign[k] * rows[p, k]
        if abs(total) < best[p]:
            best[p] = abs(total)
            for k in range(numbers):
                side[p, k] = sign[k] > 0
