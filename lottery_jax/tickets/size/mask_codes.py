"""The code of each mask and of its redraws: which rows are symbols, in which classes, and how frequent those are."""

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from lottery_jax.environment import cores
from lottery_jax.io.tensor_file import TensorReader
from lottery_jax.networks.network import Network
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS, RandomTensor
from lottery_jax.tickets.size.conditioning import (
    LEVELS,
    WORD,
    Conditioning,
    ReadBits,
    Span,
    coding_order,
    mask_reader,
    mask_spans,
    read_redraws,
)
from lottery_jax.tickets.size.entropy_coder import (
    AnsDecoder,
    AnsEncoder,
    best_mantissa_bits,
    class_bits,
    class_sizes,
    class_starts,
    classes_of,
    gamma_bits,
    offset_bits,
)
from lottery_jax.tickets.size.subset_ranks import (
    Subsets,
    bits_to_subsets,
    count_free,
    count_subsets,
    ranks_to_subsets,
    subsets_to_bits,
)

ROWS = ("own", "words")
"""A symbol is a row of the mask; or a word of 32 coded bits, for masks whose rows are too wide to be ranked."""


@dataclasses.dataclass(frozen=True)
class MaskCode:
    """The code of a mask and its redraws.

    Attributes:
        rows: One of `ROWS`; `level`: one of `LEVELS`.
        mantissa_bits: Of the classes of ranks; None if a class is the size of a subset.
        counts: Number of rows by class; empty if all sizes are equally likely, which is cheapest for few rows.
        attempt_counts: Number of blocks by attempt; empty if no block was redrawn.
        offset_bits: Bits of the offsets in the classes; only the encoder knows it.
    """

    rows: str
    level: str
    mantissa_bits: int | None
    counts: np.ndarray
    attempt_counts: np.ndarray
    offset_bits: float = 0.0

    def width(self, tensor: RandomTensor) -> int:
        """Bits of a row."""
        return tensor.width if self.rows == "own" else WORD

    def max_classes(self, tensor: RandomTensor) -> int:
        """Largest possible number of classes."""
        return self.width(tensor) + 1 if self.mantissa_bits is None else len(class_starts(self.mantissa_bits))

    def model_counts(self, tensor: RandomTensor) -> np.ndarray:
        """The counts of the coder's model."""
        return self.counts if len(self.counts) else np.ones(self.width(tensor) + 1, np.int64)

    @property
    def selectors(self) -> tuple[int, int, int]:
        """Rows, level and classes as whole numbers from 0 up."""
        classes = 0 if self.mantissa_bits is None else self.mantissa_bits + 1
        return ROWS.index(self.rows), LEVELS.index(self.level), classes

    def parameters(self) -> Iterator[int]:
        """All that a decoder must know, as whole numbers from 0 up."""
        yield from self.selectors
        for counts in (self.counts, self.attempt_counts):
            yield len(counts)
            yield from map(int, counts)

    @property
    def mask_bits(self) -> float:
        """Bits of the mask."""
        return sum(map(gamma_bits, self.selectors)) + class_bits(self.counts) + self.offset_bits

    def encode(self, encoder: AnsEncoder, tensor: RandomTensor, bits: np.ndarray, known: np.ndarray | None) -> None:
        """Encode bits uint8 [count] of a mask; known: int8 [count] as from `Conditioning.known`."""
        subsets = _to_subsets(self.rows, tensor, bits, known)
        assert subsets is not None, "the code was chosen for all rows"
        if self.mantissa_bits is None:
            encoder.encode(subsets.sizes, self.model_counts(tensor), subsets.indices, subsets.same_size_counts)
        else:
            classes = classes_of(subsets.ranks, self.mantissa_bits)
            offsets = subsets.ranks - class_starts(self.mantissa_bits)[classes]
            encoder.encode(classes, self.counts, offsets, class_sizes(self.mantissa_bits)[classes])

    def decode(self, decoder: AnsDecoder, tensor: RandomTensor, span: Span, known: np.ndarray | None) -> np.ndarray:
        """Inverse of `encode`: uint8 [count]."""
        free = None if known is None else known == 0
        if self.rows == "words":
            count = span.count if free is None else int(np.count_nonzero(free))
            bits = self._decode_rows(decoder, tensor, -(-count // WORD), _free_in_words(count))[:count]
        else:
            bits = self._decode_rows(decoder, tensor, span.count // tensor.width, free)
        if known is None or free is None:
            return bits
        kept = (known == 1).astype(np.uint8)
        kept[free] = bits if self.rows == "words" else bits[free]
        return kept

    def _decode_rows(self, decoder: AnsDecoder, tensor: RandomTensor, rows: int, free: np.ndarray | None) -> np.ndarray:
        width = self.width(tensor)
        free_counts, classes = count_free(width, free), decoder.decode_classes(rows, self.model_counts(tensor))
        if self.mantissa_bits is None:
            indices = decoder.decode_offsets(count_subsets(width, free_counts, classes))
            return subsets_to_bits(Subsets(width, free_counts, classes, indices), free)
        offsets = decoder.decode_offsets(class_sizes(self.mantissa_bits)[classes])
        ranks = class_starts(self.mantissa_bits)[classes] + offsets
        return subsets_to_bits(ranks_to_subsets(ranks, width, free_counts), free)


def _to_subsets(rows: str, tensor: RandomTensor, bits: np.ndarray, known: np.ndarray | None) -> Subsets | None:
    """Bits of a mask as subsets; None if a row has no rank."""
    if rows == "own":
        return bits_to_subsets(bits, tensor.width, None if known is None else known == 0)
    coded = bits if known is None else bits[known == 0]
    return bits_to_subsets(np.pad(coded, (0, -len(coded) % WORD)), WORD, _free_in_words(len(coded)))


def _free_in_words(count: int) -> np.ndarray | None:
    """Free entries of the words that hold `count` bits; None if the last one is full."""
    return np.arange(count + -count % WORD) < count if count % WORD else None


_MANTISSA_BITS = 5  # most that are tried for ranks
_THREADS = 4  # that count, each with a span in memory
_NONE = np.zeros(0, np.int64)


def choose_codes(network: Network, seed: int, content: TensorReader) -> dict[str, MaskCode]:
    """The code of each random tensor, in coding order, from uncoded masks and redraws."""
    redraws, codes, read_bits = {}, {}, mask_reader(content)
    for name in network.random_tensors:
        redraws[name] = read_redraws(content, name)
    conditioning = Conditioning(network, seed, redraws, read_bits)
    for name in coding_order(network):
        codes[name] = _choose_code(name, network.random_tensors[name], conditioning, read_bits, redraws[name])
    return codes


def coded_bits(network: Network, seed: int, content: TensorReader) -> tuple[float, float]:
    """Bits of all redraws and of all masks as they are coded, without the padding of the coder's words."""
    redraws, masks = 0.0, 0.0
    for code in choose_codes(network, seed, content).values():
        redraws += class_bits(code.attempt_counts)
        masks += code.mask_bits
    return redraws, masks


def _choose_code(
    name: str, tensor: RandomTensor, conditioning: Conditioning, read_bits: ReadBits, redraws: np.ndarray
) -> MaskCode:
    """The shortest code, among those of the first level that the mask agrees with."""
    attempt_counts = _NONE
    if len(redraws):
        attempt_counts = np.bincount(redraws[:, 1], minlength=2)
        attempt_counts[0] = tensor.blocks - len(redraws)
        assert len(attempt_counts) <= MAX_ATTEMPTS + 1
    for level in conditioning.levels(name):
        histogram = _count_rows(name, tensor, conditioning, read_bits, level)
        if histogram is not None:
            best = None
            for rows, mantissa_bits, counts, bits in _candidates(tensor, histogram):
                code = MaskCode(rows, level, mantissa_bits, counts, attempt_counts, bits)
                if best is None or code.mask_bits < best.mask_bits:
                    best = code
            assert best is not None
            return best
    raise AssertionError("every mask agrees with the level of all entries")


@dataclasses.dataclass(frozen=True, eq=False)
class _Histogram:
    """Numbers of rows by class of rank (None if a row has no rank) and by size, of words by size, and index bits."""

    ranks: np.ndarray | None
    sizes: np.ndarray
    words: np.ndarray
    size_index_bits: float
    word_index_bits: float

    def __add__(self, other: "_Histogram") -> "_Histogram":
        return _Histogram(
            None if self.ranks is None or other.ranks is None else _add_counts(self.ranks, other.ranks),
            _add_counts(self.sizes, other.sizes),
            _add_counts(self.words, other.words),
            self.size_index_bits + other.size_index_bits,
            self.word_index_bits + other.word_index_bits,
        )


def _candidates(tensor: RandomTensor, histogram: _Histogram) -> Iterator[tuple[str, int | None, np.ndarray, float]]:
    """Rows, mantissa bits, counts and offset bits of the codes that are compared."""
    words = histogram.words
    yield "words", None, words, histogram.word_index_bits
    yield "words", None, _NONE, histogram.word_index_bits + int(words.sum()) * math.log2(WORD + 1)
    if histogram.ranks is not None:
        mantissa_bits, counts = best_mantissa_bits(histogram.ranks, _MANTISSA_BITS)
        yield "own", mantissa_bits, counts, offset_bits(counts, mantissa_bits)
        yield "own", None, histogram.sizes, histogram.size_index_bits
        yield "own", None, _NONE, histogram.size_index_bits + tensor.rows * math.log2(tensor.width + 1)


def _count_rows(
    name: str, tensor: RandomTensor, conditioning: Conditioning, read_bits: ReadBits, level: str
) -> _Histogram | None:
    """The histogram of a mask, read once, a few spans at a time; None if the mask contradicts the level."""

    def count(span: Span) -> _Histogram | None:
        return _count_span(tensor, read_bits(span), conditioning.known(span, level))

    first, *others = mask_spans(name, tensor)
    total = count(first)  # a contradiction mostly shows here already
    with concurrent.futures.ThreadPoolExecutor(min(cores(), _THREADS)) as pool:
        for histogram in pool.map(count, others if total is not None else ()):
            total = None if total is None or histogram is None else total + histogram
    return total


def _count_span(tensor: RandomTensor, bits: np.ndarray, known: np.ndarray | None) -> _Histogram | None:
    """The histogram of bits uint8 [count]; None if they contradict the known ones."""
    if known is not None and ((bits < (known > 0)) | (bits > (known >= 0))).any():
        return None
    words, word_index_bits = _count_words(bits if known is None else bits[known == 0])
    subsets = _to_subsets("own", tensor, bits, known)
    if subsets is None:
        return _Histogram(None, _NONE, words, 0.0, word_index_bits)
    ranks = np.bincount(classes_of(subsets.ranks, _MANTISSA_BITS))
    return _Histogram(ranks, np.bincount(subsets.sizes), words, subsets.index_bits, word_index_bits)


def _count_words(bits: np.ndarray) -> tuple[np.ndarray, float]:
    """Number of words by size, and the bits of their indices."""
    packed = np.packbits(bits)
    sizes = np.bitwise_count(np.pad(packed, (0, -len(packed) % 4)).view(np.uint32)).astype(np.int64)
    if not len(sizes):
        return _NONE, 0.0
    free_counts = np.full(len(sizes), WORD)
    free_counts[-1] -= -len(bits) % WORD
    return np.bincount(sizes), Subsets(WORD, free_counts, sizes, sizes).index_bits


def _add_counts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    total = long.copy()
    total[: len(short)] += short
    return total
