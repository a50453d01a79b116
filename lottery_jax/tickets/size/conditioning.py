"""The order in which masks and redraws are coded, in independent segments, and which entries are known before.

Absent weights are not kept, locked ones are, and a frozen weight is not kept if the trained mask keeps it. Entries
without an effect, because their edge is pruned, may be taken as not kept if the mask really has them so.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from lottery_jax.io.tensor_file import TensorReader, read_array
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.node import child_path
from lottery_jax.networks.sources.base import Source
from lottery_jax.rng.forced_entries import forced_blocks, has_forced_entries
from lottery_jax.rng.random_tensor import RandomTensor, block_attempts

WORD = 32
"""Bits of a row for masks whose own rows are too wide to be ranked."""

SEGMENT_SIZE = 1 << 22
"""Most bits and blocks in a segment."""

_SPAN_SIZE = 1 << 20  # bits of a mask, or blocks, that are coded at once


@dataclasses.dataclass(frozen=True)
class Span:
    """Bits first ... first + count - 1 of a mask (whole rows and words), or that many blocks of the redraws."""

    name: str
    first: int
    count: int
    redraws: bool = False


def coding_order(network: Network) -> list[str]:
    """The random tensors: edges before the weights behind them, frozen masks after those of the trained weights."""
    edges = set()
    for path, source in network.sources.items():
        for name in source.hidden_tensors:
            edges.add(child_path(path, name))
    frozen = set(network.frozen_tensors.values())
    return sorted(network.random_tensors, key=lambda name: (name not in edges, name in frozen))


def mask_spans(name: str, tensor: RandomTensor) -> Iterator[Span]:
    """A mask in spans of whole rows, words and bytes."""
    unit = WORD * tensor.width
    step = max(_SPAN_SIZE // unit, 1) * unit
    for first in range(0, tensor.size, step):
        yield Span(name, first, min(step, tensor.size - first))


def segments(network: Network, redrawn: Collection[str]) -> list[list[Span]]:
    """All spans by segment. redrawn: the tensors with redrawn blocks."""
    found: list[list[Span]] = []
    room = 0
    for name in coding_order(network):
        tensor, spans = network.random_tensors[name], list[Span]()
        for first in range(0, tensor.blocks if name in redrawn else 0, _SPAN_SIZE):
            spans.append(Span(name, first, min(_SPAN_SIZE, tensor.blocks - first), redraws=True))
        for span in [*spans, *mask_spans(name, tensor)]:
            if span.count > room:
                found.append([])
                room = max(SEGMENT_SIZE, span.count)
            found[-1].append(span)
            room -= span.count
    return found


ReadBits = Callable[[Span], np.ndarray]
"""Reads bits uint8 [count] of 0 and 1 of a mask."""

LEVELS = ("all", "unforced", "effective")
"""Which entries are coded: all; those that neither seed nor the trained mask fixes; of these, those with an effect."""


def mask_reader(content: TensorReader) -> ReadBits:
    """Reads bits of masks that are stored uncoded."""

    def read(span: Span) -> np.ndarray:
        packed = content.read(f"mask.{span.name}", span.first // 8, (span.count + 7) // 8)
        return np.unpackbits(packed, count=span.count, bitorder="little")

    return read


def read_redraws(content: TensorReader, name: str) -> np.ndarray:
    """The redraws of a random tensor, int64 rows (block, attempt)."""
    stored = f"redraws.{name}"
    return read_array(content, stored) if stored in content.tensors else NO_REDRAWS


class Conditioning:
    """What is known about the masks of a network before they are coded.

    Args:
        redraws: Rows (block, attempt) by random tensor; may grow while a file is decoded.
        read_bits: Reads masks that come earlier in the coding order.
    """

    def __init__(self, network: Network, seed: int, redraws: Mapping[str, np.ndarray], read_bits: ReadBits) -> None:
        self._network, self._seed, self._redraws, self.read_bits = network, seed, redraws, read_bits
        self._trained: dict[str, str] = {}
        for name, frozen in network.frozen_tensors.items():
            self._trained[frozen] = name
        self._behind_edges: dict[str, tuple[str, Source, str]] = {}
        for path, source in network.sources.items():
            for parameter in source.random_tensors():
                if source.hidden_tensors and parameter not in source.hidden_tensors:
                    self._behind_edges[child_path(path, parameter)] = path, source, parameter

    def levels(self, name: str) -> list[str]:
        """The levels that differ for a mask, fewest coded entries first."""
        forced = name in self._trained or has_forced_entries(self._network.random_tensors[name])
        return [*(["effective"] if name in self._behind_edges else []), *(["unforced"] if forced else []), "all"]

    def known(self, span: Span, level: str) -> np.ndarray | None:
        """Entries int8 [count]: 1 known to be kept, -1 known to be pruned, 0 to be coded; None if all are coded."""
        tensor = self._network.random_tensors[span.name]
        if level == "all":
            return None
        first, count = span.first // tensor.width, span.count // tensor.width
        known = np.zeros((count, tensor.width), np.int8)
        if has_forced_entries(tensor):
            blocks = np.arange(first, first + count) // tensor.rows_per_block
            begin, end = int(blocks[0]), int(blocks[-1]) + 1
            attempts = block_attempts(self._redraws[span.name], begin, end)
            known = forced_blocks(tensor, self._seed, np.arange(begin, end), attempts)[blocks - begin]
        if span.name in self._trained:
            trained = self.read_bits(Span(self._trained[span.name], span.first, span.count))
            known = np.where(trained.reshape(known.shape) == 1, np.int8(-1), known)
        if level == "effective":
            known -= (known == 0) & ~self._has_effect(span.name, first, count)
        return known.reshape(-1)

    def _has_effect(self, name: str, first: int, count: int) -> np.ndarray:
        """Which weights of some rows have a coefficient other than 0, bool [count, width]."""
        path, source, parameter = self._behind_edges[name]
        edges = {edge: self._kept_edges(child_path(path, edge)) for edge in source.hidden_tensors}
        rows, columns = np.arange(first, first + count)[:, None], np.arange(self._network.random_tensors[name].width)
        found = np.zeros((count, len(columns)), bool)
        for sign in source.input_signs(parameter, self._network.input_spec_of(path)):
            found |= source.coefficients(parameter, rows, columns, sign, edges) != 0
        return found

    def _kept_edges(self, name: str) -> np.ndarray:
        tensor = self._network.random_tensors[name]
        mask = self.read_bits(Span(name, 0, tensor.size)).astype(bool).reshape(tensor.shape)
        return tensor.draw_kept(self._seed, self._redraws[name], mask)
