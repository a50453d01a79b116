"""In which order a ticket's masks and redraws are coded, and in which segments: each can be read for itself.

Memory depends on the segment, not on the ticket. What a mask is conditioned on comes before it.

Which bits of a mask are free: the others follow from the seed and from masks that are known already.

A weight that is absent from its source is not kept, and a locked one is; a frozen weight is none that its mate's mask
keeps. Where a mask keeps no weight behind an edge that is pruned, or that passes nothing on of any input, these are not
free either: nothing that is computed depends on them, but whoever writes a mask may keep them all the same.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from lottery_jax.io.tensor_file import Store, read_array
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.node import child_path
from lottery_jax.rng.forced_entries import forced_blocks, has_forced_entries
from lottery_jax.rng.random_tensor import RandomTensor, attempts_of

WORD = 32  # bits of a mask that are a row where its own rows are none

_PART = 1 << 20  # bits of a mask, or blocks, looked at at once

SEGMENT = 1 << 22
"""Bits and blocks in a segment, at most."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Bits first ... first + count - 1 of a mask, whole rows and words; or so many blocks of what was drawn again."""

    name: str
    first: int
    count: int
    redraws: bool = False


def names_in_order(network: Network) -> list[str]:
    """The random tensors: edges come before what is behind them, frozen ones after those whose places they have."""
    edges = {child_path(path, name) for path, source in network.sources.items() for name in source.hidden_tensors}
    frozen = set(network.frozen_tensors.values())
    return sorted(network.random_tensors, key=lambda name: (name not in edges, name in frozen))


def mask_parts(name: str, drawn: RandomTensor) -> Iterator[Stretch]:
    """A mask in parts of whole rows, words and bytes."""
    unit = WORD * drawn.width
    step = max(_PART // unit, 1) * unit
    for first in range(0, drawn.size, step):
        yield Stretch(name, first, min(step, drawn.size - first))


def segments(network: Network, redrawn: Collection[str]) -> list[list[Stretch]]:
    """All parts, gathered into segments. redrawn: the tensors that have blocks that were drawn again."""
    found: list[list[Stretch]] = []
    room = 0
    for name in names_in_order(network):
        for part in _parts(name, network.random_tensors, redrawn):
            if part.count > room:
                found.append([])
                room = max(SEGMENT, part.count)
            found[-1].append(part)
            room -= part.count
    return found


def _parts(name: str, drawn: Mapping[str, RandomTensor], redrawn: Collection[str]) -> Iterator[Stretch]:
    blocks = drawn[name].blocks if name in redrawn else 0
    for first in range(0, blocks, _PART):
        yield Stretch(name, first, min(_PART, blocks - first), redraws=True)
    yield from mask_parts(name, drawn[name])


Bits = Callable[[Stretch], np.ndarray]
"""Reads bits uint8 [count] of 0 and 1 of a mask."""

LEVELS = ("all", "undecided", "useful")
"""Places that are free: all of them; what seed and mate leave; and of those the ones that something depends on."""


def bits_in(content: Store) -> Bits:
    """Reads bits of masks that are stored plainly."""

    def read(part: Stretch) -> np.ndarray:
        packed = content.read(f"mask.{part.name}", part.first // 8, (part.count + 7) // 8)
        return np.unpackbits(packed, count=part.count, bitorder="little")

    return read


def redraws_in(content: Store, name: str) -> np.ndarray:
    """The redraws of a random tensor, int64 rows (block, attempt)."""
    there = f"redraws.{name}"
    return read_array(content, there) if there in content.tensors else NO_REDRAWS


class Places:
    """What is known of the masks of a network before they are read. bits: reads masks that are known."""

    def __init__(self, network: Network, seed: int, redraws: Mapping[str, np.ndarray], bits: Bits) -> None:
        self._network, self._seed, self._redraws, self._bits = network, seed, redraws, bits
        self._mates = {own: name for name, own in network.frozen_tensors.items()}
        self._leaves = {
            child_path(path, own): (path, source, own)
            for path, source in network.sources.items()
            for own in source.random_tensors()
            if source.hidden_tensors and own not in source.hidden_tensors
        }

    def levels(self, name: str) -> list[str]:
        """The levels that say different things of a mask, the narrowest first."""
        forced = name in self._mates or has_forced_entries(self._network.random_tensors[name])
        return [*(["useful"] if name in self._leaves else []), *(["undecided"] if forced else []), "all"]

    def known(self, part: Stretch, level: str) -> np.ndarray | None:
        """Of each bit of a part int8 [count]: 1 and -1 where it is known to be kept or pruned, 0 where it is free.

        None where all of them are free.
        """
        drawn = self._network.random_tensors[part.name]
        if level == "all":
            return None
        first, count = part.first // drawn.width, part.count // drawn.width
        found = np.zeros((count, drawn.width), np.int8)
        if has_forced_entries(drawn):
            blocks = np.arange(first, first + count) // drawn.shared
            begin, end = int(blocks[0]), int(blocks[-1]) + 1
            attempts = attempts_of(self._redraws[part.name], begin, end)
            found = forced_blocks(drawn, self._seed, np.arange(begin, end), attempts)[blocks - begin]
        if part.name in self._mates:
            mate = self._bits(Stretch(self._mates[part.name], part.first, part.count))
            found = np.where(mate.reshape(found.shape) == 1, np.int8(-1), found)
        if level == "useful":
            found -= (found == 0) & ~self._useful(part.name, first, count)
        return found.reshape(-1)

    def _useful(self, name: str, first: int, count: int) -> np.ndarray:
        """Which weights of some rows count anything in what they sum to, bool [count, N]."""
        path, source, own = self._leaves[name]
        edges = {place: self._edge(child_path(path, place)) for place in source.hidden_tensors}
        rows, columns = np.arange(first, first + count)[:, None], np.arange(self._network.random_tensors[name].width)
        signs = source.input_signs(own, self._network.input_spec_of(path))
        found = np.zeros((count, len(columns)), bool)
        for sign in signs:
            found |= source.coefficients(own, rows, columns, sign, edges) != 0
        return found

    def _edge(self, name: str) -> np.ndarray:
        drawn = self._network.random_tensors[name]
        mask = self._bits(Stretch(name, 0, drawn.size)).astype(bool).reshape(drawn.shape)
        return drawn.draw_kept(self._seed, self._redraws[name], mask)
