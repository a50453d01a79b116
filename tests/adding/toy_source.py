"""A kind of source: copies that count 1, 1/2, 1/4, ... With a line in `networks/registry.py` tickets may be of it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.networks.node import LinearLayer, Weights
from lottery_jax.networks.sources.base import Source, assign_streams
from lottery_jax.rng.random_tensor import ContiguousLayout, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Halved(Source):
    """`layer` with `copies` C of every weight, copy c multiplied by 2**-c; masks are [*shape, C]."""

    layer: LinearLayer
    copies: int
    sampler: Sampler
    gain: ClassVar[float] = 1.0
    kind: ClassVar[str] = "halved"

    def random_tensors(self) -> dict[str, RandomTensor]:
        layout, shapes = ContiguousLayout(self.copies), self.layer.tensors()
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

    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        factors = 0.5 ** jnp.arange(self.copies, dtype=jnp.float32)
        weights = {name: (kept(name) * factors).sum(-1) for name in self.layer.tensors()}
        return self.layer.module(Weights(weights))(x)  # type: ignore[operator]
