"""A dense layer."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import KEYLESS, Operation, Spec, Weights, given


@dataclasses.dataclass(frozen=True)
class Dense(Operation):
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
