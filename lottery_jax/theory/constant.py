"""The constant that the theorems leave open, by experiment: candidates per weight over log(1/eps).

The constants of the table, at an accuracy and a failure probability of 1 %, are stored here; a slow test estimates them
again from the same seeds.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

from lottery_jax.errors import InputError
from lottery_jax.theory.candidates import Candidates, candidates_named
from lottery_jax.theory.success import Success, success_probability


@dataclasses.dataclass(frozen=True)
class Constant:
    """Candidates per weight, over ln(1/eps), with which the best subset fails with probability at most delta.

    Args:
        distribution: Label of the candidates.
        tolerance: eps.
        delta: Failure probability.
        trials: Random problems per number of candidates.
        seed: Seed of the problems.
        candidates: Least number of candidates whose measured failure rate is at most delta.
        low: The same for the lower end of the 95 % interval of the failure rate.
        high: The same for the upper end.
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
        """The 95 % interval of the value."""
        scale = math.log(1 / self.tolerance)
        return self.low / scale, self.high / scale

    def __str__(self) -> str:
        return (
            f"{self.candidates} [{self.low}, {self.high}] {self.distribution} candidates at eps {self.tolerance:g},"
            f" delta {self.delta:g}"
        )


def estimate_constant(
    tolerance: float = 0.01,
    delta: float = 0.01,
    distribution: str | Candidates = "gadget",
    *,
    trials: int = 5000,
    seed: int,
) -> Constant:
    """Measure C in "C log(1/eps) candidates suffice", a constant that no paper states; deterministic for a seed.

    In Theorem 1 of Pensia et al. delta is the tolerance. A gadget of n candidates has 2 n hidden units per input, so
    its width takes twice the value.

    Args:
        tolerance: eps in (0, 1).
        delta: Failure probability in (0, 1).
        distribution: A name or label of `DISTRIBUTIONS`, or `Candidates`.
        trials: Random problems per number of candidates, at least 10 / delta.
        seed: Seed of the problems.

    Raises:
        InputError: If an argument is invalid, or more candidates are needed than the exact solver can search.

    >>> found = estimate_constant(0.1, 0.1, "scalar", trials=500, seed=0)
    >>> found.low <= found.candidates <= found.high
    True
    """
    kind = candidates_named(distribution)
    if not 0 < tolerance < 1 or not 0 < delta < 1:
        raise InputError(f"tolerance and delta must be in (0, 1), got {tolerance} and {delta}")
    if trials * delta < 10:
        raise InputError(f"trials must be at least {10 / delta:.0f} for a delta of {delta:g}, got {trials}")

    @functools.cache
    def success(count: int) -> Success:
        return success_probability(count, tolerance, kind, trials=trials, seed=seed)

    def fewest(estimate: Callable[[Success], float]) -> int:
        """The least number of candidates whose estimated success probability is at least 1 - delta."""
        # Upwards, so that no larger program than necessary is compiled.
        counts = [count for count in (*range(12, kind.most, 4), kind.most) if count >= kind.least]
        high = next((count for count in counts if estimate(success(count)) >= 1 - delta), None)
        if high is None:
            raise InputError(
                f"tolerance {tolerance:g} and delta {delta:g} must need at most {kind.most} candidates of"
                f" {kind.label}. Choose larger ones."
            )
        low = kind.least
        while low < high:  # the failure rate decreases with n, up to noise
            middle = (low + high) // 2
            low, high = (low, middle) if estimate(success(middle)) >= 1 - delta else (middle + 1, high)
        return low

    low, high = fewest(lambda found: found.interval[1]), fewest(lambda found: found.interval[0])
    return Constant(kind.label, tolerance, delta, trials, seed, fewest(lambda found: found.probability), low, high)


SCALAR = Constant("scalar", 0.01, 0.01, trials=10000, seed=0, candidates=14, low=14, high=14)

PRODUCT = Constant("product", 0.01, 0.01, trials=10000, seed=0, candidates=12, low=12, high=13)

GADGET = Constant("gadget", 0.01, 0.01, trials=10000, seed=0, candidates=15, low=14, high=15)

FIXED_SIZE = Constant("fixed-size 4", 0.01, 0.1, trials=2000, seed=0, candidates=15, low=15, high=16)
