"""Position embedding."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import jax
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Node, Spec, Weights


@dataclasses.dataclass(frozen=True)
class PositionEmbedding(Node):
    """x [B, tokens, features] plus a stored vector for each token; the tensor has the node's own name."""

    tokens: int
    features: int
    kind: ClassVar[str] = "position_embedding"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {"": (1, self.tokens, self.features)}

    def resized(self, given: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(self, tokens=given.shape[0], features=given.shape[-1])

    def output(self, given: Spec) -> Spec:
        if given.shape != (self.tokens, self.features):
            raise InputError(f"positions are embedded for {[self.tokens, self.features]}, not for {list(given.shape)}")
        return Spec(given.shape)

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        return {"": 0.02 * jax.random.normal(key, (1, self.tokens, self.features))}

    def module(self, weights: Weights) -> nnx.Module:
        return Added(weights[""])


class Added(nnx.Module):
    """x plus a parameter."""

    def __init__(self, value: jax.Array) -> None:
        self.value = nnx.Param(value)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.value[...]
