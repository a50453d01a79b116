"""The best subset of a few candidates by size, compiled by Numba, bit-equal to ``algorithms.by_size``.

Problems are solved one after the other. The sums of a problem, listed by size, stay in the first-level cache, and the
loop over the longer of two lists takes three vector instructions for eight pairs (subtract, absolute value, minimum).
A problem stops at the first size with a subset within the tolerance; the pair is searched once its distance is known.
All functions are in one file, because Numba's disk cache does not notice changes in other files.
"""

import math

import numpy as np

from lottery_jax.subset_sum.algorithms.pairs import masks_of_size
from lottery_jax.subset_sum.kernels.numba_jit import compiled_by_numba


def first_within(
    candidates: np.ndarray, targets: np.ndarray, tolerance: np.ndarray, sizes: tuple[int, ...]
) -> np.ndarray:
    """The best subset of the first of ``sizes`` within the tolerance, else of the last size: bool [N, P].

    Candidates are integers [N, P], targets and tolerance [P]; sizes ascend to at most N / 2.

    >>> candidates = np.array([[1], [5], [9], [20]], np.int32)
    >>> first_within(candidates, np.array([14], np.int32), np.array([0], np.int32), (1, 2))[:, 0]
    array([False,  True,  True, False])
    """
    count, problems = candidates.shape
    rows = count // 2, count - count // 2
    all_sizes = range(sizes[-1] + 1)
    # Number of subsets of `size` of the first `row` candidates, and where each size begins in a list.
    before = np.array([[math.comb(row, size) for size in all_sizes] for row in range(rows[1] + 1)])
    starts = np.array([[0, *np.cumsum(before[half])] for half in rows])
    left, right = (np.concatenate([masks_of_size(half, size) for size in all_sizes]) for half in rows)
    chosen = np.zeros((problems, count), bool)
    values = np.ascontiguousarray(candidates.T)
    _search(values, targets, tolerance, np.array(sizes), before, starts, left, right, chosen)
    return chosen.T


@compiled_by_numba
def _append(a, size, before, starts, sums):
    """Append the sums of all subsets of ``size`` of ``a``, ordered by their last member."""
    position, shorter = starts[size], starts[size - 1]
    for row in range(len(a)):
        for t in range(before[row, size - 1]):
            sums[position + t] = sums[shorter + t] + a[row]
        position += before[row, size - 1]


@compiled_by_numba
def _least(values, rest, least):
    """The least |rest - value|, or `least` if that is less."""
    number = values.dtype.type
    for j in range(len(values)):
        least = min(least, number(abs(number(rest - values[j]))))
    return least


@compiled_by_numba
def _position(values, rest, least):
    """The first position where |rest - value| equals ``least``, which occurs."""
    position = 0
    while abs(rest - values[position]) != least:
        position += 1
    return position


@compiled_by_numba
def _pair(left, right, target, least):
    """The first y of ``right``, and for it the first x of ``left``, with |target - x - y| = least, which occurs."""
    number = left.dtype.type
    more = number(least + 1)
    if len(left) > len(right):
        for j in range(len(right)):
            rest = number(target - right[j])
            if _least(left, rest, more) == least:
                return _position(left, rest, least), j
    first = len(right)
    for i in range(len(left)):
        rest = number(target - left[i])
        if _least(right, rest, more) == least:
            first = min(first, _position(right, rest, least))
    return _position(left, number(target - right[first]), least), first


@compiled_by_numba
def _search(candidates, targets, tolerance, sizes, before, starts, left_masks, right_masks, chosen):
    problems, count = candidates.shape
    half = count // 2
    left, right = np.zeros(len(left_masks), candidates.dtype), np.zeros(len(right_masks), candidates.dtype)
    number = candidates.dtype.type
    for p in range(problems):
        target, least, size, block, listed = targets[p], number(0), 0, 0, 0
        for size in sizes:
            while listed < size:
                listed += 1
                _append(candidates[p, :half], listed, before, starts[0], left)
                _append(candidates[p, half:], listed, before, starts[1], right)
            least = number(np.iinfo(candidates.dtype).max)
            for i in range(size + 1):
                x = left[starts[0, i] : starts[0, i + 1]]
                y = right[starts[1, size - i] : starts[1, size - i + 1]]
                few, many = (x, y) if len(x) < len(y) else (y, x)
                nearest = least
                for position in range(len(few)):
                    nearest = _least(many, number(target - few[position]), nearest)
                if nearest < least:
                    least, block = nearest, i
            if least <= tolerance[p]:
                break
        first, second = starts[0, block], starts[1, size - block]
        x, y = left[first : starts[0, block + 1]], right[second : starts[1, size - block + 1]]
        at, partner = _pair(x, y, target, least)
        low, high = left_masks[first + at], right_masks[second + partner]
        for k in range(half):
            chosen[p, k] = low >> k & 1
        for k in range(count - half):
            chosen[p, half + k] = high >> k & 1
