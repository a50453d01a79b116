"""The published theorems by name, in the order of the table. A new theorem is a class and one line in `THEOREMS`."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.target import Target
from lottery_jax.theory.success import FIXED_SIZE, GADGET, PRODUCT, SCALAR
from lottery_jax.theory.theorem import (
    ATTENTION,
    CONVOLUTION,
    DENSE,
    Layers,
    SourceLayer,
    Theorem,
    gadget_layer,
    units,
)


@dataclasses.dataclass(frozen=True)
class Pensia2020(Theorem):
    """Pensia, Rajput, Nagle, Vishwakarma and Papailiopoulos 2020, arXiv 2006.07990, Theorem 1.

    Proved for matrices of spectral norm at most 1 and inputs in the unit ball: with U[-1, 1] weights and
    n_l >= C d_l log(4 L d_l d_{l+1} / eps) hidden units the output is within eps with probability 1 - eps. The paper
    does not give C. Here it is twice the candidates per weight that `estimate_constant` finds, because a gadget has
    units of both signs. Half of the candidates of each sign are kept: no sparsity is proved.
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
        return f"C is not given in the paper; {self.factor:.2f} is estimated here ({GADGET}, units of both signs)"

    def source_layers(self, layers: Layers, depth: int, tolerance: float, delta: float) -> list[SourceLayer]:
        found = []
        for layer in layers:
            weights = layer.inputs * layer.outputs * layer.kernel_size
            hidden = units(self.factor * layer.inputs * math.log(4 * depth * weights / tolerance))
            found.append(gadget_layer(layer, hidden, hidden / layer.inputs / 2))
        return found


@dataclasses.dataclass(frozen=True)
class DaCunha2022(Pensia2020):
    """da Cunha, Natale and Viennot 2022 (ICLR), "Proving the Lottery Ticket Hypothesis for Convolutional ...".

    Proved: a random network that is larger by a logarithmic factor approximates any convolutional network, with a 1 x 1
    convolution in front of each k x k one; its mask gives each input channel its own units. Inputs are nonnegative
    (this and the layout are from memory). The form of the logarithm is not from this paper: it is that of Pensia's
    Theorem 1 with the kernel's numbers among the weights.
    """

    name: ClassVar[str] = "dacunha"
    paper: ClassVar[str] = "da Cunha, Natale and Viennot 2022, ICLR"
    kinds: ClassVar[tuple[str, ...]] = (CONVOLUTION,)
    origin: ClassVar[str] = "estimated"
    note: ClassVar[str] = "Widths are channels; its failure probability is eps, too."

    @property
    def constant(self) -> str:
        return (
            f"the form of the logarithm is unchecked; its constant {self.factor:.2f} is estimated here ({GADGET},"
            " units of both signs)"
        )


@dataclasses.dataclass(frozen=True)
class Natale2024(Theorem):
    """Natale, Ferre', Giambartolomei, Giroire and Mallmann-Trenn 2024, arXiv 2410.14754: subsets of exactly k.

    Proved for one fixed target in [-sqrt k, sqrt k] and with constant probability: n >= c log2(k / eps) / H2(k / n)
    samples, 1 <= k <= n / 2, H2 the binary entropy; for all targets at once with log2^2. The paper does not give c.
    Here each weight has such a sum in a gadget: 2 n units for both signs, k kept for each sign. That its candidates are
    products, not uniform numbers, is ours.
    """

    name: ClassVar[str] = "natale"
    paper: ClassVar[str] = "Natale et al. 2024, arXiv 2410.14754, section 1"
    error: ClassVar[str] = "weight"
    kinds: ClassVar[tuple[str, ...]] = (DENSE,)
    origin: ClassVar[str] = "estimated"
    note: ClassVar[str] = "One target at a time, constant probability: delta is not used."

    kept: int = 4
    """k, kept candidates per weight and sign."""
    factor: float | None = None
    """c; defaults to the measured one for subsets of 4."""

    @property
    def constant(self) -> str:
        if self.factor is not None:
            return f"c = {self.factor:g} is an argument"
        return f"c is not given in the paper; {measured_entropy_factor():.2f} is estimated here ({FIXED_SIZE})"

    def samples(self, tolerance: float) -> int:
        """The least n with n H2(k / n) >= c log2(k / eps)."""
        factor = measured_entropy_factor() if self.factor is None else self.factor
        required, low = factor * math.log2(self.kept / tolerance), 2 * self.kept
        high = low
        while high * entropy(self.kept / high) < required:
            low, high = high, 2 * high
        while low < high:  # n H2(k / n) grows with n
            middle = (low + high) // 2
            low, high = (low, middle) if middle * entropy(self.kept / middle) >= required else (middle + 1, high)
        return low

    def source_layers(self, layers: Layers, depth: int, tolerance: float, delta: float) -> list[SourceLayer]:
        units_per_input = 2 * self.samples(tolerance)
        return [gadget_layer(layer, layer.inputs * units_per_input, 2 * self.kept) for layer in layers]


def entropy(fraction: float) -> float:
    """The binary entropy H2 in bits.

    >>> entropy(0.5), entropy(0.0)
    (1.0, 0.0)
    """
    return sum(-p * math.log2(p) for p in (fraction, 1 - fraction) if p > 0)


def measured_entropy_factor() -> float:
    """c = n H2(k / n) / log2(k / eps) for the measured n of k = 4."""
    size, count = 4, FIXED_SIZE.candidates
    return count * entropy(size / count) / math.log2(size / FIXED_SIZE.tolerance)


@dataclasses.dataclass(frozen=True)
class PensiaLower(Theorem):
    """Pensia et al. 2020, arXiv 2006.07990, Theorem 2: a lower bound for every source.

    Proved: two layers that replace a d x d one need Omega(d^2 log 1/eps) weights, so a width of Omega(d log 1/eps). The
    constant 1 with log2 is ours, by counting, for errors of single weights: P random weights have 2^P masks, each is
    within eps of a fraction eps^N of all N weights in [-1, 1], so P >= N log2(1/eps).
    """

    name: ClassVar[str] = "pensia-lower"
    paper: ClassVar[str] = "Pensia et al. 2020, arXiv 2006.07990, Theorem 2"
    error: ClassVar[str] = "weight"
    kinds: ClassVar[tuple[str, ...]] = (DENSE, CONVOLUTION)
    origin: ClassVar[str] = "counting"
    note: ClassVar[str] = "A lower bound for every source; delta is not used."

    @property
    def constant(self) -> str:
        return "1 bit of mask per bit of accuracy, by counting, ours; the paper's constant is unchecked"

    def source_layers(self, layers: Layers, depth: int, tolerance: float, delta: float) -> list[SourceLayer]:
        found = []
        for layer in layers:
            needed = units(layer.weights * math.log2(1 / tolerance))
            found.append(SourceLayer(units(needed / (layer.inputs + layer.weights / layer.inputs)), needed, None))
        return found


@dataclasses.dataclass(frozen=True)
class Burkholz2022(Theorem):
    """Burkholz 2022, arXiv 2205.02321: depth L + 1.

    Proved: two random layers replace the first layer, one replaces every later one. Each target neuron has
    rho = O(log 1/eps) copies, and each copy is a U[-1, 1] subset sum over the copies of its inputs; rho copies of the
    constant 1 make biases. The authors ran rho = 15, and 30 for the two signs of the first layer. The constant of rho
    is not from the paper: it is that of `estimate_constant`, at the lesser of eps and a weight's part of delta.
    """

    name: ClassVar[str] = "burkholz"
    paper: ClassVar[str] = "Burkholz 2022, arXiv 2205.02321"
    error: ClassVar[str] = "weight"
    kinds: ClassVar[tuple[str, ...]] = (DENSE,)
    origin: ClassVar[str] = "estimated"
    note: ClassVar[str] = "Its authors ran 15 copies at eps 0.01 and accepted some failures."

    factor: float = SCALAR.value
    """rho over the natural logarithm of 1 / min(eps, delta / weights)."""

    @property
    def constant(self) -> str:
        return f"the constant of rho is unchecked; {self.factor:.2f} is estimated here ({SCALAR})"

    def depth(self, layers: Layers) -> int:
        return len(layers) + 1

    def source_layers(self, layers: Layers, depth: int, tolerance: float, delta: float) -> list[SourceLayer]:
        weights = sum(layer.weights for layer in layers)
        copies = units(self.factor * math.log(1 / min(tolerance, delta / max(weights, 1))))
        found = []
        for index, layer in enumerate(layers):
            outputs = layer.outputs if index == len(layers) - 1 else copies * (layer.outputs + 1)
            kept_sums = layer.weights * (1 if index == len(layers) - 1 else copies)
            if index == 0:
                hidden = 2 * copies * layer.inputs
                weights = layer.inputs * hidden + hidden * outputs
                found.append(SourceLayer(hidden, weights, hidden + kept_sums * copies))
            else:
                hidden = copies * layer.inputs
                found.append(SourceLayer(hidden, hidden * outputs, kept_sums * copies // 2))
        return found


@dataclasses.dataclass(frozen=True)
class Otsuka2025(Theorem):
    """Otsuka et al. 2025, arXiv 2511.04217: attention, independent of the length of the sequence.

    Proved for each head: W_Q W_K^T / sqrt(d_K) and W_V W_O are each a product of two masked random matrices without a
    ReLU, with n_K >= d1 C log(8 H alpha^3 d1^1.5 / eps) and n_V >= d1 C log(2 H alpha d1 sqrt(d2) / eps), inputs of
    norm at most alpha, Q and K from U[-n_K^(1/4), n_K^(1/4)], V and O from U[-1, 1]. The paper does not give C.
    """

    name: ClassVar[str] = "otsuka"
    paper: ClassVar[str] = "Otsuka et al. 2025, arXiv 2511.04217"
    error: ClassVar[str] = "output"
    kinds: ClassVar[tuple[str, ...]] = (ATTENTION,)
    origin: ClassVar[str] = "estimated"
    note: ClassVar[str] = "Widths are n_K or n_V of one head, without biases; delta is not used."

    factor: float = PRODUCT.value
    """C, with the natural logarithm."""
    alpha: float = 1.0
    """Upper bound of the norm of a token."""

    @property
    def constant(self) -> str:
        return (
            f"C is not given in the paper; {self.factor:.2f} is estimated here ({PRODUCT}, no sign split);"
            f" alpha = {self.alpha:g} is assumed"
        )

    def source_layers(self, layers: Layers, depth: int, tolerance: float, delta: float) -> list[SourceLayer]:
        found = []
        for layer in layers:
            size, heads = layer.inputs, layer.heads
            keys = 8 * heads * self.alpha**3 * size**1.5 / tolerance
            values = 2 * heads * self.alpha * size * math.sqrt(layer.outputs) / tolerance
            widths = [units(self.factor * size * math.log(argument)) for argument in (keys, values)]
            weights = heads * (2 * size * widths[0] + (size + layer.outputs) * widths[1])
            # Half of the second matrix, and one weight of the first for each unit.
            kept = heads * sum(
                width * out // 2 + width for width, out in zip(widths, (size, layer.outputs), strict=True)
            )
            found.append(SourceLayer(max(widths), weights, kept))
        return found


@dataclasses.dataclass(frozen=True)
class Kumar2025(Theorem):
    """Kumar and Natale 2025, arXiv 2508.11020: quantised weights, exactly.

    Proved: with random weights from {-1, ..., 1} in steps of delta = 2^-k, more than 2 log2(1 / delta) samples per link
    and C d log2(1 / delta) hidden units represent any target of steps delta exactly. Here the step is the largest power
    of two whose rounding error is at most eps. C = 4 counts units of both signs; it is not the paper's constant.
    """

    name: ClassVar[str] = "kumar"
    paper: ClassVar[str] = "Kumar and Natale 2025, arXiv 2508.11020"
    error: ClassVar[str] = "exact"
    kinds: ClassVar[tuple[str, ...]] = (DENSE,)
    origin: ClassVar[str] = "paper"
    note: ClassVar[str] = "Exact for a target rounded to steps of at most 2 eps; delta is not used."

    @property
    def constant(self) -> str:
        return "more than 2 log2(1/step) samples per link is the paper's; units of both signs for each are ours"

    def samples(self, tolerance: float) -> int:
        """The least number of samples above 2 log2(1 / step).

        >>> Kumar2025().samples(0.01)  # steps of 1/64
        13
        """
        bits = max(1, math.ceil(math.log2(1 / (2 * tolerance)) - 1e-9))
        return 2 * bits + 1

    def source_layers(self, layers: Layers, depth: int, tolerance: float, delta: float) -> list[SourceLayer]:
        samples = self.samples(tolerance)
        return [gadget_layer(layer, 2 * layer.inputs * samples, samples) for layer in layers]


def lower_bound_target(size: int, *, seed: int) -> Target:
    """The instance behind Theorem 2 of Pensia et al. 2020: one layer x -> W x with W [size, size] uniform on [-1, 1].

    A source must have a mask for each of the d^2 log2(1/eps)-bit classes of matrices that differ by more than eps.
    `experiments/pensia_lower_bound.py` measures the required width.

    >>> lower_bound_target(3, seed=0)
    <Target of 9 weights, 1 layer: fc1.weight [3, 3] ([out, in]), inputs [3] of any sign>
    """
    if size < 1:
        raise InputError(f"size must be at least 1, got {size}")
    weight = np.random.default_rng(seed).uniform(-1, 1, (size, size))
    return mlp_target([weight.astype(np.float32)])


THEOREMS: dict[str, type[Theorem]] = {
    theorem.name: theorem
    for theorem in (Pensia2020, PensiaLower, Natale2024, Burkholz2022, DaCunha2022, Otsuka2025, Kumar2025)
}


def theorem_named(name: str) -> Theorem:
    """The theorem of a name with its default constants; raises `InputError` for an unknown name.

    >>> theorem_named("pensia").paper
    'Pensia et al. 2020, arXiv 2006.07990, Theorem 1'
    """
    if name not in THEOREMS:
        raise InputError(f"theorem {name!r} is unknown; {suggest(name, THEOREMS)}")
    return THEOREMS[name]()
