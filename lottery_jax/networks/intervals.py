"""Arrays of intervals in float64, rounded outwards."""

import dataclasses
from collections.abc import Iterable
from typing import Self

import numpy as np

ROUNDING = 2.0**-40
"""Relative, for each sum of up to 2**12 products of float64: 2**-53 for each term, and as much to spare."""


@dataclasses.dataclass(frozen=True, eq=False)
class IntervalArray:
    """Arrays between `low` and `high`, float64, elementwise.

    >>> both = IntervalArray(np.array([-1.0]), np.array([2.0])) + IntervalArray(np.array([0.5]), np.array([0.5]))
    >>> bool(both.low[0] <= -0.5 <= 2.5 <= both.high[0])
    True
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def magnitude(self) -> np.ndarray:
        """The largest absolute value."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def centre(self) -> np.ndarray:
        return (self.low + self.high) / 2

    @property
    def radius(self) -> np.ndarray:
        """Half the width, rounded up."""
        return (self.high - self.low) / 2 * (1 + ROUNDING) + ROUNDING * self.magnitude * 2.0**-8

    def __add__(self, other: "IntervalArray") -> "IntervalArray":
        return IntervalArray(self.low + other.low, self.high + other.high).widened()

    def intersect(self, other: "IntervalArray") -> "IntervalArray":
        """The intersection of both."""
        return IntervalArray(np.maximum(self.low, other.low), np.minimum(self.high, other.high))

    def clipped(self, low: np.ndarray | float = -np.inf, high: np.ndarray | float = np.inf) -> "IntervalArray":
        """The intersection with one interval, or with several."""
        return IntervalArray(np.maximum(self.low, low), np.minimum(self.high, high))

    def hull(self, axes: Iterable[int]) -> "IntervalArray":
        """The smallest intervals with all positions of these axes, whose sizes become 1."""
        own = tuple(axes)
        return IntervalArray(self.low.min(own, keepdims=True), self.high.max(own, keepdims=True))

    def limited(self, numbers: int) -> "IntervalArray":
        """At most `numbers` intervals: the hull of all axes but the last one, or of all axes.

        >>> IntervalArray(np.zeros((5, 4, 3)), np.ones((5, 4, 3))).limited(20).low.shape
        (1, 1, 3)
        """
        found, dimensions = self, self.low.ndim
        if found.low.size > numbers:
            found = found.hull(range(dimensions - 1))
        return found.hull(range(dimensions)) if found.low.size > numbers else found

    def widened(self, more: np.ndarray | float = 0.0) -> Self:
        """Enlarged by the rounding of the last bits, and by `more`."""
        margin = more + ROUNDING * 2.0**-8 * self.magnitude + np.finfo(np.float64).tiny
        return dataclasses.replace(self, low=self.low - margin, high=self.high + margin)
