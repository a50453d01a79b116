"""Quantised targets exactly (Kumar and Natale 2025, arXiv 2508.11020): random weights on a grid, and equality.

The source is pensia's with weights from {-1, ..., 1} in steps of 2^-k, so that products u v are multiples of 4^-k. A
layer's gain is a power of two: its target weights over the gain are multiples of 4^-k, too, where their own step is
coarse enough. A subset sum within half a step is then the weight itself, and all sums are float64 without rounding. In
the paper a link takes more than 2 log2(1 / 2^-k) = 2k samples: so many subsets are needed for 4^k sums. Units of weight
0 say nothing, and those of one sign are for inputs of that sign: both are drawn, and not counted among the samples.
"""

import dataclasses
import math
from typing import ClassVar

from lottery_jax.constructions.base import GadgetConstruction
from lottery_jax.errors import InputError
from lottery_jax.networks.node import WeightNode, child_path
from lottery_jax.networks.rewrites import grid_exponent
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler

MOST_SOURCE_BITS = 12
"""Of a step; products of two such weights are float32 without rounding."""


@dataclasses.dataclass(frozen=True)
class Kumar(GadgetConstruction):
    """Quantised weights of Kumar and Natale 2025: random weights on a grid whose subset sums are the target, exactly.

    The target must be quantised (`networks.quantise`). The tolerance is 0, whatever else is asked.

    >>> Kumar(bits=7).sampler.in_words(), Kumar(bits=7).step == 4.0**-7
    ('{-1, ..., 1} in steps of 1/128', True)
    """

    name: ClassVar[str] = "kumar"
    exact: ClassVar[bool] = True

    bits: int = 7
    """k of the random weights' step 2^-k, from 1 to 12; a link takes more than 2k candidates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.bits) is not int or not 1 <= self.bits <= MOST_SOURCE_BITS:
            raise InputError(f"bits must be a whole number from 1 to {MOST_SOURCE_BITS}, not {self.bits!r}; 7 is usual")

    @property
    def sampler(self) -> Sampler:
        return Sampler.grid(self.bits)

    @property
    def step(self) -> float:
        return 4.0**-self.bits

    @property
    def least_units(self) -> int:
        # With much fewer an input would fail most of its weights, however often their own blocks are drawn again.
        return (3 * self.candidates + 3) // 4

    def leaf(self, target: Target, path: str, of: WeightNode) -> Gadget:
        gadget = super().leaf(target, path, of)
        # To the power of two above; a mantissa of 1/2 is a power of two itself.
        fraction, exponent = math.frexp(gadget.gain)
        exponent -= fraction == 0.5
        gadget = dataclasses.replace(gadget, gain=2.0**exponent)
        finest = {name: grid_exponent(target, child_path(path, name)) for name in of.tensors()}
        wanted = {name: -((found - exponent) // 2) for name, found in finest.items() if found is not None}
        worst = max(wanted, key=lambda name: wanted[name], default=None)
        if worst is None or wanted[worst] <= self.bits:
            return gadget
        tensor, needed = child_path(path, worst), wanted[worst]
        if needed > MOST_SOURCE_BITS:
            raise InputError(
                f"{self.name} is for quantised targets, and weights of tensor {tensor!r} are no multiples of"
                f" 2**{exponent - 2 * MOST_SOURCE_BITS}, the finest step that its layer can have; round them with"
                " lottery_jax.networks.rewrites.quantise(target, 8), or --quantise-target 8"
            )
        raise InputError(
            f"weights of tensor {tensor!r} are multiples of 2**{finest[worst]}, which takes bits {needed} or more and"
            f" over {2 * needed} candidates, not bits {self.bits}; or round them to coarser steps"
        )
