"""Which bits of a mask are free: the others follow from the seed and from masks that are known already.

A weight that is absent from its source is not kept, and a locked one is; a frozen weight is none that its mate's mask
keeps. Where a mask keeps no weight behind an edge that is pruned, or that passes nothing on of any input, these are not
free either: nothing that is computed depends on them, but whoever writes a mask may keep them all the same.
"""

from collections.abc import Callable, Mapping

import numpy as np

from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.node import child_path
from lottery_jax.networks.sources.decided import decided_blocks, decides
from lottery_jax.networks.sources.drawn import attempts_of
from lottery_jax.storage.store import Store, read_array
from lottery_jax.tickets.coding.order import Stretch

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
        self._mates = {own: name for name, own in network.frozen.items()}
        self._leaves = {
            child_path(path, own): (path, source, own)
            for path, source in network.sources.items()
            for own in source.drawn()
            if source.edges and own not in source.edges
        }

    def levels(self, name: str) -> list[str]:
        """The levels that say different things of a mask, the narrowest first."""
        decided = name in self._mates or decides(self._network.drawn[name])
        return [*(["useful"] if name in self._leaves else []), *(["undecided"] if decided else []), "all"]

    def known(self, part: Stretch, level: str) -> np.ndarray | None:
        """Of each bit of a part int8 [count]: 1 and -1 where it is known to be kept or pruned, 0 where it is free.

        None where all of them are free.
        """
        drawn = self._network.drawn[part.name]
        if level == "all":
            return None
        first, count = part.first // drawn.width, part.count // drawn.width
        found = np.zeros((count, drawn.width), np.int8)
        if decides(drawn):
            blocks = np.arange(first, first + count) // drawn.shared
            begin, end = int(blocks[0]), int(blocks[-1]) + 1
            attempts = attempts_of(self._redraws[part.name], begin, end)
            found = decided_blocks(drawn, self._seed, np.arange(begin, end), attempts)[blocks - begin]
        if part.name in self._mates:
            mate = self._bits(Stretch(self._mates[part.name], part.first, part.count))
            found = np.where(mate.reshape(found.shape) == 1, np.int8(-1), found)
        if level == "useful":
            found -= (found == 0) & ~self._useful(part.name, first, count)
        return found.reshape(-1)

    def _useful(self, name: str, first: int, count: int) -> np.ndarray:
        """Which weights of some rows count anything in what they sum to, bool [count, N]."""
        path, source, own = self._leaves[name]
        edges = {place: self._edge(child_path(path, place)) for place in source.edges}
        rows, columns = np.arange(first, first + count)[:, None], np.arange(self._network.drawn[name].width)
        signs = source.signs(own, self._network.given_to(path))
        found = np.zeros((count, len(columns)), bool)
        for sign in signs:
            found |= source.coefficients(own, rows, columns, sign, edges) != 0
        return found

    def _edge(self, name: str) -> np.ndarray:
        drawn = self._network.drawn[name]
        mask = self._bits(Stretch(name, 0, drawn.size)).astype(bool).reshape(drawn.shape)
        return drawn.draw_kept(self._seed, self._redraws[name], mask)
