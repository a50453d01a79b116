"""Confidence interval of a counted fraction."""

import math

QUANTILE_95 = 1.959963984540054  # of the standard normal, two-sided


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a fraction (Wilson 1927), inside [0, 1] also at its ends.

    >>> [round(bound, 4) for bound in wilson_interval(95, 100)]
    [0.8882, 0.9785]
    """
    fraction, squared = correct / total, QUANTILE_95**2
    centre = fraction + squared / (2 * total)
    margin = QUANTILE_95 * math.sqrt(fraction * (1 - fraction) / total + squared / (4 * total**2))
    scale = 1 + squared / total
    # At the ends the bounds are 0 and 1 by algebra; rounding must not move them past the fraction.
    low = 0.0 if correct == 0 else (centre - margin) / scale
    return low, 1.0 if correct == total else (centre + margin) / scale
