"""What float32 may add to effective weights, bounded from the kept weights alone, for all inputs.

A float32 sum of N terms, in any order, differs from the exact sum by at most gamma_N times the sum of absolute terms,
gamma_N = N u / (1 - N u) and u = 2**-24 (Higham 2002, chapters 3 and 4). So a float32 layer computes exactly what its
effective weights would if each were moved by at most gamma_N times the sum of its own absolute terms. About half of
that is enough (`_sum_error`), because no partial sum is larger than the positive or the negative terms together.

Not covered: products in less than float32 (TF32, bfloat16), and convolutions by Winograd or Fourier transforms.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Self

import numpy as np

from lottery_jax.networks.node import child_path
from lottery_jax.networks.sources.base import NamedArrays, Source
from lottery_jax.tickets.effective_slices import EffectiveSlice

UNIT = 2.0**-24
SMALLEST = 2.0**-126
"""The smallest normal float32; smaller products may be flushed to zero."""
LARGEST = float(np.finfo(np.float32).max)

FINE = 2.0**-8
"""A tolerance below this part of a tensor's largest weight counts as finer than float32.

Float32 may add the tolerance. If no terms of such a tensor cancel, it may also add a multiple of what it may add to the
largest weight in the target's own network.
"""

SUM_MULTIPLE, PRODUCT_MULTIPLE = 64, 512
"""The multiples: if the kept weights of a target weight are added up first; if each of them multiplies an input."""

MOST = 2.0**-4
"""The largest part of a tensor's largest weight that such a multiple may be."""

CANCELLATION = 128.0
"""Terms cancel if the absolute terms of a weight add up to this many times the tensor's largest weight."""

_FLOAT64_SHARE = 2.0**-10  # of the tolerance, for rounding in float64
_EXTRA_ROUNDINGS = 2  # the product with an input, and the gain


def gamma(roundings: np.ndarray | float) -> np.ndarray:
    """Relative error bound of a value after so many float32 roundings; infinite if there is none.

    >>> float(gamma(1)) >= 2.0**-24, float(gamma(2.0**24))
    (True, inf)
    """
    product = np.asarray(roundings, np.float64) * UNIT
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(product < 1, product / (1 - product), np.inf) * (1 + 2.0**-40)


def _sum_error(terms: np.ndarray, size: np.ndarray, total: np.ndarray, roundings: int = 0) -> np.ndarray:
    """Largest error that the additions of a float32 sum make, in any order.

    Each addition adds at most u times its own result, a partial sum. Exactly, a partial sum is at most the sum of the
    terms of one sign, (size + total) / 2.

    Args:
        terms: Number of terms.
        size: Sum of absolute terms.
        total: Absolute value of the sum.
        roundings: Of each term before it is added.
    """
    return gamma(terms) * ((size + total) / 2 + gamma(terms + roundings) * size)


@dataclasses.dataclass(frozen=True, eq=False)
class RowSums:
    """Statistics of the effective weights of a tensor for each output, [copies, outputs]; of both signs the larger.

    Attributes:
        kept: Number of kept weights.
        most: Largest number of kept weights of one effective weight.
        total: Sum of the sizes (sums of absolute terms) of all effective weights.
        size: Largest size of one.
        largest: Largest absolute effective weight.
    """

    kept: np.ndarray
    most: np.ndarray
    total: np.ndarray
    size: np.ndarray
    largest: np.ndarray

    @classmethod
    def zeros(cls, copies: int, outputs: int) -> Self:
        """Statistics of no weights, to be updated by `add`."""
        return cls(*(np.zeros((copies, outputs)) for _ in dataclasses.fields(cls)))

    @classmethod
    def of_slice(cls, part: EffectiveSlice, weights_per_output: int) -> Self:
        """Statistics of a slice for its own outputs, the first of them and the last possibly incomplete."""
        copies, count = part.kept.shape
        outputs = np.arange(part.first // weights_per_output, (part.first + count - 1) // weights_per_output + 1)
        starts = np.maximum(outputs * weights_per_output - part.first, 0)
        sizes, values = (array.reshape(-1, copies, count) for array in (part.sizes, np.abs(part.values)))
        return cls(
            np.add.reduceat(part.kept, starts, axis=-1),
            np.maximum.reduceat(part.kept, starts, axis=-1),
            np.add.reduceat(sizes, starts, axis=-1).max(0),
            np.maximum.reduceat(sizes, starts, axis=-1).max(0),
            np.maximum.reduceat(values, starts, axis=-1).max(0),
        )

    def add(self, part: Self, first: int) -> None:
        """Add the statistics of a slice whose first output is `first`."""
        own = slice(first, first + part.kept.shape[1])
        for name in ("kept", "total"):
            getattr(self, name)[:, own] += getattr(part, name)
        for name in ("most", "size", "largest"):
            array = getattr(self, name)[:, own]
            np.maximum(array, getattr(part, name), out=array)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerRounding:
    """Rounding of one random layer in float32.

    Attributes:
        sums: Statistics by parameter, ``weight`` and, with a bias, ``bias``.
        terms: Kept weights of an output, [copies, outputs].
        roundings: Of a single term: in the hidden layers, of its product with an input and with the gain.
        underflow: Absolute error of an output because of products that are flushed to zero, [copies, outputs].
        hidden: Largest hidden value for inputs of absolute value 1.
    """

    path: str
    source: Source
    sums: Mapping[str, RowSums]
    terms: np.ndarray
    roundings: int
    underflow: np.ndarray
    hidden: float

    @property
    def relative(self) -> np.ndarray:
        """Error bound of an output relative to its absolute terms, [copies, outputs]."""
        return gamma(self.terms + self.roundings)

    def additions(self) -> dict[str, np.ndarray]:
        """The largest move of a weight of each output that float32 amounts to, by tensor, [copies, outputs]."""
        found = {child_path(self.path, parameter): self._move(sums) for parameter, sums in self.sums.items()}
        name = child_path(self.path, "weight")
        return found | {name: found[name] + self.underflow}

    def _move(self, sums: RowSums) -> np.ndarray:
        if not self.source.sums_weights:
            each = gamma(self.roundings)
            return each * sums.size + (1 + each) * _sum_error(self.terms, sums.size, sums.largest, self.roundings)
        # First the sum of the kept weights is rounded, then the sum over inputs, whose terms are effective weights.
        first = _sum_error(sums.most, sums.size, sums.largest)
        return first + gamma(self.fan_in + self.roundings) * (sums.largest + first)

    @property
    def fan_in(self) -> int:
        """Number of effective weights of an output, its bias included."""
        return sum(math.prod(shape[1:]) for shape in self.source.layer.tensors().values())


def layer_rounding(path: str, source: Source, sums: Mapping[str, RowSums], hidden: NamedArrays) -> LayerRounding:
    """The rounding of a random layer from statistics of its tensors and its masked hidden tensors."""
    kept = sum(one.kept for one in sums.values())
    least = min((float(np.abs(value[value != 0]).min(initial=1.0)) for value in hidden.values()), default=1.0)
    # A flushed hidden product changes a term by SMALLEST times the second weight, which is the size over the first.
    flushed = sum(one.total for one in sums.values()) / least + source.gain * kept
    return LayerRounding(
        path=path,
        source=source,
        sums=sums,
        terms=np.asarray(kept),
        roundings=source.hidden_roundings(hidden) + _EXTRA_ROUNDINGS,
        underflow=np.asarray(flushed * SMALLEST),
        hidden=source.largest_hidden(hidden),
    )


@dataclasses.dataclass(frozen=True)
class Float32Bound:
    """The largest move of a weight that float32 amounts to, relative to what is allowed: of all tensors the worst.

    Attributes:
        addition: That move; `allowed` is the largest allowed one in `tensor`.
        target_addition: What float32 may add to the largest weight of that tensor in the target's own network.
        size: Largest sum of absolute terms of a weight of that tensor; `largest` is its largest target weight.
    """

    addition: float
    allowed: float
    target_addition: float
    tensor: str
    size: float
    largest: float

    @property
    def _cancels(self) -> bool:
        return self.size > CANCELLATION * self.largest

    @property
    def faults(self) -> list[str]:
        """Why the ticket is broken, in sentences."""
        if self.addition <= self.allowed or not self._cancels:
            return []
        return [
            f"the terms of {self.tensor!r} cancel: its float32 network may differ as if weights moved by"
            f" {self.addition:.3g}, and {self.allowed:.3g} is allowed; the absolute terms of a weight add up to"
            f" {self.size:.3g}, the largest target weight is {self.largest:.3g}"
        ]

    @property
    def doubts(self) -> list[str]:
        """Why the ticket has no guarantee: sums are long, and no terms cancel."""
        if self.addition <= self.allowed or self._cancels:
            return []
        return [
            f"the sums of {self.tensor!r} are too long for float32: its network may differ as if weights moved by"
            f" {self.addition:.3g}, and {self.allowed:.3g} is allowed"
        ]


def float32_bound(
    layers: Mapping[str, LayerRounding], allowed: Mapping[str, float], largest: Mapping[str, float]
) -> Float32Bound:
    """The bound of the tensor that is nearest to what is allowed, or farthest beyond.

    Args:
        layers: The rounding of each random layer by path.
        allowed: The tolerance of each tensor; `largest` has the largest absolute target weight of each.
    """
    found: list[tuple[float, Float32Bound]] = []
    for layer in layers.values():
        for sums, (name, moves) in zip(layer.sums.values(), layer.additions().items(), strict=True):
            own = float(gamma(layer.fan_in + 1)) * largest[name]
            multiple = SUM_MULTIPLE if layer.source.sums_weights else PRODUCT_MULTIPLE
            addition, size, limit = float(moves.max()), float(sums.size.max()), allowed[name]
            if limit < FINE * largest[name] and size <= CANCELLATION * largest[name]:
                limit = max(limit, min(multiple * own, MOST * largest[name]))
            bound = Float32Bound(addition, limit, own, name, size, largest[name])
            found.append((addition / limit if limit else math.inf if addition else 0.0, bound))
    return max(found, key=lambda pair: pair[0])[1]


def any_cancels(sums: Mapping[str, RowSums], largest: Mapping[str, float]) -> bool:
    """Whether the terms of any tensor cancel, whatever float32 makes of it."""
    return any(float(own.size.max()) > CANCELLATION * largest[name] for name, own in sums.items())


def float64_faults(sums: Mapping[str, RowSums], allowed: Mapping[str, float]) -> list[str]:
    """Tensors whose terms cancel so far that float64 does not show their residuals."""
    reasons = []
    for name, own in sums.items():
        error = float(((own.most + 3) * own.size).max()) * 2.0**-53  # a term is a product of up to three
        if error > _FLOAT64_SHARE * allowed[name]:
            reasons.append(
                f"the terms of {name!r} cancel: their sums are only known to {error:.3g} in float64, more than"
                f" {_FLOAT64_SHARE:.2g} of the tolerance {allowed[name]:.3g}"
            )
    return reasons
