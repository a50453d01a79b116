"""Theorems that put one random layer in front of each target layer: depth 2L."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

from lottery_jax.theory.measured import FIXED_SIZE, GADGET, of
from lottery_jax.theory.shape import CONVOLUTION, DENSE, LayerShape
from lottery_jax.theory.theorem import SourceLayer, Theorem, gadget_layer, units


@dataclasses.dataclass(frozen=True)
class Pensia2020(Theorem):
    """Pensia, Rajput, Nagle, Vishwakarma and Papailiopoulos 2020, arXiv 2006.07990, Theorem 1.

    Proved, for matrices of spectral norm at most 1 and inputs in the unit ball: with U[-1, 1] weights and
    n_l >= C d_l log(4 L d_l d_{l+1} / eps) hidden units the output is within eps with probability 1 - eps. C is not
    given; here it is twice the candidates for each weight that `estimate_constant` finds, for a gadget has units of
    both signs. Half of the candidates of each sign are kept: no sparsity is proved.
    """

    name: ClassVar[str] = "pensia"
    paper: ClassVar[str] = "Pensia et al. 2020, arXiv 2006.07990, Theorem 1"
    error: ClassVar[str] = "output"
    kinds: ClassVar[tuple[str, ...]] = (DENSE,)
    origin: ClassVar[str] = "estimated"
    note: ClassVar[str] = "Its failure probability is eps, too."

    factor: float = 2 * GADGET.value
    """C, with the natural logarithm."""

    @property
    def constant(self) -> str:
        return f"C is not given in the paper; {self.factor:.2f} is estimated here ({of(GADGET)}, units of both signs)"

    def source_layers(
        self, layers: Sequence[LayerShape], depth: int, tolerance: float, delta: float
    ) -> Sequence[SourceLayer]:
        found = []
        for layer in layers:
            weights = layer.inputs * layer.outputs * layer.places
            hidden = units(self.factor * layer.inputs * math.log(4 * depth * weights / tolerance))
            found.append(gadget_layer(layer, hidden, hidden / layer.inputs / 2))
        return found


@dataclasses.dataclass(frozen=True)
class DaCunha2022(Pensia2020):
    """da Cunha, Natale and Viennot 2022 (ICLR), "Proving the Lottery Ticket Hypothesis for Convolutional ...".

    Proved: any convolutional network, by a random one that is larger by a logarithmic factor: a 1 x 1 convolution,
    whose mask gives each input channel units of its own, in front of each k x k one; inputs are never negative (that,
    and the layout, from memory).
    The exact form of the logarithm is not taken from the paper: it is Theorem 1's, with the kernel's places among the
    weights.
    """

    name: ClassVar[str] = "dacunha"
    paper: ClassVar[str] = "da Cunha, Natale and Viennot 2022, ICLR"
    kinds: ClassVar[tuple[str, ...]] = (CONVOLUTION,)
    origin: ClassVar[str] = "estimated"
    note: ClassVar[str] = "Widths are channels; its failure probability is eps, too."

    @property
    def constant(self) -> str:
        return (
            f"the form of the logarithm is unchecked; its constant {self.factor:.2f} is estimated here ({of(GADGET)},"
            " units of both signs)"
        )


@dataclasses.dataclass(frozen=True)
class Natale2024(Theorem):
    """Natale, Ferre', Giambartolomei, Giroire and Mallmann-Trenn 2024, arXiv 2410.14754: subsets of exactly k.

    Proved, for one fixed target in [-sqrt k, sqrt k] and with constant probability: n >= c log2(k / eps) / H2(k / n)
    samples, 1 <= k <= n / 2, H2 the binary entropy; for all targets at once with log2^2. c is not given. Here each
    weight has such a sum in a gadget: 2 n units for both signs, k kept for each sign. That products take the place of
    uniform numbers there is ours.
    """

    name: ClassVar[str] = "natale"
    paper: ClassVar[str] = "Natale et al. 2024, arXiv 2410.14754, section 1"
    error: ClassVar[str] = "weight"
    kinds: ClassVar[tuple[str, ...]] = (DENSE,)
    origin: ClassVar[str] = "estimated"
    note: ClassVar[str] = "One target at a time, constant probability: delta is not used."

    kept: int = 4
    """k, candidates that each weight keeps for each sign."""
    factor: float | None = None
    """c; as measured for subsets of 4 if left out."""

    @property
    def constant(self) -> str:
        if self.factor is not None:
            return f"c = {self.factor:g} was given"
        return f"c is not given in the paper; {measured_entropy_factor():.2f} is estimated here ({of(FIXED_SIZE)})"

    def samples(self, tolerance: float) -> int:
        """The least n with n H2(k / n) >= c log2(k / eps)."""
        factor = measured_entropy_factor() if self.factor is None else self.factor
        asked, low = factor * math.log2(self.kept / tolerance), 2 * self.kept
        high = low
        while high * entropy(self.kept / high) < asked:
            low, high = high, 2 * high
        while low < high:  # n H2(k / n) grows with n
            middle = (low + high) // 2
            low, high = (low, middle) if middle * entropy(self.kept / middle) >= asked else (middle + 1, high)
        return low

    def source_layers(
        self, layers: Sequence[LayerShape], depth: int, tolerance: float, delta: float
    ) -> Sequence[SourceLayer]:
        each = 2 * self.samples(tolerance)
        return [gadget_layer(layer, layer.inputs * each, 2 * self.kept) for layer in layers]


def entropy(fraction: float) -> float:
    """H2 in bits.

    >>> entropy(0.5), entropy(0.0)
    (1.0, 0.0)
    """
    return sum(-p * math.log2(p) for p in (fraction, 1 - fraction) if p > 0)


def measured_entropy_factor() -> float:
    """c = n H2(k / n) / log2(k / eps) for the n that was measured."""
    size, count = FIXED_SIZE_KEPT, FIXED_SIZE.candidates
    return count * entropy(size / count) / math.log2(size / FIXED_SIZE.tolerance)


FIXED_SIZE_KEPT = 4


@dataclasses.dataclass(frozen=True)
class PensiaLower(Theorem):
    """Pensia et al. 2020, arXiv 2006.07990, Theorem 2: no source can be smaller.

    Proved: a source of two layers in place of a d x d one needs Omega(d^2 log 1/eps) weights, so a width of
    Omega(d log 1/eps). Its constant is not taken from the paper; 1 with log2 follows by counting for errors of single
    weights: P random weights have 2^P masks, each is within eps of a part eps^N of all N weights in [-1, 1], so
    P >= N log2(1/eps).
    """

    name: ClassVar[str] = "pensia-lower"
    paper: ClassVar[str] = "Pensia et al. 2020, arXiv 2006.07990, Theorem 2"
    error: ClassVar[str] = "weight"
    kinds: ClassVar[tuple[str, ...]] = (DENSE, CONVOLUTION)
    origin: ClassVar[str] = "counting"
    note: ClassVar[str] = "A lower bound: fewer random weights cannot do; delta is not used."

    @property
    def constant(self) -> str:
        return "1 bit of mask for each bit of accuracy: by counting, ours; the paper's constant is unchecked"

    def source_layers(
        self, layers: Sequence[LayerShape], depth: int, tolerance: float, delta: float
    ) -> Sequence[SourceLayer]:
        found = []
        for layer in layers:
            needed = units(layer.weights * math.log2(1 / tolerance))
            found.append(SourceLayer(units(needed / (layer.inputs + layer.weights / layer.inputs)), needed, None))
        return found
