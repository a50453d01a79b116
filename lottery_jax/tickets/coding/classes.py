"""Counts of classes, and what they cost; and whole numbers as a class and a place within it, for any range.

A class is entropy coded, a place is not: all places of a class are taken for equally likely. The classes grow with the
numbers, as a floating point number has it: `fine` leading bits after the first one belong to the class, so that
numbers below 2**(fine + 1) are classes of their own.
"""

import functools

import numpy as np

from lottery_jax.tickets.coding.subsets import LIMIT

MOST_FINE = 10


@functools.lru_cache(maxsize=MOST_FINE + 1)
def first_of(fine: int) -> np.ndarray:
    """The first number of each class, int64.

    >>> first_of(1)[:9]
    array([ 0,  1,  2,  3,  4,  6,  8, 12, 16])
    """
    # Of numbers with e more bits after the first one, classes begin at all leading bits.
    leading = np.arange(1 << fine, 2 << fine, dtype=np.int64)
    grown = [leading << e for e in range(LIMIT.bit_length() - 1 - fine)]
    return np.concatenate([np.arange(1 << fine, dtype=np.int64), *grown])


@functools.lru_cache(maxsize=MOST_FINE + 1)
def sizes_of(fine: int) -> np.ndarray:
    """How many numbers each class has, int64."""
    return np.diff(first_of(fine), append=LIMIT)


def class_of(numbers: np.ndarray, fine: int) -> np.ndarray:
    """The class of each number."""
    return np.searchsorted(first_of(fine), numbers, "right") - 1


def coarser(counts: np.ndarray, fine: int, less: int) -> np.ndarray:
    """Counts of classes with `less` leading bits from those with `fine`.

    >>> coarser(np.array([5, 1, 2, 3, 1, 1]), 1, 0)
    array([5, 1, 5, 2])
    """
    own = class_of(first_of(fine)[: len(counts)], less)
    return np.bincount(own, counts).astype(np.int64) if len(counts) else counts


def cheapest(counts: np.ndarray, fine: int) -> tuple[int, np.ndarray]:
    """The number of leading bits, at most `fine`, with which numbers are shortest, and the counts of its classes.

    counts: of the classes with `fine` leading bits.
    """
    tried = [(less, coarser(counts, fine, less)) for less in range(fine + 1)]
    return min(tried, key=lambda one: number_bits(one[1], one[0]))


def number_bits(counts: np.ndarray, fine: int) -> float:
    """What numbers take whose classes have these counts."""
    return class_bits(counts) + place_bits(counts, fine)


def place_bits(counts: np.ndarray, fine: int) -> float:
    """What the places of numbers in their classes take."""
    return float(counts @ np.log2(sizes_of(fine)[: len(counts)].astype(np.float64)))


def class_bits(counts: np.ndarray) -> float:
    """What classes of these counts take, and the counts themselves.

    >>> class_bits(np.array([2, 2]))  # 4 of entropy, 3 + 3 + 3
    13.0
    """
    used = counts[counts > 0].astype(np.float64)
    entropy = float(used @ (np.log2(used.sum()) - np.log2(used))) if len(used) else 0.0
    lengths = np.frexp((counts + 1).astype(np.float64))[1]  # counts are far below 2**53
    return entropy + gamma_bits(len(counts)) + int((2 * lengths - 1).sum())


def gamma_bits(number: int) -> int:
    """Bits of a number from 0 up, as Elias's gamma code has the next one.

    >>> [gamma_bits(number) for number in (0, 1, 2, 3)]
    [1, 3, 3, 5]
    """
    return 2 * (number + 1).bit_length() - 1
