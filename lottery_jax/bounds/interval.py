"""Intervals of arrays in float64, rounded outwards: what is inside stays inside whatever rounding does."""

import dataclasses
from typing import Self

import numpy as np

SLACK = 2.0**-40
"""Relative, for each sum of up to 2**12 products of float64: 2**-53 for each term, and as much to spare."""


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """Arrays between low and high, float64, place by place.

    >>> both = Box(np.array([-1.0]), np.array([2.0])) + Box(np.array([0.5]), np.array([0.5]))
    >>> bool(both.low[0] <= -0.5 <= 2.5 <= both.high[0])
    True
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """The largest size."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def centre(self) -> np.ndarray:
        return (self.low + self.high) / 2

    @property
    def radius(self) -> np.ndarray:
        """Half the width from the centre, and a little more."""
        return (self.high - self.low) / 2 * (1 + SLACK) + SLACK * self.largest * 2.0**-8

    def __add__(self, other: "Box") -> "Box":
        return Box(self.low + other.low, self.high + other.high).wider()

    def meet(self, other: "Box") -> "Box":
        """What is in both."""
        return Box(np.maximum(self.low, other.low), np.minimum(self.high, other.high))

    def wider(self, more: np.ndarray | float = 0.0) -> Self:
        """The interval with the last bits, and `more`, to spare."""
        room = more + SLACK * 2.0**-8 * self.largest + np.finfo(np.float64).tiny
        return dataclasses.replace(self, low=self.low - room, high=self.high + room)


def times(slopes: Box, values: Box) -> Box:
    """All products of slopes that are not negative with values."""
    low = np.minimum(slopes.low * values.low, slopes.high * values.low)
    high = np.maximum(slopes.low * values.high, slopes.high * values.high)
    return Box(low, high).wider()
