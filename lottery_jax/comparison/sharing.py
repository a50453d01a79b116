"""Pairs of a method and a seed, gone through by each process of a crew: what others are at is left for later."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from lottery_jax.cluster.crew import Crew, Elsewhere

_Pair = TypeVar("_Pair")


def go_through(pairs: Sequence[_Pair], contribute: Callable[[_Pair], None], crew: Crew) -> list[_Pair]:
    """Contribute to each pair what comes to this process, until all is done; returns what is left to others.

    contribute: raises `Elsewhere` where others are at what is left of a pair. Nothing is left where processes meet;
    shares, which do not, go through what is left once more.

    >>> from lottery_jax.cluster.crew import ALONE
    >>> go_through(["a", "b"], print, ALONE)
    a
    b
    []
    """
    waiting: dict[int, tuple[str, ...]] = dict.fromkeys(range(len(pairs)), ())
    attempts = 0
    while waiting and (crew.meets or attempts < 2):
        left, attempts = dict[int, tuple[str, ...]](), attempts + 1
        for place, units in waiting.items():
            if units and not crew.ready(units):
                left[place] = units
                continue
            try:
                contribute(pairs[place])
            except Elsewhere as other:
                left[place] = other.units
        waiting = left
        crew.wait([unit for units in left.values() for unit in units])
    return [pairs[place] for place in waiting]
