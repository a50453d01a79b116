"""The price of a kept weight at which a layer keeps its share of a budget."""

import math
from collections.abc import Callable
from typing import TypeVar

_TRIALS = 14
_MOST_TRIALS = 60  # where little was cheap enough before
_ENOUGH = 0.9  # of the share, after the usual trials
_LEAST = 1e-12  # the first price above 0 that is tried
_NEAR = 0.995  # of the share is enough
_AIM = 0.998

Answered = TypeVar("Answered")


def within_share(solve: Callable[[float], tuple[int, Answered]], share: int, price: float) -> tuple[int, Answered]:
    """The answer that keeps most of at most `share` among those that are tried, and what it keeps.

    solve: from a price to how many are kept, fewer at higher prices, about as its inverse square root, and none at an
    infinite price. price: the first that is tried.

    >>> within_share(lambda price: (int(100 / (1 + price)), price), 50, 0.01)[0]
    50
    """
    too_many: tuple[float, int] | None = None
    best: tuple[float, int] | None = None
    found: tuple[int, Answered] | None = None
    for trial in range(_MOST_TRIALS if share else 0):
        if trial >= _TRIALS and found is not None and found[0] >= _ENOUGH * share:
            break
        kept, answer = solve(price)
        if kept > share:
            too_many = price, kept
        else:
            best = price, kept
            if found is None or kept > found[0]:
                found = kept, answer
            if kept >= _NEAR * share or price == 0:
                break
        if too_many is None or best is None:
            # A wide step, so that the next one may lie on the other side, and ever wider ones.
            price = max(price, _LEAST if too_many else 0.0)
            price *= (min(max((kept / (_AIM * share)) ** 2, 1e-4), 1e4) * (0.8 if best else 1.25)) ** (1 + trial)
            price = 0.0 if price < 1e-30 else price
            continue
        # Between two prices kept counts are nearly a straight line in logarithms.
        x, y = (math.log(max(at, 1e-30)) for at in (too_many[0], best[0]))
        u, v = (math.log(max(count, 0.5)) for count in (too_many[1], best[1]))
        part = (u - math.log(_AIM * share)) / (u - v) if u > v and trial % 3 < 2 else 0.5
        price = math.exp(x + min(max(part, 0.1), 0.9) * (y - x))
        if y - x < 1e-4:
            break
    return solve(math.inf) if found is None else found
