"""A kind of layer: a convolution along tokens. With a line in `networks/registry.py` it is one like any other."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import NO_RNGS, LinearLayer, Spec, Weights, constant_init


@dataclasses.dataclass(frozen=True)
class Conv1d(LinearLayer):
    """x [B, T, I] -> [B, T, O], each token from `size` neighbours (zeros beyond the ends): `weight` [O, I, size]."""

    inputs: int
    outputs: int
    size: int = 3
    bias: bool = False
    kind: ClassVar[str] = "conv1d"

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return (self.size,)

    def resized(self, given: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(self, inputs=given.shape[-1], outputs=units(self.outputs))

    def output_spec(self, given: Spec) -> Spec:
        if len(given.shape) != 2 or given.shape[1] != self.inputs:
            raise InputError(f"tokens of {self.inputs} numbers are needed, not {list(given.shape)}")
        return Spec((given.shape[0], self.outputs))

    def module(self, weights: Weights) -> nnx.Module:
        kernel, bias = weights["weight"].transpose(2, 1, 0), weights["bias"] if self.bias else None
        options = {
            "use_bias": self.bias,
            "kernel_init": constant_init(kernel),
            "bias_init": constant_init(bias),
            "rngs": NO_RNGS,
        }
        return nnx.Conv(self.inputs, self.outputs, self.size, **options)
