"""A kind of source: copies that count 1, 1/2, 1/4, ... With a line in `networks/registry.py` tickets may be of it."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.networks.node import LinearLayer, Weights
from lottery_jax.networks.sources.base import MaskedModule, Source, assign_streams
from lottery_jax.rng.random_tensor import Contiguous, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Halved(Source):
    """The operation `of` with `copies` C of every weight, copy c multiplied by 2**-c; masks are [*shape, C]."""

    layer: LinearLayer
    copies: int
    sampler: Sampler
    gain: ClassVar[float] = 1.0
    kind: ClassVar[str] = "halved"

    def random_tensors(self) -> dict[str, RandomTensor]:
        layout, shapes = Contiguous(self.copies), self.layer.tensors()
        return assign_streams(
            {
                name: RandomTensor((*shape, self.copies), self.copies, self.sampler, layout)
                for name, shape in shapes.items()
            }
        )

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        return 0.5**columns

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedHalves(self, weights)


class MaskedHalves(MaskedModule):
    """x -> the operation, every edge the sum of its kept copies, halved as they are."""

    def __init__(self, source: Halved, weights: Weights) -> None:
        super().__init__(source, weights)
        self.layer = source.layer

    def __call__(self, x: jax.Array) -> jax.Array:
        def summed(copies: jax.Array) -> jax.Array:
            return (copies * 0.5 ** jnp.arange(copies.shape[-1], dtype=jnp.float32)).sum(-1)

        kept = {name: summed(self.masked(name)) for name in self.layer.tensors()}
        return self.scaled(self.layer.module(Weights(kept))(x))  # type: ignore[operator]
