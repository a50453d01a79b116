"""A dense layer.

Position embedding.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import jax
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import KEYLESS, LinearLayer, Node, Spec, Weights, given


@dataclasses.dataclass(frozen=True)
class Dense(LinearLayer):
    """x [..., I] -> [..., O]: `weight` [O, I], and with `bias` also `bias` [O].

    >>> Dense(3, 2, bias=True).tensors()
    {'weight': (2, 3), 'bias': (2,)}
    """

    inputs: int
    outputs: int
    bias: bool = False
    kind: ClassVar[str] = "dense"

    def widened(self, factor: int) -> Self:
        return dataclasses.replace(self, inputs=self.inputs * factor)

    def resized(self, given: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(self, inputs=given.shape[-1], outputs=units(self.outputs))

    def output(self, given: Spec) -> Spec:
        if given.shape[-1] != self.inputs:
            raise InputError(f"a dense layer of {self.inputs} inputs is given {list(given.shape)}")
        return Spec((*given.shape[:-1], self.outputs))

    def module(self, weights: Weights) -> nnx.Module:
        return nnx.Linear(
            self.inputs,
            self.outputs,
            use_bias=self.bias,
            kernel_init=given(weights["weight"].T),
            bias_init=given(weights["bias"] if self.bias else None),
            rngs=KEYLESS,
        )


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
