"""Random subset sums by experiment and by a heuristic: success probabilities, residuals, the theorems' constants."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.statistics import wilson_interval
from lottery_jax.subset_sum import Problem, Solution, Solver, solve
from lottery_jax.theory.candidates import Candidates, candidates_named

_MAX_TRIALS = 1 << 20
_PADDED_COUNTS = (12, 16, 20, 24)  # numbers of candidates are padded to few shapes
_SAMPLES = 1 << 13  # of a target and a mean, for vectors
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclasses.dataclass(frozen=True)
class Success:
    """The fraction of random problems whose best subset is within the tolerance."""

    successes: int
    trials: int

    @property
    def probability(self) -> float:
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return wilson_interval(self.successes, self.trials)


def best_subsets(
    count: int,
    distribution: str | Candidates,
    *,
    trials: int,
    seed: int,
    tolerance: float = 1e-3,
    solver: Solver[Solution] | None = None,
) -> Solution:
    """The best subsets of random problems, found exactly.

    Args:
        count: Candidates of each problem; padded with zeros to share compiled programs.
        distribution: A name or label of `DISTRIBUTIONS`, or `Candidates`.
        tolerance: Tolerance of the problems, which determines the grid.
        solver: Defaults to the exact solver of the distribution.
    """
    kind = candidates_named(distribution)
    if type(count) is not int or not kind.least <= count <= kind.most:
        raise InputError(f"count must be from {kind.least} to {kind.most} for {kind.label}, got {count!r}")
    if type(trials) is not int or not 1 <= trials <= _MAX_TRIALS:
        raise InputError(f"trials must be from 1 to {_MAX_TRIALS:,}, got {trials!r}")
    drawn, targets = kind.draw(count, trials, seed), kind.targets(count, trials, seed)
    if kind.padded:
        size = next(size for size in _PADDED_COUNTS if size >= count)
        drawn = np.pad(drawn, ((0, 0), (0, size - count), *[(0, 0)] * (drawn.ndim - 2)))
    return solve(Problem(drawn, targets, tolerance), solver or kind.solver())


def least_residuals(
    count: int, distribution: str | Candidates, *, trials: int, seed: int, tolerance: float = 1e-3
) -> np.ndarray:
    """|best sum - target| of the problems of `best_subsets`, float64 [trials]; the maximum over coordinates of vectors.

    >>> found = least_residuals(4, "scalar", trials=100, seed=0)
    >>> found.shape, bool((found <= 1).all())  # the empty subset is one of them
    ((100,), True)
    """
    found = best_subsets(count, distribution, trials=trials, seed=seed, tolerance=tolerance)
    return np.abs(found.residuals).astype(np.float64).reshape(trials, -1).max(1)


def success_probability(
    count: int, tolerance: float, distribution: str | Candidates = "scalar", *, trials: int = 1000, seed: int
) -> Success:
    """The probability that the best subset of `count` candidates is within the tolerance, by experiment.

    >>> found = success_probability(12, 0.01, "scalar", trials=200, seed=0)
    >>> found.interval[0] < found.probability < found.interval[1]
    True
    """
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance must be in (0, 1), got {tolerance}")
    found = least_residuals(count, distribution, trials=trials, seed=seed, tolerance=tolerance)
    return Success(int(np.count_nonzero(found <= tolerance)), trials)


def predicted_success(count: int, tolerance: float, distribution: str | Candidates = "scalar") -> float:
    """The probability that a subset is within the tolerance, by a heuristic without proof.

    Subset sums are taken as normal around half of the candidates' total (k/n of it for subsets of k of n) and subsets
    within the tolerance as independent: 1 - exp(-their expected number), averaged over the total and the target. The
    value is too high if few candidates cannot reach the target.

    >>> round(predicted_success(10, 0.01), 2)
    0.92
    """
    kind = candidates_named(distribution)
    weights = kind.count_probabilities(count)
    successes = [_success(kind, k, tolerance) if k and weight else 0.0 for k, weight in enumerate(weights)]
    return float(np.dot(weights, successes))


def predicted_median(count: int, distribution: str | Candidates = "scalar") -> float:
    """The median least residual by the same heuristic, by bisection."""
    low, high = 0.0, 2.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if predicted_success(count, middle, distribution) < 0.5 else (low, middle)
    return high


def residual_law(count: int, factor: float) -> float:
    """The median least residual as factor * sqrt(n) 2^-n; `experiments/phase_diagram.py` measures the factor.

    Lueker 1998 proves an exponential decrease, without this factor.
    """
    return factor * math.sqrt(count) * 2.0**-count


def _success(kind: Candidates, count: int, tolerance: float) -> float:
    between, within = kind.variances(count)
    if within <= 0:
        return 0.0
    tolerance = kind.window(tolerance)
    if kind.dimension > 1:
        random = np.random.default_rng(0)  # a grid in several dimensions would be too large
        shape = _SAMPLES, kind.dimension
        distance = kind.largest_target * random.uniform(0, 1, shape) - math.sqrt(between) * random.normal(size=shape)
        expected = kind.subsets(count) * _expected(1, within, distance, tolerance).prod(1)
        return float(-np.expm1(-expected).mean())
    targets = (np.arange(32) + 0.5) / 32 * kind.largest_target
    distance = targets[:, None] - math.sqrt(between) * _NODES
    expected = _expected(kind.subsets(count), within, distance, tolerance)
    return float((-np.expm1(-expected) @ _WEIGHTS).mean())


def _expected(subsets: float, variance: float, distance: np.ndarray, tolerance: float) -> np.ndarray:
    """Expected number of normal sums within the tolerance of a target at this distance from their mean."""
    density = np.exp(-(distance**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return subsets * np.minimum(2 * tolerance * density, 1)


@dataclasses.dataclass(frozen=True)
class Constant:
    """Candidates per weight, over ln(1/eps), with which the best subset fails with probability at most delta."""

    distribution: str
    tolerance: float
    delta: float
    trials: int
    """Random problems per number of candidates."""
    seed: int
    candidates: int
    """Least number of candidates whose measured failure rate is at most delta."""
    low: int
    """The same for the lower end of the 95 % interval of the failure rate."""
    high: int
    """The same for the upper end."""

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


# The constants of the table; a slow test estimates them again from the same seeds.
SCALAR = Constant("scalar", 0.01, 0.01, trials=10000, seed=0, candidates=14, low=14, high=14)
PRODUCT = Constant("product", 0.01, 0.01, trials=10000, seed=0, candidates=12, low=12, high=13)
GADGET = Constant("gadget", 0.01, 0.01, trials=10000, seed=0, candidates=15, low=14, high=15)
FIXED_SIZE = Constant("fixed-size 4", 0.01, 0.1, trials=2000, seed=0, candidates=15, low=15, high=16)
