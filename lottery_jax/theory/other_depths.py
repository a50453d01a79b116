"""Theorems with sources of other depths, other random weights, or for attention."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

from lottery_jax.theory.measured import PRODUCT, SCALAR, of
from lottery_jax.theory.shape import ATTENTION, DENSE, LayerShape
from lottery_jax.theory.theorem import SourceLayer, Theorem, gadget_layer, units


@dataclasses.dataclass(frozen=True)
class Burkholz2022(Theorem):
    """Burkholz 2022, arXiv 2205.02321: depth L + 1.

    Proved: the first layer by two random ones, every later one by one; each target neuron exists rho = O(log 1/eps)
    times, and each copy is a plain U[-1, 1] subset sum over the copies of its inputs. rho copies of the constant 1
    carry biases. The authors ran rho = 15, 30 for the first layer because of the two signs. rho's constant is not taken
    from the paper: here it is that of `estimate_constant`, at eps or a weight's part of delta, whichever is less.
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
        return f"the constant of rho is unchecked; {self.factor:.2f} is estimated here ({of(SCALAR)})"

    def depth(self, layers: Sequence[LayerShape]) -> int:
        return len(layers) + 1

    def source_layers(
        self, layers: Sequence[LayerShape], depth: int, tolerance: float, delta: float
    ) -> Sequence[SourceLayer]:
        sums = sum(layer.weights for layer in layers)
        copies = units(self.factor * math.log(1 / min(tolerance, delta / sums)))
        found = []
        for place, layer in enumerate(layers):
            outputs = layer.outputs if place == len(layers) - 1 else copies * (layer.outputs + 1)
            kept_sums = layer.weights * (1 if place == len(layers) - 1 else copies)
            if place == 0:
                hidden = 2 * copies * layer.inputs
                weights = layer.inputs * hidden + hidden * outputs
                found.append(SourceLayer(hidden, weights, hidden + kept_sums * copies))
            else:
                hidden = copies * layer.inputs
                found.append(SourceLayer(hidden, hidden * outputs, kept_sums * copies // 2))
        return found


@dataclasses.dataclass(frozen=True)
class Otsuka2025(Theorem):
    """Otsuka et al. 2025, arXiv 2511.04217: attention, independent of the sequence's length.

    Proved, for each head: W_Q W_K^T / sqrt(d_K) and W_V W_O are each a product of two masked random matrices without a
    ReLU, with n_K >= d1 C log(8 H alpha^3 d1^1.5 / eps) and n_V >= d1 C log(2 H alpha d1 sqrt(d2) / eps), inputs of
    norm at most alpha, Q and K from U[-n_K^(1/4), n_K^(1/4)], V and O from U[-1, 1]. C is not given.
    """

    name: ClassVar[str] = "otsuka"
    paper: ClassVar[str] = "Otsuka et al. 2025, arXiv 2511.04217"
    error: ClassVar[str] = "output"
    kinds: ClassVar[tuple[str, ...]] = (ATTENTION,)
    origin: ClassVar[str] = "estimated"
    note: ClassVar[str] = "Widths are n_K or n_V of one head; biases are left out, and delta is not used."

    factor: float = PRODUCT.value
    """C, with the natural logarithm."""
    alpha: float = 1.0
    """Largest norm of a token."""

    @property
    def constant(self) -> str:
        return (
            f"C is not given in the paper; {self.factor:.2f} is estimated here ({of(PRODUCT)}, no sign split);"
            f" alpha = {self.alpha:g} is assumed"
        )

    def source_layers(
        self, layers: Sequence[LayerShape], depth: int, tolerance: float, delta: float
    ) -> Sequence[SourceLayer]:
        found = []
        for layer in layers:
            size, heads = layer.inputs, layer.heads
            keys = 8 * heads * self.alpha**3 * size**1.5 / tolerance
            values = 2 * heads * self.alpha * size * math.sqrt(layer.outputs) / tolerance
            widths = [units(self.factor * size * math.log(each)) for each in (keys, values)]
            weights = heads * (2 * size * widths[0] + (size + layer.outputs) * widths[1])
            # Half of the second matrix, and one edge of the first for each unit.
            kept = heads * sum(
                width * out // 2 + width for width, out in zip(widths, (size, layer.outputs), strict=True)
            )
            found.append(SourceLayer(max(widths), weights, kept))
        return found


@dataclasses.dataclass(frozen=True)
class Kumar2025(Theorem):
    """Kumar and Natale 2025, arXiv 2508.11020: quantised weights, exactly.

    Proved: with random weights from {-1, ..., 1} in steps of delta = 2^-k, more than 2 log2(1 / delta) samples for each
    link and C d log2(1 / delta) hidden units represent any target of steps delta with no error. Here the step is the
    largest power of two whose rounding error is at most eps, and both signs of a unit count: C = 4 is that doubling,
    not the paper's.
    """

    name: ClassVar[str] = "kumar"
    paper: ClassVar[str] = "Kumar and Natale 2025, arXiv 2508.11020"
    error: ClassVar[str] = "exact"
    kinds: ClassVar[tuple[str, ...]] = (DENSE,)
    origin: ClassVar[str] = "paper"
    note: ClassVar[str] = "Exact for a target rounded to steps of at most 2 eps; delta is not used."

    @property
    def constant(self) -> str:
        return "more than 2 log2(1/step) samples a link is the paper's; two signs of units for each are ours"

    def samples(self, tolerance: float) -> int:
        """The fewest whole samples above 2 log2(1 / step).

        >>> Kumar2025().samples(0.01)  # steps of 1/64
        13
        """
        bits = max(1, math.ceil(math.log2(1 / (2 * tolerance)) - 1e-9))
        return 2 * bits + 1

    def source_layers(
        self, layers: Sequence[LayerShape], depth: int, tolerance: float, delta: float
    ) -> Sequence[SourceLayer]:
        samples = self.samples(tolerance)
        return [gadget_layer(layer, 2 * layer.inputs * samples, samples) for layer in layers]
