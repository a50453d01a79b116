"""Dense layers and position embeddings."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import jax
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import NO_RNGS, LinearLayer, Node, Spec, Weights, constant_init


@dataclasses.dataclass(frozen=True)
class Dense(LinearLayer):
    """Dense layer x [..., I] -> [..., O]: `weight` [O, I], and `bias` [O] if it has one.

    >>> Dense(3, 2, bias=True).tensors()
    {'weight': (2, 3), 'bias': (2,)}
    """

    inputs: int
    outputs: int
    bias: bool = False
    kind: ClassVar[str] = "dense"

    def output_spec(self, input_spec: Spec) -> Spec:
        if input_spec.shape[-1] != self.inputs:
            raise InputError(
                f"the input of the dense layer must have {self.inputs} features, got {list(input_spec.shape)}"
            )
        return Spec((*input_spec.shape[:-1], self.outputs))

    def module(self, weights: Weights) -> nnx.Module:
        return nnx.Linear(
            self.inputs,
            self.outputs,
            use_bias=self.bias,
            kernel_init=constant_init(weights["weight"].T),
            bias_init=constant_init(weights["bias"] if self.bias else None),
            rngs=NO_RNGS,
        )


@dataclasses.dataclass(frozen=True)
class PositionEmbedding(Node):
    """x [B, tokens, features] plus a stored vector per position; the tensor has the name of the node."""

    tokens: int
    features: int
    kind: ClassVar[str] = "position_embedding"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {"": (1, self.tokens, self.features)}

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(self, tokens=input_spec.shape[0], features=input_spec.shape[-1])

    def output_spec(self, input_spec: Spec) -> Spec:
        if input_spec.shape != (self.tokens, self.features):
            raise InputError(
                f"the input of the position embedding must be {[self.tokens, self.features]}, got"
                f" {list(input_spec.shape)}"
            )
        return Spec(input_spec.shape)

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
