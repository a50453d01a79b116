"""How a mask and a list of redraws are coded: as which rows, and with which counts of which classes."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from lottery_jax.networks.sources.drawn import Drawn
from lottery_jax.tickets.coding.classes import (
    class_bits,
    class_of,
    first_of,
    gamma_bits,
    sizes_of,
)
from lottery_jax.tickets.coding.order import WORD, Stretch
from lottery_jax.tickets.coding.places import LEVELS
from lottery_jax.tickets.coding.subsets import Subsets, bits_of, free_in_rows, of_ranks, subsets_of, ways_of
from lottery_jax.tickets.coding.symbols import Reader, Writer

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
        found = subsets_in(self.rows, drawn, bits, known)
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


def subsets_in(rows: str, drawn: Drawn, bits: np.ndarray, known: np.ndarray | None) -> Subsets | None:
    """A part of a mask as subsets; None where there are rows without a rank."""
    if rows == "own":
        return subsets_of(bits, drawn.width, None if known is None else known == 0)
    some = bits if known is None else bits[known == 0]
    return subsets_of(np.pad(some, (0, -len(some) % WORD)), WORD, _free_in_words(len(some)))


def _free_in_words(bits: int) -> np.ndarray | None:
    """Which places of whole words so many bits take; None where that is all."""
    return np.arange(bits + -bits % WORD) < bits if bits % WORD else None
