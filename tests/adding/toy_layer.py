"""A kind of layer: a convolution along tokens. With a line in `networks/registry.py` it is one like any other."""

import dataclasses
from typing import ClassVar

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

    def output_spec(self, input_spec: Spec) -> Spec:
        if len(input_spec.shape) != 2 or input_spec.shape[1] != self.inputs:
            raise InputError(f"tokens of {self.inputs} numbers are needed, not {list(input_spec.shape)}")
        return Spec((input_spec.shape[0], self.outputs))

    def module(self, weights: Weights) -> nnx.Module:
        kernel, bias = weights["weight"].transpose(2, 1, 0), weights["bias"] if self.bias else None
        options = {
            "use_bias": self.bias,
            "kernel_init": constant_init(kernel),
            "bias_init": constant_init(bias),
            "rngs": NO_RNGS,
        }
        return nnx.Conv(self.inputs, self.outputs, self.size, **options)
