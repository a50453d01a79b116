"""Which way each mask is coded: of few the shortest, by what it really costs, its own parameters among it."""

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from lottery_jax.cores import cores
from lottery_jax.networks.network import Network
from lottery_jax.networks.sources.drawn import MOST_ATTEMPTS, Drawn
from lottery_jax.storage.store import Store
from lottery_jax.tickets.coding.classes import cheapest, class_of, place_bits
from lottery_jax.tickets.coding.codes import Code, subsets_in
from lottery_jax.tickets.coding.order import WORD, Stretch, mask_parts, names_in_order
from lottery_jax.tickets.coding.places import Bits, Places, bits_in, redraws_in
from lottery_jax.tickets.coding.subsets import Subsets

_FINE = 5  # leading bits that are tried for ranks
_WORKERS = 4  # threads that count, each with a stretch in memory
_NONE = np.zeros(0, np.int64)


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
    drawn: Drawn, name: str, places: Places, bits: Bits, level: str
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


def _tally(drawn: Drawn, found: np.ndarray, known: np.ndarray | None) -> _Tally | None:
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
