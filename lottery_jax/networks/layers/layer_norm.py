"""Layer normalisation."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import KEYLESS, Node, Spec, Weights, given


@dataclasses.dataclass(frozen=True)
class LayerNorm(Node):
    """The features of each token to mean 0 and variance 1, times `weight` plus `bias`, which are stored, not masked."""

    features: int
    epsilon: float = 1e-6
    kind: ClassVar[str] = "layer_norm"

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise InputError(f"layer normalisation needs a positive epsilon, not {self.epsilon}")

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.features,), "bias": (self.features,)}

    def resized(self, given: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(self, features=given.shape[-1])

    def output(self, given: Spec) -> Spec:
        if given.shape[-1] != self.features:
            raise InputError(f"layer normalisation of {self.features} features is given {list(given.shape)}")
        return Spec(given.shape)

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        return {"weight": jnp.ones(self.features), "bias": jnp.zeros(self.features)}

    def module(self, weights: Weights) -> nnx.Module:
        return nnx.LayerNorm(
            self.features,
            epsilon=self.epsilon,
            bias_init=given(weights["bias"]),
            scale_init=given(weights["weight"]),
            rngs=KEYLESS,
        )
