"""In which order a ticket's masks and redraws are coded, and in which segments: each can be read for itself.

Memory depends on the segment, not on the ticket. What a mask is conditioned on comes before it.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping

from lottery_jax.networks.network import Network
from lottery_jax.networks.node import child_path
from lottery_jax.networks.sources.drawn import Drawn

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
    edges = {child_path(path, name) for path, source in network.sources.items() for name in source.edges}
    frozen = set(network.frozen.values())
    return sorted(network.drawn, key=lambda name: (name not in edges, name in frozen))


def mask_parts(name: str, drawn: Drawn) -> Iterator[Stretch]:
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
        for part in _parts(name, network.drawn, redrawn):
            if part.count > room:
                found.append([])
                room = max(SEGMENT, part.count)
            found[-1].append(part)
            room -= part.count
    return found


def _parts(name: str, drawn: Mapping[str, Drawn], redrawn: Collection[str]) -> Iterator[Stretch]:
    blocks = drawn[name].blocks if name in redrawn else 0
    for first in range(0, blocks, _PART):
        yield Stretch(name, first, min(_PART, blocks - first), redraws=True)
    yield from mask_parts(name, drawn[name])
