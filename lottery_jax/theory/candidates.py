"""What is drawn in a random subset-sum problem: candidates, a target, and which subsets count.

Each distribution is one frozen dataclass. All of them are symmetric around 0, so that the numbers that the first-moment
formula needs are few: how many subsets there are, and how far their sums spread.

Multidimensional random subset sums: one subset for several numbers at once (Becchetti et al., arXiv 2207.13944).

It is what structured pruning asks for: a neuron or a channel is kept whole or not at all, and all of its weights must
be met by the same choice. Every coordinate costs as many candidates again: the residual falls as 2^(-n / d).
Every kind of random problem by its name; a new one is a class of its own and one line here.
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

STREAMS = 4
"""For each number of candidates: first and second factors, which units are usable, targets."""


@dataclasses.dataclass(frozen=True)
class Candidates(abc.ABC):
    """A kind of random problem. Targets are uniform on [-reach, reach]."""

    name: ClassVar[str]
    reach: ClassVar[float]
    second_moment: ClassVar[float]
    """Mean square of a candidate."""

    @property
    def label(self) -> str:
        """Its name, with what it was asked for."""
        return self.name

    @property
    def largest_target(self) -> float:
        """Targets are uniform from minus this to this."""
        return self.reach

    @abc.abstractmethod
    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        """Candidates float32 [trials, count]; a missing one is 0."""

    def targets(self, count: int, trials: int, seed: int) -> np.ndarray:
        """Targets float32 [trials]."""
        drawn = draw_host(UNIFORM, seed=seed, stream=STREAMS * count + 3, shape=(trials,))
        return drawn * np.float32(self.largest_target)

    def solver(self) -> Solver[Solution]:
        """The exact solver of these problems."""
        return MeetInTheMiddle()

    @property
    def dimension(self) -> int:
        """Numbers that one subset must meet at once."""
        return 1

    def window(self, tolerance: float) -> float:
        """How far from the target a sum counts that is spread out evenly."""
        return tolerance

    @property
    def padded(self) -> bool:
        """Whether candidates of 0 may be added without changing the least residual."""
        return True

    @property
    def least(self) -> int:
        """Fewest candidates that make sense."""
        return 1

    @property
    def most(self) -> int:
        """Up to here a problem takes microseconds, and its least residual is well above the grid's step."""
        return 24

    def missing(self, count: int) -> np.ndarray:
        """Probabilities [count + 1] that 0, 1, ... of the candidates are there."""
        found = np.zeros(count + 1)
        found[count] = 1
        return found

    def subsets(self, count: int) -> float:
        """How many subsets there are."""
        return 2.0**count

    def spreads(self, count: int) -> tuple[float, float]:
        """Variance of the subsets' mean from draw to draw, and of a sum around that mean within a draw."""
        half = count * self.second_moment / 4
        return half, half


@dataclasses.dataclass(frozen=True)
class ScalarCandidates(Candidates):
    """Plain numbers from U[-1, 1], and targets from there too: the setting of Lueker 1998."""

    name: ClassVar[str] = "scalar"
    reach: ClassVar[float] = 1.0
    second_moment: ClassVar[float] = 1 / 3

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(UNIFORM, seed=seed, stream=STREAMS * count, shape=(trials, count))


@dataclasses.dataclass(frozen=True)
class ProductCandidates(Candidates):
    """Products u v of two numbers from U[-1, 1]; targets are within 1/4, as the construction `pensia` scales them."""

    name: ClassVar[str] = "product"
    reach: ClassVar[float] = 0.25
    second_moment: ClassVar[float] = 1 / 9

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        shape = trials, count
        first, second = (draw_host(UNIFORM, seed=seed, stream=STREAMS * count + at, shape=shape) for at in (0, 1))
        return first * second


@dataclasses.dataclass(frozen=True)
class GadgetCandidates(ProductCandidates):
    """A gadget of 2 n units and one sign of input: the first n of the units whose first weight has that sign.

    Where fewer than n have it, there are fewer candidates.
    """

    name: ClassVar[str] = "gadget"

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        first = draw_host(UNIFORM, seed=seed, stream=STREAMS * count + 2, shape=(trials, 2 * count))
        places = np.argsort(first <= 0, axis=1, kind="stable")[:, :count]
        usable = np.maximum(np.take_along_axis(first, places, 1), 0)
        return usable * draw_host(UNIFORM, seed=seed, stream=STREAMS * count + 1, shape=(trials, count))

    def missing(self, count: int) -> np.ndarray:
        chances = np.array([math.comb(2 * count, k) for k in range(2 * count + 1)], np.float64) * 4.0**-count
        return np.append(chances[:count], chances[count:].sum())


@dataclasses.dataclass(frozen=True)
class SizedCandidates(ScalarCandidates):
    """Candidates with a number of their own, with which their label ends, as in "quantised 8"."""

    size: int = 1

    @property
    def label(self) -> str:
        return f"{self.name} {self.size}"


@dataclasses.dataclass(frozen=True)
class QuantisedCandidates(SizedCandidates):
    """Multiples of 2**-size in [-1, 1], targets from there too: below one step, success is equality (Kumar 2025)."""

    name: ClassVar[str] = "quantised"

    size: int = 8

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(Sampler.grid(self.size), seed=seed, stream=STREAMS * count, shape=(trials, count))

    def targets(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(Sampler.grid(self.size), seed=seed, stream=STREAMS * count + 3, shape=(trials,))

    def window(self, tolerance: float) -> float:
        step = 2.0**-self.size
        return (math.floor(tolerance / step) + 0.5) * step


@dataclasses.dataclass(frozen=True)
class FixedSizeCandidates(SizedCandidates):
    """Numbers from U[-1, 1] of which exactly `size` are chosen; targets within sqrt(size) (Natale et al. 2024)."""

    name: ClassVar[str] = "fixed-size"

    size: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.size <= FixedSize.max_candidates:
            raise InputError(f"size must be from 1 to {FixedSize.max_candidates} chosen candidates, not {self.size}")

    @property
    def largest_target(self) -> float:
        return math.sqrt(self.size)

    def solver(self) -> Solver[Solution]:
        return FixedSize(self.size)

    @property
    def padded(self) -> bool:
        return False

    @property
    def least(self) -> int:
        return self.size

    @property
    def most(self) -> int:
        return FixedSize.max_candidates

    def subsets(self, count: int) -> float:
        return float(math.comb(count, self.size))

    def spreads(self, count: int) -> tuple[float, float]:
        between = self.size**2 / count * self.second_moment
        return between, self.size * self.second_moment - between


@dataclasses.dataclass(frozen=True)
class VectorCandidates(SizedCandidates):
    """Vectors of `size` numbers from U[-1, 1], and a target of as many; the error is that of the worst coordinate.

    >>> VectorCandidates(2).draw(6, 10, seed=0).shape
    (10, 6, 2)
    """

    name: ClassVar[str] = "vectors"

    size: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 8:
            raise InputError(f"size must be from 1 to 8 numbers in a vector, not {self.size}")

    def solver(self) -> Solver[Solution]:
        return Vector()

    @property
    def dimension(self) -> int:
        return self.size

    @property
    def most(self) -> int:
        return 16

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(UNIFORM, seed=seed, stream=STREAMS * count, shape=(trials, count, self.size))

    def targets(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(UNIFORM, seed=seed, stream=STREAMS * count + 3, shape=(trials, self.size))


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
    """The distribution of a name with its usual options, or of a label, "fixed-size 4"; raises `InputError`.

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
