"""Random subset-sum problems: distributions of candidates and targets, and which subsets are allowed.

All distributions are symmetric around 0, so that the first-moment formula only needs the number of subsets and the
variances of their sums. A new distribution is a class and one line in `DISTRIBUTIONS`.
"""

import abc
import dataclasses
import math
from typing import ClassVar

import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.rng.sampler import Sampler, draw_host
from lottery_jax.subset_sum import FixedSize, MeetInTheMiddle, Solution, Solver, Vector

UNIFORM = Sampler.uniform(-1, 1)
_STREAMS = 4  # per number of candidates: first and second factors, signs of units, targets


@dataclasses.dataclass(frozen=True)
class Candidates(abc.ABC):
    """A distribution of random problems."""

    name: ClassVar[str]
    largest_target: ClassVar[float]
    """Targets are uniform from minus this to this."""
    second_moment: ClassVar[float]
    """Mean square of a candidate."""
    dimension: ClassVar[int] = 1
    """Numbers of a candidate and a target."""
    padded: ClassVar[bool] = True
    """Whether zeros may be added to the candidates without changing the least residual."""
    least: ClassVar[int] = 1
    """Least number of candidates."""
    most: ClassVar[int] = 24
    """Largest number of candidates: microseconds per problem, residuals well above the step of the grid."""

    @property
    def label(self) -> str:
        """Its name and size."""
        return self.name

    @abc.abstractmethod
    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        """Candidates float32 [trials, count]; absent ones are 0."""

    def targets(self, count: int, trials: int, seed: int) -> np.ndarray:
        """Targets float32 [trials]."""
        drawn = draw_host(UNIFORM, seed=seed, stream=_STREAMS * count + 3, shape=(trials,))
        return drawn * np.float32(self.largest_target)

    def solver(self) -> Solver[Solution]:
        """The exact solver of these problems."""
        return MeetInTheMiddle()

    def window(self, tolerance: float) -> float:
        """Largest distance to the target at which a continuous sum counts as a success."""
        return tolerance

    def count_probabilities(self, count: int) -> np.ndarray:
        """Probabilities [count + 1] that 0, 1, ..., count of the candidates are present."""
        found = np.zeros(count + 1)
        found[count] = 1
        return found

    def subsets(self, count: int) -> float:
        """Number of subsets."""
        return 2.0**count

    def variances(self, count: int) -> tuple[float, float]:
        """Variance of the mean of all subset sums between problems, and of the sums around it within a problem."""
        half = count * self.second_moment / 4
        return half, half


@dataclasses.dataclass(frozen=True)
class ScalarCandidates(Candidates):
    """Numbers and targets from U[-1, 1]: the setting of Lueker 1998."""

    name: ClassVar[str] = "scalar"
    largest_target: ClassVar[float] = 1.0
    second_moment: ClassVar[float] = 1 / 3

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(UNIFORM, seed=seed, stream=_STREAMS * count, shape=(trials, count))


@dataclasses.dataclass(frozen=True)
class ProductCandidates(Candidates):
    """Products u v of two numbers from U[-1, 1]; targets within 1/4, as scaled by the construction `pensia`."""

    name: ClassVar[str] = "product"
    largest_target: ClassVar[float] = 0.25
    second_moment: ClassVar[float] = 1 / 9

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        shape = trials, count
        first, second = (draw_host(UNIFORM, seed=seed, stream=_STREAMS * count + at, shape=shape) for at in (0, 1))
        return first * second


@dataclasses.dataclass(frozen=True)
class GadgetCandidates(ProductCandidates):
    """A gadget of 2 n units and one sign of input: the first n units, or fewer, whose first weight has that sign."""

    name: ClassVar[str] = "gadget"

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        first = draw_host(UNIFORM, seed=seed, stream=_STREAMS * count + 2, shape=(trials, 2 * count))
        order = np.argsort(first <= 0, axis=1, kind="stable")[:, :count]
        usable = np.maximum(np.take_along_axis(first, order, 1), 0)
        return usable * draw_host(UNIFORM, seed=seed, stream=_STREAMS * count + 1, shape=(trials, count))

    def count_probabilities(self, count: int) -> np.ndarray:
        binomial = np.array([math.comb(2 * count, k) for k in range(2 * count + 1)], np.float64) * 4.0**-count
        return np.append(binomial[:count], binomial[count:].sum())


@dataclasses.dataclass(frozen=True)
class SizedCandidates(ScalarCandidates):
    """Candidates with a size, which ends their label, as in "quantised 8"."""

    size: int = 1

    @property
    def label(self) -> str:
        return f"{self.name} {self.size}"


@dataclasses.dataclass(frozen=True)
class QuantisedCandidates(SizedCandidates):
    """Candidates and targets that are multiples of 2**-size in [-1, 1] (Kumar and Natale 2025)."""

    name: ClassVar[str] = "quantised"

    size: int = 8

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(Sampler.grid(self.size), seed=seed, stream=_STREAMS * count, shape=(trials, count))

    def targets(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(Sampler.grid(self.size), seed=seed, stream=_STREAMS * count + 3, shape=(trials,))

    def window(self, tolerance: float) -> float:
        step = 2.0**-self.size
        return (math.floor(tolerance / step) + 0.5) * step


@dataclasses.dataclass(frozen=True)
class FixedSizeCandidates(SizedCandidates):
    """Numbers from U[-1, 1] with subsets of exactly `size`; targets within sqrt(size) (Natale et al. 2024)."""

    name: ClassVar[str] = "fixed-size"
    padded: ClassVar[bool] = False
    most: ClassVar[int] = FixedSize.max_candidates

    size: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.size <= FixedSize.max_candidates:
            raise InputError(f"size must be from 1 to {FixedSize.max_candidates} kept candidates, got {self.size}")

    @property
    def largest_target(self) -> float:  # type: ignore[override]
        return math.sqrt(self.size)

    def solver(self) -> Solver[Solution]:
        return FixedSize(self.size)

    @property
    def least(self) -> int:
        return self.size

    def subsets(self, count: int) -> float:
        return float(math.comb(count, self.size))

    def variances(self, count: int) -> tuple[float, float]:
        between = self.size**2 / count * self.second_moment
        return between, self.size * self.second_moment - between


@dataclasses.dataclass(frozen=True)
class VectorCandidates(SizedCandidates):
    """Vectors of `size` numbers from U[-1, 1] and such a target; the error is that of the worst coordinate.

    The problem of structured pruning: all weights of a neuron or channel share one subset (Becchetti et al., arXiv
    2207.13944). The least residual decreases as 2^(-n / size).

    >>> VectorCandidates(2).draw(6, 10, seed=0).shape
    (10, 6, 2)
    """

    name: ClassVar[str] = "vectors"
    most: ClassVar[int] = 16

    size: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 8:
            raise InputError(f"size must be from 1 to 8 numbers of a vector, got {self.size}")

    def solver(self) -> Solver[Solution]:
        return Vector()

    @property
    def dimension(self) -> int:
        return self.size

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(UNIFORM, seed=seed, stream=_STREAMS * count, shape=(trials, count, self.size))

    def targets(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(UNIFORM, seed=seed, stream=_STREAMS * count + 3, shape=(trials, self.size))


DISTRIBUTIONS: dict[str, type[Candidates]] = {
    kind.name: kind
    for kind in (
        ScalarCandidates,
        ProductCandidates,
        GadgetCandidates,
        FixedSizeCandidates,
        QuantisedCandidates,
        VectorCandidates,
    )
}


def candidates_named(name: str | Candidates) -> Candidates:
    """The distribution of a name, with its default size, or of a label such as "fixed-size 4"; raises `InputError`.

    >>> candidates_named("quantised 4")
    QuantisedCandidates(size=4)
    """
    if isinstance(name, Candidates):
        return name
    kind, _, size = name.partition(" ")
    if kind not in DISTRIBUTIONS:
        raise InputError(f"distribution {kind!r} is unknown; {suggest(kind, DISTRIBUTIONS)}")
    found = DISTRIBUTIONS[kind]()
    if not size:
        return found
    if not isinstance(found, SizedCandidates) or not size.isdecimal():
        raise InputError(f"distribution {name!r} is unknown; {kind} has no size {size!r}")
    return dataclasses.replace(found, size=int(size))
