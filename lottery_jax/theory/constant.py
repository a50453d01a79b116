"""The constant that the theorems leave open: candidates for each weight over log(1/eps), by experiment.

What `estimate_constant` finds at an accuracy and a failure chance of 1 %: the constants that the table uses.

They are kept here so that the table needs no search; a slow test estimates them again from the same seed.
"""

import dataclasses
import functools
import math

from lottery_jax.errors import InputError
from lottery_jax.theory.candidates import Candidates, candidates_named
from lottery_jax.theory.success import Success, success_probability


@dataclasses.dataclass(frozen=True)
class Constant:
    """Candidates that a weight needs so that its best subset fails with a chance of at most delta, over ln(1/eps).

    candidates: the fewest whose measured failures are at most delta. low, high: the same for the two ends of the 95 %
    intervals: with fewer than `low` delta is ruled out, and with `high` it is sure.
    """

    distribution: str
    tolerance: float
    delta: float
    trials: int
    seed: int
    candidates: int
    low: int
    high: int

    @property
    def value(self) -> float:
        """Candidates over the natural logarithm of 1 / tolerance."""
        return self.candidates / math.log(1 / self.tolerance)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the value."""
        scale = math.log(1 / self.tolerance)
        return self.low / scale, self.high / scale


def estimate_constant(
    tolerance: float = 0.01,
    delta: float = 0.01,
    distribution: str | Candidates = "gadget",
    *,
    trials: int = 5000,
    seed: int,
) -> Constant:
    """Measure the constant C in "C log(1/eps) candidates are enough", which no paper states; the same for a seed.

    Theorem 1 of Pensia et al. has one number for the accuracy and the failure: there delta is the tolerance. A gadget
    of n candidates has 2 n hidden units for each input, so its width takes twice the value. Raises `InputError` where
    more candidates would be needed than can be searched at once.

    >>> found = estimate_constant(0.1, 0.1, "scalar", trials=500, seed=0)
    >>> found.low <= found.candidates <= found.high
    True
    """
    kind = candidates_named(distribution)
    if not 0 < tolerance < 1 or not 0 < delta < 1:
        raise InputError(f"tolerance and delta must be in (0, 1), not {tolerance} and {delta}")
    if trials * delta < 10:
        raise InputError(f"{trials} trials are too few to see failures of {delta:g}; give at least {10 / delta:.0f}")

    @functools.cache
    def success(count: int) -> Success:
        return success_probability(count, tolerance, kind, trials=trials, seed=seed)

    def fewest(enough: str) -> int:
        # Upwards, so that no larger program is compiled than is needed.
        highs = [count for count in (*range(12, kind.most, 4), kind.most) if count >= kind.least]
        high = next((count for count in highs if _holds(success(count), delta, enough)), None)
        if high is None:
            raise InputError(
                f"more than {kind.most} candidates are needed for {tolerance:g} and {delta:g} with {kind.label};"
                " ask for less"
            )
        low = kind.least
        while low < high:  # failures fall with n, but for chance
            middle = (low + high) // 2
            low, high = (low, middle) if _holds(success(middle), delta, enough) else (middle + 1, high)
        return low

    found = {enough: fewest(enough) for enough in ("maybe", "measured", "surely")}
    return Constant(kind.label, tolerance, delta, trials, seed, found["measured"], found["maybe"], found["surely"])


def _holds(success: Success, delta: float, enough: str) -> bool:
    low, high = success.interval
    return {"maybe": high, "measured": success.probability, "surely": low}[enough] >= 1 - delta


SCALAR = Constant("scalar", 0.01, 0.01, trials=10000, seed=0, candidates=14, low=14, high=14)

PRODUCT = Constant("product", 0.01, 0.01, trials=10000, seed=0, candidates=12, low=12, high=13)

GADGET = Constant("gadget", 0.01, 0.01, trials=10000, seed=0, candidates=15, low=14, high=15)

FIXED_SIZE = Constant("fixed-size 4", 0.01, 0.1, trials=2000, seed=0, candidates=15, low=15, high=16)


def of(constant: Constant) -> str:
    """Where a constant comes from, in words.

    >>> of(SCALAR)
    '14 [14, 14] scalar candidates at eps 0.01, delta 0.01'
    """
    return (
        f"{constant.candidates} [{constant.low}, {constant.high}] {constant.distribution} candidates at eps"
        f" {constant.tolerance:g}, delta {constant.delta:g}"
    )
