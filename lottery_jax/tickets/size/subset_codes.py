"""Rows of a mask as subsets of their free places: a size, and the place among all subsets of that size.

Both together are a rank in the order (size, lexicographic): {} < {0} < {1} < ... < {0, 1} < {0, 2} < ... < {1, 2} < ...
So a search that takes the first subset that serves leaves small ranks, which are short to write. All are int64.

Counts of classes, and what they cost; and whole numbers as a class and a place within it, for any range.

A class is entropy coded, a place is not: all places of a class are taken for equally likely. The classes grow with the
numbers, as a floating point number has it: `fine` leading bits after the first one belong to the class, so that
numbers below 2**(fine + 1) are classes of their own.
"""

import dataclasses
import functools
import math

import numpy as np

from lottery_jax.io.tensor_file import FormatError

LIMIT = 1 << 62
"""Ranks are below this."""


@functools.lru_cache(maxsize=64)
def _table(width: int) -> tuple[np.ndarray, np.ndarray]:
    """C(n, k), and how many subsets of n places are smaller than k: [width + 1, K + 1] and one more column.

    K: the largest size up to which all ranks are below `LIMIT`.

    >>> _table(3)[1][3]
    array([0, 1, 4, 7, 8])
    """
    most, total = -1, 0
    while most < width and total + math.comb(width, most + 1) <= LIMIT:
        most += 1
        total += math.comb(width, most)
    ways = np.zeros((width + 1, most + 1), np.int64)
    ways[:, 0] = 1
    for n in range(1, width + 1):
        ways[n, 1:] = ways[n - 1, 1:] + ways[n - 1, :-1]
    return ways, np.concatenate([np.zeros((width + 1, 1), np.int64), np.cumsum(ways, 1)], 1)


@functools.lru_cache(maxsize=64)
def _bits_of_ways(width: int) -> np.ndarray:
    """log2 C(n, k), 0 where there is no such subset."""
    return np.log2(np.maximum(_table(width)[0], 1).astype(np.float64))


@dataclasses.dataclass(frozen=True, eq=False)
class Subsets:
    """Rows of `width` bits: of each the size of its subset and its place among those; `free`: places it has.

    sizes, places: int64 [R]; free: int64 [R], or one number for all rows.
    """

    width: int
    free: np.ndarray
    sizes: np.ndarray
    places: np.ndarray

    @property
    def ways(self) -> np.ndarray:
        """How many subsets each row could be, of its size."""
        return ways_of(self.width, self.free, self.sizes)

    @property
    def ranks(self) -> np.ndarray:
        """The ranks in the order (size, lexicographic)."""
        return _table(self.width)[1][self.free, self.sizes] + self.places

    @property
    def place_bits(self) -> float:
        """Bits of all places."""
        return float(_bits_of_ways(self.width)[self.free, self.sizes].sum())


def ways_of(width: int, free: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How many subsets of these sizes rows with so many free places have; raises `FormatError` where there is none."""
    ways = _table(width)[0]
    if len(sizes) and int(sizes.max()) >= ways.shape[1]:
        raise FormatError(f"the coded masks have a row that is no subset of its {width} weights")
    found = ways[free, sizes]
    if not found.all():
        raise FormatError("the coded masks have a row that keeps more weights than are free")
    return found


def free_in_rows(width: int, free: np.ndarray | None) -> np.ndarray:
    """Free places of each row, from bool [R * width]; one number where all are."""
    return np.array(width) if free is None else np.count_nonzero(free.reshape(-1, width), 1)


def subsets_of(bits: np.ndarray, width: int, free: np.ndarray | None = None) -> Subsets | None:
    """The subsets that rows are, from bits uint8 [R * width] of 0 and 1; None where one has no rank below `LIMIT`.

    free: bool [R * width], the places that are counted; what is at the others is left out.

    >>> subsets_of(np.array([[0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 1]], np.uint8).reshape(-1), 3).ranks
    array([0, 2, 4, 6])
    """
    ways, _ = _table(width)
    kept = np.flatnonzero(bits if free is None else bits & free)
    row = kept // width
    sizes = np.bincount(row, minlength=len(bits) // width)
    if int(sizes.max(initial=0)) >= ways.shape[1]:
        return None
    ends, many = np.cumsum(sizes), free_in_rows(width, free)
    if free is None:
        behind = (row + 1) * width - 1 - kept
    else:
        behind = np.cumsum(free, dtype=np.int32)[kept]  # free places up to here, counted from the first row
        behind = np.cumsum(many)[row] - behind
    # C(places behind, those still to come) for each kept one: how many subsets of the same size come after.
    after = ways[behind, ends[row] - np.arange(len(row))]
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(after)])  # may wrap around; differences do not
    return Subsets(width, many, sizes, ways[many, sizes] - 1 - (total[ends] - total[ends - sizes]))


def of_ranks(ranks: np.ndarray, width: int, free: np.ndarray) -> Subsets:
    """Subsets by their ranks, of rows with so many free places; raises `FormatError` for what is no rank.

    >>> of_ranks(np.array([0, 2, 6]), 3, np.array(3)).sizes
    array([0, 1, 2])
    """
    before = _table(width)[1]
    if len(ranks) and (ranks.min() < 0 or (ranks >= before[free, -1]).any()):
        raise FormatError(f"the coded masks have a row that is no subset of its {width} weights")
    if free.ndim == 0:
        sizes = np.searchsorted(before[width], ranks, "right") - 1
    else:
        sizes = np.zeros_like(ranks)
        for size in range(1, before.shape[1] - 1):
            sizes += ranks >= before[free, size]
        sizes = np.minimum(sizes, free)
    return Subsets(width, free, sizes, ranks - before[free, sizes])


def bits_of(subsets: Subsets, free: np.ndarray | None = None) -> np.ndarray:
    """Inverse of `subsets_of`: uint8 [R * width] of 0 and 1, 0 where nothing is free.

    >>> bits_of(of_ranks(np.array([4, 0]), 3, np.array(3)))
    array([1, 1, 0, 0, 0, 0], dtype=uint8)
    """
    width, sizes = subsets.width, subsets.sizes
    ways, bits, rows = _table(width)[0], np.zeros(len(sizes) * width, np.uint8), np.arange(len(sizes))
    places = None if free is None else np.flatnonzero(free)
    ends = (rows + 1) * width if free is None else np.cumsum(subsets.free)
    after = subsets.ways - 1 - subsets.places  # how many of the same size come after
    for left in range(int(sizes.max(initial=0)), 0, -1):
        active = rows[sizes >= left]
        behind = np.searchsorted(ways[:width, left], after[active], "right") - 1
        after[active] -= ways[behind, left]
        place = ends[active] - 1 - behind
        bits[place if places is None else places[place]] = 1
    return bits


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
