"""The entropy coder: asymmetric numeral systems of the `constriction` library (Bamler 2022, arXiv 2201.01741).

What is put in last comes out first, so that a writer puts in what it has in reverse.

How a mask and a list of redraws are coded: as which rows, and with which counts of which classes.
Which way each mask is coded: of few the shortest, by what it really costs, its own parameters among it.
"""

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np

from lottery_jax.environment import cores
from lottery_jax.io.tensor_file import FormatError, TensorReader
from lottery_jax.networks.network import Network
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS, RandomTensor
from lottery_jax.tickets.size.positions import (
    LEVELS,
    WORD,
    Bits,
    Places,
    Stretch,
    bits_in,
    mask_parts,
    names_in_order,
    redraws_in,
)
from lottery_jax.tickets.size.subset_codes import (
    Subsets,
    bits_of,
    cheapest,
    class_bits,
    class_of,
    first_of,
    free_in_rows,
    gamma_bits,
    of_ranks,
    place_bits,
    sizes_of,
    subsets_of,
    ways_of,
)

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


ROWS = ("own", "words")
"""A mask's own rows; or 32 of its free bits after another, for masks whose rows are too wide to be ranked."""


@dataclasses.dataclass(frozen=True)
class Code:
    """The rows of a mask, which of its places are free, the classes of its rows and how many rows each of them has.

    fine: leading bits of the classes of ranks; None where sizes of subsets are the classes, and then without counts
    where all sizes are taken for equally likely, which costs few rows least. redraws: how many blocks
    are of attempt 0, 1, ...; empty where nothing was drawn again. place_bits: what the places in the classes take,
    which only the writer knows.
    """

    rows: str
    level: str
    fine: int | None
    counts: np.ndarray
    redraws: np.ndarray
    place_bits: float = 0.0

    def width(self, drawn: RandomTensor) -> int:
        """Bits of a row."""
        return drawn.width if self.rows == "own" else WORD

    def most_classes(self, drawn: RandomTensor) -> int:
        """How many classes there can be."""
        return self.width(drawn) + 1 if self.fine is None else len(first_of(self.fine))

    def counted(self, drawn: RandomTensor) -> np.ndarray:
        """The counts that the coder is given."""
        return self.counts if len(self.counts) else np.ones(self.width(drawn) + 1, np.int64)

    @property
    def kind(self) -> tuple[int, int, int]:
        """How it is coded, as whole numbers from 0 up."""
        return ROWS.index(self.rows), LEVELS.index(self.level), 0 if self.fine is None else self.fine + 1

    def numbers(self) -> Iterator[int]:
        """All that a reader must know as whole numbers from 0 up."""
        yield from self.kind
        for counts in (self.counts, self.redraws):
            yield len(counts)
            yield from map(int, counts)

    @property
    def mask_bits(self) -> float:
        """What the mask takes."""
        return sum(map(gamma_bits, self.kind)) + class_bits(self.counts) + self.place_bits

    @property
    def redraw_bits(self) -> float:
        """What was drawn again takes."""
        return class_bits(self.redraws)

    def write(self, writer: Writer, drawn: RandomTensor, bits: np.ndarray, known: np.ndarray | None) -> None:
        """Put a part of a mask in. bits: uint8 [count]; known: what of them is, int8 [count]."""
        found = subsets_in(self.rows, drawn, bits, known)
        assert found is not None, "the way was taken for all rows"
        if self.fine is None:
            writer.put(found.sizes, self.counted(drawn), found.places, found.ways)
        else:
            classes = class_of(found.ranks, self.fine)
            places = found.ranks - first_of(self.fine)[classes]
            writer.put(classes, self.counts, places, sizes_of(self.fine)[classes])

    def read(self, reader: Reader, drawn: RandomTensor, part: Stretch, known: np.ndarray | None) -> np.ndarray:
        """Inverse of `write`: uint8 [count]."""
        free = None if known is None else known == 0
        if self.rows == "words":
            bits = part.count if free is None else int(np.count_nonzero(free))
            found = self._read(reader, drawn, -(-bits // WORD), _free_in_words(bits))[:bits]
        else:
            found = self._read(reader, drawn, part.count // drawn.width, free)
        if known is None or free is None:
            return found
        kept = (known == 1).astype(np.uint8)
        kept[free] = found if self.rows == "words" else found[free]
        return kept

    def _read(self, reader: Reader, drawn: RandomTensor, rows: int, free: np.ndarray | None) -> np.ndarray:
        """The bits of the next rows."""
        width = self.width(drawn)
        many, classes = free_in_rows(width, free), reader.classes(rows, self.counted(drawn))
        if self.fine is None:
            return bits_of(Subsets(width, many, classes, reader.places(ways_of(width, many, classes))), free)
        ranks = first_of(self.fine)[classes] + reader.places(sizes_of(self.fine)[classes])
        return bits_of(of_ranks(ranks, width, many), free)

    def write_redraws(self, writer: Writer, attempts: np.ndarray) -> None:
        """Put the attempts int64 [count] of some blocks in."""
        writer.put(attempts, self.redraws, np.zeros_like(attempts), np.ones_like(attempts))

    def read_redraws(self, reader: Reader, part: Stretch) -> np.ndarray:
        """Inverse of `write_redraws`."""
        return reader.classes(part.count, self.redraws)


def subsets_in(rows: str, drawn: RandomTensor, bits: np.ndarray, known: np.ndarray | None) -> Subsets | None:
    """A part of a mask as subsets; None where there are rows without a rank."""
    if rows == "own":
        return subsets_of(bits, drawn.width, None if known is None else known == 0)
    some = bits if known is None else bits[known == 0]
    return subsets_of(np.pad(some, (0, -len(some) % WORD)), WORD, _free_in_words(len(some)))


def _free_in_words(bits: int) -> np.ndarray | None:
    """Which places of whole words so many bits take; None where that is all."""
    return np.arange(bits + -bits % WORD) < bits if bits % WORD else None


_FINE = 5  # leading bits that are tried for ranks

_WORKERS = 4  # threads that count, each with a stretch in memory

_NONE = np.zeros(0, np.int64)


def codes_of(network: Network, seed: int, content: TensorReader) -> dict[str, Code]:
    """The code of each random tensor, in their order, from masks and redraws that are stored plainly."""
    redraws = {name: redraws_in(content, name) for name in network.random_tensors}
    bits = bits_in(content)
    places = Places(network, seed, redraws, bits)
    return {
        name: _code(network.random_tensors[name], name, places, bits, redraws[name]) for name in names_in_order(network)
    }


def coded_bits(network: Network, seed: int, content: TensorReader) -> tuple[float, float]:
    """Bits of all redraws, and of all masks, as they are coded: what the coder writes but for the ends of its words."""
    codes = codes_of(network, seed, content).values()
    return sum(code.redraw_bits for code in codes), sum(code.mask_bits for code in codes)


def _code(drawn: RandomTensor, name: str, places: Places, bits: Bits, redraws: np.ndarray) -> Code:
    """The shortest way to write a mask, among those of the narrowest level that is true of it."""
    again = _NONE
    if len(redraws):
        again = np.bincount(redraws[:, 1], minlength=2)
        again[0] = drawn.blocks - len(redraws)
        assert len(again) <= MAX_ATTEMPTS + 1
    for level in places.levels(name):
        ways = list(_ways(drawn, name, places, bits, level))
        if ways:
            found = [Code(rows, level, fine, counts, again, more) for rows, fine, counts, more in ways]
            return min(found, key=lambda code: code.mask_bits)
    raise AssertionError("words of all bits are always a way")


@dataclasses.dataclass(frozen=True, eq=False)
class _Tally:
    """How many rows of a stretch are of each class, by their ranks (None where some have none) and sizes, and words.

    size_bits, word_bits: what the places of subsets of these sizes take.
    """

    ranked: np.ndarray | None
    sizes: np.ndarray
    words: np.ndarray
    size_bits: float
    word_bits: float

    def plus(self, other: "_Tally") -> "_Tally":
        """Both stretches."""
        ranked = None if self.ranked is None or other.ranked is None else _sum(self.ranked, other.ranked)
        return _Tally(
            ranked,
            _sum(self.sizes, other.sizes),
            _sum(self.words, other.words),
            self.size_bits + other.size_bits,
            self.word_bits + other.word_bits,
        )


def _ways(
    drawn: RandomTensor, name: str, places: Places, bits: Bits, level: str
) -> Iterator[tuple[str, int | None, np.ndarray, float]]:
    """Rows, classes, their counts and bits of the places of each way; none where the level is not true of the mask.

    All of the mask is looked at once, a few stretches at a time.
    """

    def tally(part: Stretch) -> _Tally | None:
        return _tally(drawn, bits(part), places.known(part, level))

    first, *others = mask_parts(name, drawn)
    total = tally(first)  # most often this tells that a level is not true
    with concurrent.futures.ThreadPoolExecutor(min(cores(), _WORKERS)) as pool:
        for found in pool.map(tally, others if total is not None else ()):
            total = None if total is None or found is None else total.plus(found)
    if total is None:
        return
    yield "words", None, total.words, total.word_bits
    yield "words", None, _NONE, total.word_bits + int(total.words.sum()) * math.log2(WORD + 1)
    if total.ranked is not None:
        fine, counts = cheapest(total.ranked, _FINE)
        yield "own", fine, counts, place_bits(counts, fine)
        yield "own", None, total.sizes, total.size_bits
        yield "own", None, _NONE, total.size_bits + drawn.rows * math.log2(drawn.width + 1)


def _tally(drawn: RandomTensor, found: np.ndarray, known: np.ndarray | None) -> _Tally | None:
    """The counts of a stretch of bits uint8 [count]; None where it is not as it is known to be."""
    if known is not None and ((found < (known > 0)) | (found > (known >= 0))).any():
        return None
    words, word_bits = _words(found if known is None else found[known == 0])
    subsets = subsets_in("own", drawn, found, known)
    if subsets is None:
        return _Tally(None, _NONE, words, 0.0, word_bits)
    ranked = np.bincount(class_of(subsets.ranks, _FINE))
    return _Tally(ranked, np.bincount(subsets.sizes), words, subsets.place_bits, word_bits)


def _words(bits: np.ndarray) -> tuple[np.ndarray, float]:
    """How many words of 32 bits keep 0, 1, ... of them, and what their places take: `_subsets`, without the places."""
    packed = np.packbits(bits)
    sizes = np.bitwise_count(np.pad(packed, (0, -len(packed) % 4)).view(np.uint32)).astype(np.int64)
    if not len(sizes):
        return _NONE, 0.0
    free = np.full(len(sizes), WORD)
    free[-1] -= -len(bits) % WORD
    return np.bincount(sizes), Subsets(WORD, free, sizes, sizes).place_bits


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Counts of two parts."""
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    found = long.copy()
    found[: len(short)] += short
    return found
