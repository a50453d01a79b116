"""The success probability and the least residual of random subset sums, by experiment and by a heuristic formula."""

import dataclasses
import math

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
        """The fraction."""
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
        trials: Number of problems.
        seed: Seed of the problems.
        tolerance: Tolerance of the problems, which determines the grid.
        solver: Defaults to the exact solver of the distribution.

    Raises:
        InputError: If an argument is invalid.
    """
    kind = candidates_named(distribution)
    _check(count, kind, trials)
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


def _check(count: int, kind: Candidates, trials: int) -> None:
    if type(count) is not int or not kind.least <= count <= kind.most:
        raise InputError(f"count must be from {kind.least} to {kind.most} for {kind.label}, got {count!r}")
    if type(trials) is not int or not 1 <= trials <= _MAX_TRIALS:
        raise InputError(f"trials must be from 1 to {_MAX_TRIALS:,}, got {trials!r}")
