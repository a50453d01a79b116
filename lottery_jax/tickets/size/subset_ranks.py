"""Rows of a mask as subsets of their free entries, ranked in the combinatorial number system (int64).

Ranks are in the order (size, lexicographic): {} < {0} < {1} < ... < {0, 1} < {0, 2} < ... < {1, 2} < ...
"""

import dataclasses
import functools
import math

import numpy as np

from lottery_jax.io.tensor_file import FormatError
from lottery_jax.tickets.size.entropy_coder import LIMIT


@functools.lru_cache(maxsize=64)
def _binomials(width: int) -> tuple[np.ndarray, np.ndarray]:
    """C(n, k), and how many subsets of n entries are smaller than k: [width + 1, K + 1] and one more column.

    K: the largest size up to which all ranks are below `LIMIT`.

    >>> _binomials(3)[1][3]
    array([0, 1, 4, 7, 8])
    """
    largest, total = -1, 0
    while largest < width and total + math.comb(width, largest + 1) <= LIMIT:
        largest += 1
        total += math.comb(width, largest)
    binomials = np.zeros((width + 1, largest + 1), np.int64)
    binomials[:, 0] = 1
    for n in range(1, width + 1):
        binomials[n, 1:] = binomials[n - 1, 1:] + binomials[n - 1, :-1]
    return binomials, np.concatenate([np.zeros((width + 1, 1), np.int64), np.cumsum(binomials, 1)], 1)


@functools.lru_cache(maxsize=64)
def _log2_binomials(width: int) -> np.ndarray:
    """log2 C(n, k), 0 if there is no such subset."""
    return np.log2(np.maximum(_binomials(width)[0], 1).astype(np.float64))


@dataclasses.dataclass(frozen=True, eq=False)
class Subsets:
    """R subsets of rows of `width` bits: sizes, and lexicographic indices among the subsets of a size, int64 [R].

    `free_counts`: number of free entries of each row, int64 [R], or one number for all rows.
    """

    width: int
    free_counts: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray

    @property
    def same_size_counts(self) -> np.ndarray:
        """Number of subsets of each row's size."""
        return count_subsets(self.width, self.free_counts, self.sizes)

    @property
    def ranks(self) -> np.ndarray:
        """Ranks in the order (size, lexicographic)."""
        return _binomials(self.width)[1][self.free_counts, self.sizes] + self.indices

    @property
    def index_bits(self) -> float:
        """Bits of all indices."""
        return float(_log2_binomials(self.width)[self.free_counts, self.sizes].sum())


def count_subsets(width: int, free_counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Number of subsets of these sizes; raises `FormatError` if a row has none."""
    binomials = _binomials(width)[0]
    if len(sizes) and int(sizes.max()) >= binomials.shape[1]:
        raise FormatError(f"the coded masks have a row that is no subset of its {width} weights")
    counts = binomials[free_counts, sizes]
    if not counts.all():
        raise FormatError("the coded masks have a row that keeps more weights than are free")
    return counts


def count_free(width: int, free: np.ndarray | None) -> np.ndarray:
    """Number of free entries of each row, from bool [R * width]; one number if all are free."""
    return np.array(width) if free is None else np.count_nonzero(free.reshape(-1, width), 1)


def bits_to_subsets(bits: np.ndarray, width: int, free: np.ndarray | None = None) -> Subsets | None:
    """Rows as subsets, from bits uint8 [R * width] of 0 and 1; None if one of them has no rank below `LIMIT`.

    >>> bits_to_subsets(np.array([[0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 1]], np.uint8).reshape(-1), 3).ranks
    array([0, 2, 4, 6])
    """
    binomials, _ = _binomials(width)
    kept = np.flatnonzero(bits if free is None else bits & free)
    row = kept // width
    sizes = np.bincount(row, minlength=len(bits) // width)
    if int(sizes.max(initial=0)) >= binomials.shape[1]:
        return None
    ends, free_counts = np.cumsum(sizes), count_free(width, free)
    if free is None:
        later = (row + 1) * width - 1 - kept
    else:
        later = np.cumsum(free, dtype=np.int32)[kept]  # free entries up to here, counted from the first row
        later = np.cumsum(free_counts)[row] - later
    # C(later free entries, remaining size) for each kept one: how many subsets of the same size come after.
    after = binomials[later, ends[row] - np.arange(len(row))]
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(after)])  # may wrap around; differences do not
    return Subsets(width, free_counts, sizes, binomials[free_counts, sizes] - 1 - (total[ends] - total[ends - sizes]))


def ranks_to_subsets(ranks: np.ndarray, width: int, free_counts: np.ndarray) -> Subsets:
    """Subsets by their ranks; raises `FormatError` for a rank that is too large.

    >>> ranks_to_subsets(np.array([0, 2, 6]), 3, np.array(3)).sizes
    array([0, 1, 2])
    """
    smaller = _binomials(width)[1]
    if len(ranks) and (ranks.min() < 0 or (ranks >= smaller[free_counts, -1]).any()):
        raise FormatError(f"the coded masks have a row that is no subset of its {width} weights")
    if free_counts.ndim == 0:
        sizes = np.searchsorted(smaller[width], ranks, "right") - 1
    else:
        sizes = np.zeros_like(ranks)
        for size in range(1, smaller.shape[1] - 1):
            sizes += ranks >= smaller[free_counts, size]
        sizes = np.minimum(sizes, free_counts)
    return Subsets(width, free_counts, sizes, ranks - smaller[free_counts, sizes])


def subsets_to_bits(subsets: Subsets, free: np.ndarray | None = None) -> np.ndarray:
    """Inverse of `bits_to_subsets`: uint8 [R * width] of 0 and 1, 0 for entries that are not free.

    >>> subsets_to_bits(ranks_to_subsets(np.array([4, 0]), 3, np.array(3)))
    array([1, 1, 0, 0, 0, 0], dtype=uint8)
    """
    width, sizes = subsets.width, subsets.sizes
    binomials, bits, rows = _binomials(width)[0], np.zeros(len(sizes) * width, np.uint8), np.arange(len(sizes))
    entries = None if free is None else np.flatnonzero(free)
    ends = (rows + 1) * width if free is None else np.cumsum(subsets.free_counts)
    after = subsets.same_size_counts - 1 - subsets.indices  # how many of the same size come after
    for remaining in range(int(sizes.max(initial=0)), 0, -1):
        active = rows[sizes >= remaining]
        later = np.searchsorted(binomials[:width, remaining], after[active], "right") - 1
        after[active] -= binomials[later, remaining]
        entry = ends[active] - 1 - later
        bits[entry if entries is None else entries[entry]] = 1
    return bits
