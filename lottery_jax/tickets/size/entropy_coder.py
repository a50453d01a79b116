"""Entropy coding of whole numbers: a class by its frequency, then the offset in the class, uniform.

The leading bit of a number and the ``mantissa_bits`` after it make its class. The coder is asymmetric numeral systems
(ANS) of ``constriction`` (Bamler 2022, arXiv 2201.01741): what is encoded last is decoded first.
"""

import functools
from typing import Any

import constriction
import numpy as np

from lottery_jax.io.tensor_file import FormatError

LIMIT = 1 << 62
"""Numbers are below this."""

MAX_MANTISSA_BITS = 10

_PIECE_BITS = 15  # of an offset that are coded at once; probabilities of the coder have 24
_library: Any = constriction  # its submodules have no type stubs
_model, _stack = _library.stream.model, _library.stream.stack
_POWERS = np.int64(1) << np.arange(63)


class AnsEncoder:
    """A stack of classes and offsets, as `words`."""

    def __init__(self) -> None:
        self._coder = _stack.AnsCoder()

    def encode(self, classes: np.ndarray, counts: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Encode classes int64 [R] and offsets int64 [R] below sizes int64 [R]; counts: frequency of each class."""
        for shift, radix, index in reversed(_pieces(sizes)):
            piece = (offsets[index] >> shift[index]) % radix
            self._coder.encode_reverse(piece.astype(np.int32), _model.Uniform(), radix)
        if (model := _categorical(counts)) is not None:
            self._coder.encode_reverse(classes.astype(np.int32), model)

    @property
    def words(self) -> np.ndarray:
        """uint32 [W]."""
        return self._coder.get_compressed()


class AnsDecoder:
    """Inverse of `AnsEncoder`; raises `FormatError` for words that no encoder wrote."""

    def __init__(self, words: np.ndarray) -> None:
        try:
            self._coder = _stack.AnsCoder(words)
        except ValueError as error:
            raise FormatError("the coded masks do not end as the coder ends") from error

    def decode_classes(self, count: int, counts: np.ndarray) -> np.ndarray:
        """The next classes int64 [count]."""
        if count and not counts.any():
            raise FormatError("the coded masks have rows without classes")
        model = _categorical(counts)
        if model is None:
            return np.full(count, len(counts) - 1, np.int64)
        return self._coder.decode(model, count).astype(np.int64)

    def decode_offsets(self, sizes: np.ndarray) -> np.ndarray:
        """Offsets int64 [R], below sizes int64 [R], of the classes that were decoded last."""
        offsets = np.zeros(len(sizes), np.int64)
        for shift, radix, index in _pieces(sizes):
            offsets[index] |= self._coder.decode(_model.Uniform(), radix).astype(np.int64) << shift[index]
        if (offsets >= sizes).any():
            raise FormatError("the coded masks have an offset beyond its class")
        return offsets

    def finish(self) -> None:
        """Refuse remaining words."""
        if not self._coder.is_empty():
            raise FormatError("the coded masks do not end where their rows do")


def _categorical(counts: np.ndarray) -> Any:
    """The model of classes; None for a single one, which needs no bits."""
    if np.count_nonzero(counts) < 2:
        return None
    return _model.Categorical(counts / counts.sum(), perfect=False)


def _pieces(sizes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """How offsets below sizes [R] are split, leading bits first: shifts [R], radices int32 [P], their indices [P].

    Only the leading piece has a radix that is not a power of two.
    """
    found, top = [], sizes - 1
    shift = np.maximum(np.searchsorted(_POWERS, top, "right") - _PIECE_BITS, 0)
    index, radix = np.flatnonzero(top > 0), (top >> shift) + 1
    while len(index):
        found.append((shift, radix[index].astype(np.int32), index))
        index = np.flatnonzero(shift > 0)
        before, shift = shift, np.maximum(shift - _PIECE_BITS, 0)
        radix = np.int64(1) << (before - shift)
    return found


@functools.lru_cache(maxsize=MAX_MANTISSA_BITS + 1)
def class_starts(mantissa_bits: int) -> np.ndarray:
    """The first number of each class, int64.

    >>> class_starts(1)[:9]
    array([ 0,  1,  2,  3,  4,  6,  8, 12, 16])
    """
    small, leading = np.split(np.arange(2 << mantissa_bits, dtype=np.int64), 2)
    larger = leading << np.arange(LIMIT.bit_length() - 1 - mantissa_bits)[:, None]
    return np.concatenate([small, larger.reshape(-1)])


@functools.lru_cache(maxsize=MAX_MANTISSA_BITS + 1)
def class_sizes(mantissa_bits: int) -> np.ndarray:
    """How many numbers each class has, int64."""
    return np.diff(class_starts(mantissa_bits), append=LIMIT)


def classes_of(numbers: np.ndarray, mantissa_bits: int) -> np.ndarray:
    """The class of each number."""
    return np.searchsorted(class_starts(mantissa_bits), numbers, "right") - 1


def coarsen(counts: np.ndarray, mantissa_bits: int, fewer: int) -> np.ndarray:
    """Counts of classes with `fewer` mantissa bits from counts of those with `mantissa_bits`.

    >>> coarsen(np.array([5, 1, 2, 3, 1, 1]), 1, 0)
    array([5, 1, 5, 2])
    """
    coarse = classes_of(class_starts(mantissa_bits)[: len(counts)], fewer)
    return np.bincount(coarse, counts).astype(np.int64) if len(counts) else counts


def best_mantissa_bits(counts: np.ndarray, mantissa_bits: int) -> tuple[int, np.ndarray]:
    """The mantissa bits, at most `mantissa_bits` (those of `counts`), of the shortest code, and their counts."""
    best, least = (0, counts), np.inf
    for fewer in range(mantissa_bits + 1):
        coarse = coarsen(counts, mantissa_bits, fewer)
        if (bits := number_bits(coarse, fewer)) < least:
            best, least = (fewer, coarse), bits
    return best


def number_bits(counts: np.ndarray, mantissa_bits: int) -> float:
    """Bits of all numbers with these class counts."""
    return class_bits(counts) + offset_bits(counts, mantissa_bits)


def offset_bits(counts: np.ndarray, mantissa_bits: int) -> float:
    """Bits of the offsets alone."""
    return float(counts @ np.log2(class_sizes(mantissa_bits)[: len(counts)].astype(np.float64)))


def class_bits(counts: np.ndarray) -> float:
    """Bits of the classes alone: their entropy, and the counts themselves in Elias's gamma code.

    >>> class_bits(np.array([2, 2]))  # 4 of entropy, 3 + 3 + 3
    13.0
    """
    used = counts[counts > 0].astype(np.float64)
    entropy = float(used @ (np.log2(used.sum()) - np.log2(used))) if len(used) else 0.0
    lengths = np.frexp((counts + 1).astype(np.float64))[1]  # counts are far below 2**53
    return entropy + gamma_bits(len(counts)) + int((2 * lengths - 1).sum())


def gamma_bits(number: int) -> int:
    """Bits of a number from 0 up as Elias's gamma code of number + 1.

    >>> [gamma_bits(number) for number in (0, 1, 2, 3)]
    [1, 3, 3, 5]
    """
    return 2 * (number + 1).bit_length() - 1
