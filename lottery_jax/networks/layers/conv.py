"""A convolution of images."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.convolve import convolve
from lottery_jax.networks.node import KEYLESS, Operation, Spec, Weights, given


@dataclasses.dataclass(frozen=True)
class Conv(Operation):
    """x [..., H, W, I] -> [..., H', W', O]: `weight` [O, I / groups, height, width], perhaps `bias` [O].

    padding: zeros on each side. As many groups as inputs make it depthwise.

    >>> Conv(16, 32, (3, 3), stride=(2, 2), padding=(1, 1)).output(Spec((32, 32, 16))).shape
    (16, 16, 32)
    """

    inputs: int
    outputs: int
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1  # type: ignore[assignment]
    bias: bool = False
    kind: ClassVar[str] = "conv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 1 or min(*self.size, *self.stride) < 1:
            raise InputError(f"a convolution needs groups, sizes and strides from 1 up: {self}")
        if self.inputs % self.groups or self.outputs % self.groups:
            raise InputError(
                f"a convolution of {self.inputs} inputs and {self.outputs} outputs has no {self.groups} groups;"
                " choose a number that divides both"
            )

    @property
    def places(self) -> tuple[int, ...]:
        return self.size

    def widened(self, factor: int) -> Self:
        return dataclasses.replace(self, inputs=self.inputs * factor)

    @property
    def depthwise(self) -> bool:
        """Whether each input has outputs of its own (one group of one input is any convolution)."""
        return self.groups == self.inputs > 1

    @property
    def divisor(self) -> int:
        return 1 if self.depthwise else self.groups

    def resized(self, given: Spec, units: Callable[[int], int]) -> Self:
        inputs, outputs, groups = given.shape[-1], units(self.outputs), self.groups
        if self.depthwise:
            outputs, groups = self.outputs // self.inputs * inputs, inputs
        return dataclasses.replace(self, inputs=inputs, outputs=outputs, groups=groups)

    def output(self, given: Spec) -> Spec:
        height, width = windows(given, self.size, self.stride, self.padding)
        if given.shape[-1] != self.inputs:
            raise InputError(f"a convolution of {self.inputs} inputs is given {list(given.shape)}")
        return Spec((height, width, self.outputs))

    def module(self, weights: Weights) -> nnx.Module:
        return nnx.Conv(
            self.inputs,
            self.outputs,
            self.size,
            self.stride,
            padding=sides(self.padding),
            feature_group_count=self.groups,
            use_bias=self.bias,
            conv_general_dilated=convolve,
            kernel_init=given(jnp.transpose(weights["weight"], (2, 3, 1, 0))),
            bias_init=given(weights["bias"] if self.bias else None),
            rngs=KEYLESS,
        )


def sides(padding: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Padding before and after, for each axis of an image."""
    return tuple((zeros, zeros) for zeros in padding)


def windows(given: Spec, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> tuple[int, int]:
    """How many windows lie along the height and the width of an image; raises `InputError` where none does."""
    if len(given.shape) != 3:
        raise InputError(f"an image [H, W, C] is needed, not {list(given.shape)}")
    counts = [
        (length + 2 * zeros - window) // step + 1
        for length, window, step, zeros in zip(given.shape[:2], size, stride, padding, strict=True)
    ]
    if min(counts) < 1:
        raise InputError(f"windows of {size} do not fit an image of {list(given.shape)} with padding {padding}")
    return counts[0], counts[1]
