"""Pooling, and the layers that reshape an image to a vector or to tokens."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.conv import sides, windows, windows_cost
from lottery_jax.networks.node import Cost, Spec, StatelessLayer


class _Windows(StatelessLayer):
    """Pooling by windows of `size`; `stride` defaults to the size."""

    size: tuple[int, int]
    stride: tuple[int, int] | None
    padding: tuple[int, int]

    def __post_init__(self) -> None:
        if min(*self.size, *(self.stride or self.size)) < 1 or any(
            2 * zeros > window for zeros, window in zip(self.padding, self.size, strict=True)
        ):
            raise InputError(
                f"pooling must have sizes and strides from 1 up, and padding of half a window at most, got {self}"
            )

    def output_spec(self, input_spec: Spec) -> Spec:
        height, width = windows(input_spec, self.size, self.stride or self.size, self.padding)
        return dataclasses.replace(input_spec, shape=(height, width, input_spec.shape[-1]))

    def cost(self, input_spec: Spec) -> Cost:
        return super().cost(input_spec) + windows_cost(input_spec, self.size, self.stride or self.size, self.padding)


@dataclasses.dataclass(frozen=True)
class MaxPool(_Windows):
    """The maximum of each window; padding is ignored.

    >>> MaxPool((2, 2)).output_spec(Spec((5, 4, 3), nonnegative=True))
    Spec(shape=(2, 2, 3), nonnegative=True)
    """

    size: tuple[int, int]
    stride: tuple[int, int] | None = None
    padding: tuple[int, int] = (0, 0)
    kind: ClassVar[str] = "max_pool"

    def _tiles(self, x: jax.Array) -> bool:
        """Whether the windows tile the whole image."""
        tiles = not any(length % window for length, window in zip(x.shape[-3:-1], self.size, strict=True))
        return tiles and (self.stride or self.size) == self.size and not any(self.padding)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self._tiles(x):
            # On a CPU the gradient of XLA's window reduction is as slow as a convolution.
            (*batch, height, width, channels), (rows, columns) = x.shape, self.size
            return x.reshape(*batch, height // rows, rows, width // columns, columns, channels).max((-4, -2))
        return nnx.max_pool(x, self.size, self.stride or self.size, sides(self.padding))  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class AveragePool(_Windows):
    """The mean of each window, including the zeros of the padding."""

    size: tuple[int, int]
    stride: tuple[int, int] | None = None
    padding: tuple[int, int] = (0, 0)
    kind: ClassVar[str] = "average_pool"

    def __call__(self, x: jax.Array) -> jax.Array:
        # Not nnx.avg_pool, which divides float32 by int32 and fails with strict dtype promotion.
        total = nnx.pool(x, 0.0, jax.lax.add, self.size, self.stride or self.size, sides(self.padding))
        return total / math.prod(self.size)


@dataclasses.dataclass(frozen=True)
class GlobalPool(StatelessLayer):
    """The mean over positions: [H, W, C] or [tokens, C] to [C]."""

    kind: ClassVar[str] = "global_pool"

    def output_spec(self, input_spec: Spec) -> Spec:
        if len(input_spec.shape) < 2:
            raise InputError(f"the input of a global pooling must have at least 2 axes, got {list(input_spec.shape)}")
        return dataclasses.replace(input_spec, shape=input_spec.shape[-1:])

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.mean(range(1, x.ndim - 1))


@dataclasses.dataclass(frozen=True)
class Flatten(StatelessLayer):
    """[H, W, C] to [C * H * W], channels first as in PyTorch.

    >>> Flatten()(jnp.arange(4).reshape(1, 1, 2, 2)).tolist()
    [[0, 2, 1, 3]]
    """

    kind: ClassVar[str] = "flatten"

    def output_spec(self, input_spec: Spec) -> Spec:
        positions = math.prod(input_spec.shape[:-1])
        # Channels first: all positions of a copy come before the next copy.
        copy_stride = input_spec.copy_stride * positions if input_spec.copies > 1 else 1
        return dataclasses.replace(input_spec, shape=(math.prod(input_spec.shape),), copy_stride=copy_stride)

    def __call__(self, x: jax.Array) -> jax.Array:
        return (jnp.moveaxis(x, -1, 1) if x.ndim > 2 else x).reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
class Tokens(StatelessLayer):
    """[H, W, C] to [H * W, C]: each position of an image is a token."""

    kind: ClassVar[str] = "tokens"

    def output_spec(self, input_spec: Spec) -> Spec:
        if len(input_spec.shape) != 3:
            raise InputError(f"the input of tokens must be an image [H, W, C], got {list(input_spec.shape)}")
        return dataclasses.replace(input_spec, shape=(input_spec.shape[0] * input_spec.shape[1], input_spec.shape[2]))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(len(x), -1, x.shape[-1])
