"""Quantised targets exactly (Kumar and Natale 2025, arXiv 2508.11020): random weights on a grid, exact sums.

The source is that of `Pensia` with weights from {-1, ..., 1} in steps of 2^-k, and gains that are powers of two, so
that products and scaled target weights are multiples of 4^-k. A sum within half a step then equals the weight.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

from lottery_jax.constructions.base import GadgetConstruction, TensorProblems
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import WeightNode, child_path
from lottery_jax.networks.rewrites import grid_exponent
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import RandomTensor
from lottery_jax.rng.sampler import Sampler

MAX_SOURCE_BITS = 12
"""Largest k; products of two such weights are float32 without rounding."""


@dataclasses.dataclass(frozen=True)
class Kumar(GadgetConstruction):
    """Quantised weights of Kumar and Natale 2025: random weights on a grid whose subset sums are the target, exactly.

    The target must be quantised (`networks.rewrites.quantised`). The tolerance is always 0.

    >>> Kumar(bits=7).sampler.in_words(), Kumar(bits=7).step == 4.0**-7
    ('{-1, ..., 1} in steps of 1/128', True)
    """

    name: ClassVar[str] = "kumar"
    exact: ClassVar[bool] = True

    bits: int = 7
    """k of the random weights' step 2^-k, from 1 to 12; a weight takes more than 2k candidates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.bits) is not int or not 1 <= self.bits <= MAX_SOURCE_BITS:
            raise InputError(f"bits must be a whole number from 1 to {MAX_SOURCE_BITS}, got {self.bits!r}; 7 is usual")

    @property
    def sampler(self) -> Sampler:
        return Sampler.grid(self.bits)

    @property
    def step(self) -> float:
        """Products and scaled target weights are multiples of it."""
        return 4.0**-self.bits

    @property
    def min_units(self) -> int:
        # With far fewer units an input would fail most of its weights, however often their own blocks are redrawn.
        return (3 * self.candidates + 3) // 4

    def random_layer(self, target: Target, path: str, of: WeightNode) -> Gadget:
        gadget = super().random_layer(target, path, of)
        # The next power of two; a mantissa of 1/2 means that the gain is one itself.
        fraction, exponent = math.frexp(gadget.gain)
        exponent -= fraction == 0.5
        gadget = dataclasses.replace(gadget, gain=2.0**exponent)
        finest = {name: grid_exponent(target, child_path(path, name)) for name in of.tensors()}
        bits = {name: -((found - exponent) // 2) for name, found in finest.items() if found is not None}
        worst = max(bits, key=lambda name: bits[name], default=None)
        if worst is None or bits[worst] <= self.bits:
            return gadget
        tensor, needed = child_path(path, worst), bits[worst]
        if needed > MAX_SOURCE_BITS:
            raise InputError(
                f"{self.name} is for quantised targets, and weights of tensor {tensor!r} are not multiples of"
                f" 2**{exponent - 2 * MAX_SOURCE_BITS}, the finest step of its layer; round them with"
                " lottery_jax.networks.rewrites.quantised(target, 8), or --quantise-target 8"
            )
        raise InputError(
            f"weights of tensor {tensor!r} are multiples of 2**{finest[worst]}, which takes bits {needed} or more and"
            f" over {2 * needed} candidates, not bits {self.bits}; or round them to coarser steps"
        )

    def problems(self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int) -> TensorProblems:
        found, redraws = super().problems(network, path, drawn, seed)
        return [dataclasses.replace(problem, step=self.step) for problem in found], redraws
