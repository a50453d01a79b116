"""How each mask and each list of redraws is coded: as which rows, and with which counts of which classes.

Of few ways the shortest is taken, by what it really costs, its own parameters among it.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from lottery_jax.networks.network import Network
from lottery_jax.networks.sources.drawn import MOST_ATTEMPTS, Drawn
from lottery_jax.storage.store import Store
from lottery_jax.tickets.coding.classes import (
    cheapest,
    class_bits,
    class_of,
    first_of,
    gamma_bits,
    place_bits,
    sizes_of,
)
from lottery_jax.tickets.coding.order import WORD, Stretch, mask_parts, names_in_order
from lottery_jax.tickets.coding.places import LEVELS, Bits, Places, bits_in, redraws_in
from lottery_jax.tickets.coding.subsets import Subsets, bits_of, free_in_rows, of_ranks, subsets_of, ways_of
from lottery_jax.tickets.coding.symbols import Reader, Writer

ROWS = ("own", "words")
"""A mask's own rows; or 32 of its free bits after another, for masks whose rows are too wide to be ranked."""
_FINE = 5  # leading bits that are tried for ranks
_NONE = np.zeros(0, np.int64)


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

    def width(self, drawn: Drawn) -> int:
        """Bits of a row."""
        return drawn.width if self.rows == "own" else WORD

    def most_classes(self, drawn: Drawn) -> int:
        """How many classes there can be."""
        return self.width(drawn) + 1 if self.fine is None else len(first_of(self.fine))

    def counted(self, drawn: Drawn) -> np.ndarray:
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

    def write(self, writer: Writer, drawn: Drawn, bits: np.ndarray, known: np.ndarray | None) -> None:
        """Put a part of a mask in. bits: uint8 [count]; known: what of them is, int8 [count]."""
        found = _subsets(self.rows, drawn, bits, known)
        assert found is not None, "the way was taken for all rows"
        if self.fine is None:
            writer.put(found.sizes, self.counted(drawn), found.places, found.ways)
        else:
            classes = class_of(found.ranks, self.fine)
            places = found.ranks - first_of(self.fine)[classes]
            writer.put(classes, self.counts, places, sizes_of(self.fine)[classes])

    def read(self, reader: Reader, drawn: Drawn, part: Stretch, known: np.ndarray | None) -> np.ndarray:
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

    def _read(self, reader: Reader, drawn: Drawn, rows: int, free: np.ndarray | None) -> np.ndarray:
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


def _subsets(rows: str, drawn: Drawn, bits: np.ndarray, known: np.ndarray | None) -> Subsets | None:
    """A part of a mask as subsets; None where there are rows without a rank."""
    if rows == "own":
        return subsets_of(bits, drawn.width, None if known is None else known == 0)
    some = bits if known is None else bits[known == 0]
    return subsets_of(np.pad(some, (0, -len(some) % WORD)), WORD, _free_in_words(len(some)))


def _free_in_words(bits: int) -> np.ndarray | None:
    """Which places of whole words so many bits take; None where that is all."""
    return np.arange(bits + -bits % WORD) < bits if bits % WORD else None


def codes_of(network: Network, seed: int, content: Store) -> dict[str, Code]:
    """The code of each random tensor, in their order, from masks and redraws that are stored plainly."""
    redraws = {name: redraws_in(content, name) for name in network.drawn}
    bits = bits_in(content)
    places = Places(network, seed, redraws, bits)
    return {name: _code(network.drawn[name], name, places, bits, redraws[name]) for name in names_in_order(network)}


def coded_bits(network: Network, seed: int, content: Store) -> tuple[float, float]:
    """Bits of all redraws, and of all masks, as they are coded: what the coder writes but for the ends of its words."""
    codes = codes_of(network, seed, content).values()
    return sum(code.redraw_bits for code in codes), sum(code.mask_bits for code in codes)


def _code(drawn: Drawn, name: str, places: Places, bits: Bits, redraws: np.ndarray) -> Code:
    """The shortest way to write a mask, among those of the narrowest level that is true of it."""
    again = _NONE
    if len(redraws):
        again = np.bincount(redraws[:, 1], minlength=2)
        again[0] = drawn.blocks - len(redraws)
        assert len(again) <= MOST_ATTEMPTS + 1
    for level in places.levels(name):
        ways = list(_ways(drawn, name, places, bits, level))
        if ways:
            found = [Code(rows, level, fine, counts, again, more) for rows, fine, counts, more in ways]
            return min(found, key=lambda code: code.mask_bits)
    raise AssertionError("words of all bits are always a way")


def _ways(
    drawn: Drawn, name: str, places: Places, bits: Bits, level: str
) -> Iterator[tuple[str, int | None, np.ndarray, float]]:
    """Rows, classes, their counts and bits of the places of each way; none where the level is not true of the mask.

    All of the mask is looked at once.
    """
    ranked, sizes, words = _NONE, _NONE, _NONE
    size_bits, word_bits, own = 0.0, 0.0, True
    for part in mask_parts(name, drawn):
        found, known = bits(part), places.known(part, level)
        if known is not None and ((found < (known > 0)) | (found > (known >= 0))).any():
            return
        if own:
            subsets = _subsets("own", drawn, found, known)
            own = subsets is not None
            if subsets is not None:
                ranked = _sum(ranked, np.bincount(class_of(subsets.ranks, _FINE)))
                sizes, size_bits = _sum(sizes, np.bincount(subsets.sizes)), size_bits + subsets.place_bits
        some, some_bits = _words(found if known is None else found[known == 0])
        words, word_bits = _sum(words, some), word_bits + some_bits
    yield "words", None, words, word_bits
    yield "words", None, _NONE, word_bits + int(words.sum()) * math.log2(WORD + 1)
    if own:
        fine, counts = cheapest(ranked, _FINE)
        yield "own", fine, counts, place_bits(counts, fine)
        yield "own", None, sizes, size_bits
        yield "own", None, _NONE, size_bits + drawn.rows * math.log2(drawn.width + 1)


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
