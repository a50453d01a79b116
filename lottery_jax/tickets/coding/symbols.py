"""The entropy coder: asymmetric numeral systems of the `constriction` library (Bamler 2022, arXiv 2201.01741).

What is put in last comes out first, so that a writer puts in what it has in reverse.
"""

from typing import Any

import constriction
import numpy as np

from lottery_jax.storage.tensor_file import FormatError

_library: Any = constriction  # it tells type checkers nothing of its parts
_model, _stack = _library.stream.model, _library.stream.stack
_PIECE = 15  # bits of a place that are coded at once; the coder's probabilities have 24
_POWERS = np.int64(1) << np.arange(63)


class Writer:
    """Takes classes and places, the last ones first; `words` is what it has."""

    def __init__(self) -> None:
        self._coder = _stack.AnsCoder()

    def put(self, classes: np.ndarray, counts: np.ndarray, places: np.ndarray, sizes: np.ndarray) -> None:
        """Add classes int64 [R], and places int64 [R] below sizes int64 [R], before what is there.

        counts: of each class, among these and others.
        """
        for shift, allowed, some in reversed(_pieces(sizes)):
            piece = (places[some] >> shift[some]) % allowed
            self._coder.encode_reverse(piece.astype(np.int32), _model.Uniform(), allowed)
        if (known := _distribution(counts)) is not None:
            self._coder.encode_reverse(classes.astype(np.int32), known)

    @property
    def words(self) -> np.ndarray:
        """uint32 [W]."""
        return self._coder.get_compressed()


class Reader:
    """Gives classes and places back, the first ones first; raises `FormatError` for words that no `Writer` made."""

    def __init__(self, words: np.ndarray) -> None:
        try:
            self._coder = _stack.AnsCoder(words)
        except ValueError as error:
            raise FormatError("the coded masks do not end as the coder ends") from error

    def classes(self, count: int, counts: np.ndarray) -> np.ndarray:
        """The next classes int64 [count]."""
        if count and not counts.any():
            raise FormatError("the coded masks have rows without classes")
        known = _distribution(counts)
        if known is None:
            return np.full(count, len(counts) - 1, np.int64)
        return self._coder.decode(known, count).astype(np.int64)

    def places(self, sizes: np.ndarray) -> np.ndarray:
        """The places int64 [R] below sizes int64 [R] that belong to the classes that were read last."""
        found = np.zeros(len(sizes), np.int64)
        for shift, allowed, some in _pieces(sizes):
            found[some] |= self._coder.decode(_model.Uniform(), allowed).astype(np.int64) << shift[some]
        if (found >= sizes).any():
            raise FormatError("the coded masks have a place beyond its class")
        return found

    def finish(self) -> None:
        """Refuse words that are left."""
        if not self._coder.is_empty():
            raise FormatError("the coded masks do not end where their rows do")


def _distribution(counts: np.ndarray) -> Any:
    """Of classes; None where there is but one."""
    if np.count_nonzero(counts) < 2:
        return None
    return _model.Categorical(counts / counts.sum(), perfect=False)


def _pieces(sizes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """How places below `sizes` [R] are cut, the leading bits first: shifts [R], numbers of pieces int32, and whose.

    Only the leading piece is of a number that is no power of two.
    """
    found, top = [], sizes - 1
    shift = np.maximum(np.searchsorted(_POWERS, top, "right") - _PIECE, 0)
    some, allowed = np.flatnonzero(top > 0), (top >> shift) + 1
    while len(some):
        found.append((shift, allowed[some].astype(np.int32), some))
        some = np.flatnonzero(shift > 0)
        before, shift = shift, np.maximum(shift - _PIECE, 0)
        allowed = np.int64(1) << (before - shift)
    return found
