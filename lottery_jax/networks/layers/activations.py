"""Elementwise activations. Whether an output may be negative decides whether a gadget needs weights for both signs."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.networks.node import Spec, StatelessLayer


class Activation(StatelessLayer):
    """An elementwise function."""

    never_negative: ClassVar[bool] = False
    """Whether the output is nonnegative for every input."""
    keeps_sign: ClassVar[bool] = True
    """Whether the output is nonnegative for a nonnegative input."""

    def output_spec(self, input_spec: Spec) -> Spec:
        nonnegative = self.never_negative or (self.keeps_sign and input_spec.nonnegative)
        return dataclasses.replace(input_spec, nonnegative=nonnegative)


@dataclasses.dataclass(frozen=True)
class Relu(Activation):
    """max(x, 0)."""

    kind: ClassVar[str] = "relu"
    never_negative: ClassVar[bool] = True

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x)


@dataclasses.dataclass(frozen=True)
class LeakyRelu(Activation):
    """x for x >= 0, slope * x below.

    >>> LeakyRelu(0.5)(jnp.array([-1.0, 2.0])).tolist()
    [-0.5, 2.0]
    """

    slope: float = 0.01
    kind: ClassVar[str] = "leaky_relu"

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.leaky_relu(x, self.slope)


@dataclasses.dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent."""

    kind: ClassVar[str] = "tanh"

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(x)


@dataclasses.dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    kind: ClassVar[str] = "sigmoid"
    never_negative: ClassVar[bool] = True

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(x)


@dataclasses.dataclass(frozen=True)
class Gelu(Activation):
    """x times the standard normal distribution function of x; with `approximate` its tanh approximation."""

    approximate: bool = False
    kind: ClassVar[str] = "gelu"

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.gelu(x, approximate=self.approximate)
