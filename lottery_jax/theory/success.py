"""How near the best subset comes: by a formula, and by experiment with the exact solver."""

import dataclasses
import math

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.statistics import wilson_interval
from lottery_jax.subset_sum import Problem, Solution, Solver, solve
from lottery_jax.theory.candidates import Candidates, candidates_named

_MOST_TRIALS = 1 << 20

_SIZES = (12, 16, 20, 24)

_SAMPLES = 1 << 13

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)

_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclasses.dataclass(frozen=True)
class Success:
    """The fraction of random problems whose best subset was within the tolerance, with its 95 % Wilson interval."""

    successes: int
    trials: int

    @property
    def probability(self) -> float:
        """The fraction itself."""
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
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
    """The best subset of each of `trials` random problems of `count` candidates, found exactly.

    All of them go through one compiled program, which serves neighbouring numbers of candidates, too: those that are
    lacking are 0. tolerance: what is within it, and how fine the grid must be. solver: another than that of the least
    residual. Raises `InputError`.
    """
    kind = candidates_named(distribution)
    _check(count, kind, trials)
    drawn, targets = kind.draw(count, trials, seed), kind.targets(count, trials, seed)
    if kind.padded:
        size = next(size for size in _SIZES if size >= count)
        drawn = np.pad(drawn, ((0, 0), (0, size - count), *[(0, 0)] * (drawn.ndim - 2)))
    return solve(Problem(drawn, targets, tolerance), solver or kind.solver())


def least_residuals(
    count: int, distribution: str | Candidates, *, trials: int, seed: int, tolerance: float = 1e-3
) -> np.ndarray:
    """|best sum - target| of random problems, as `best_subsets` draws them, float64 [trials]; of vectors the largest.

    >>> found = least_residuals(4, "scalar", trials=100, seed=0)
    >>> found.shape, bool((found <= 1).all())  # the empty subset is one of them
    ((100,), True)
    """
    found = best_subsets(count, distribution, trials=trials, seed=seed, tolerance=tolerance)
    return np.abs(found.residuals).astype(np.float64).reshape(trials, -1).max(1)


def success_probability(
    count: int, tolerance: float, distribution: str | Candidates = "scalar", *, trials: int = 1000, seed: int
) -> Success:
    """How often the best subset of `count` candidates is within the tolerance of the target, by experiment.

    >>> found = success_probability(12, 0.01, "scalar", trials=200, seed=0)
    >>> found.interval[0] < found.probability < found.interval[1]
    True
    """
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance must be in (0, 1), not {tolerance}")
    found = least_residuals(count, distribution, trials=trials, seed=seed, tolerance=tolerance)
    return Success(int(np.count_nonzero(found <= tolerance)), trials)


def predicted_success(count: int, tolerance: float, distribution: str | Candidates = "scalar") -> float:
    """The chance that some subset is within the tolerance, by a heuristic; `success_probability` measures it.

    Given the candidates, subset sums are normal around half of their total (k/n of it for k of n), and subsets within
    the tolerance are counted as if they were independent: 1 - exp(-their expected number), averaged over that total
    and the target. Nothing of it is proved, and where few candidates cannot reach the target it is too high.

    >>> round(predicted_success(10, 0.01), 2)
    0.92
    """
    kind = candidates_named(distribution)
    chances = kind.missing(count)
    some = [_some(kind, k, tolerance) if k and chance else 0.0 for k, chance in enumerate(chances)]
    return float(np.dot(chances, some))


def predicted_median(count: int, distribution: str | Candidates = "scalar") -> float:
    """The median least residual by the same heuristic, by bisection."""
    low, high = 0.0, 2.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if predicted_success(count, middle, distribution) < 0.5 else (low, middle)
    return high


def residual_law(count: int, factor: float) -> float:
    """factor * sqrt(n) 2^-n: how the median least residual falls; `experiments/phase_diagram.py` measures the factor.

    Lueker 1998 proves that it falls exponentially, without this factor.
    """
    return factor * math.sqrt(count) * 2.0**-count


def _some(kind: Candidates, count: int, tolerance: float) -> float:
    between, within = kind.spreads(count)
    if within <= 0:
        return 0.0
    tolerance = kind.window(tolerance)
    if kind.dimension > 1:
        random = np.random.default_rng(0)  # a grid of so many dimensions has too many places
        shape = _SAMPLES, kind.dimension
        distance = kind.largest_target * random.uniform(0, 1, shape) - math.sqrt(between) * random.normal(size=shape)
        expected = kind.subsets(count) * _near(1, within, distance, tolerance).prod(1)
        return float(-np.expm1(-expected).mean())
    distance = _targets(kind)[:, None] - math.sqrt(between) * _NODES
    expected = _near(kind.subsets(count), within, distance, tolerance)
    return float((-np.expm1(-expected) @ _WEIGHTS).mean())


def _near(subsets: float, variance: float, distance: np.ndarray, tolerance: float) -> np.ndarray:
    """Expected number of normal sums that are within the tolerance of what is so far from their mean."""
    density = np.exp(-(distance**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return subsets * np.minimum(2 * tolerance * density, 1)


def _targets(kind: Candidates) -> np.ndarray:
    return (np.arange(32) + 0.5) / 32 * kind.largest_target


def _check(count: int, kind: Candidates, trials: int) -> None:
    if type(count) is not int or not kind.least <= count <= kind.most:
        raise InputError(f"candidates must be from {kind.least} to {kind.most} for {kind.label}, not {count!r}")
    if type(trials) is not int or not 1 <= trials <= _MOST_TRIALS:
        raise InputError(f"trials must be from 1 to {_MOST_TRIALS:,}, not {trials!r}")
