"""A convolution that commutes with rotations of an image by 90 degrees (Cohen and Welling 2016, arXiv 1602.07576).

Each kernel is applied in its four rotations, so what comes out has one image for each of them, a field [4, H, W, C]. To
rotate the input is to rotate these images and to pass each on to the next rotation, whatever the weights are. They are
the coefficients of the layer in the basis of all such maps: it is on them that Ferbach et al. 2022 (arXiv 2206.04270)
solve subset sums, with a random layer that is equivariant, too.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.conv import sides, windows
from lottery_jax.networks.layers.convolve import NHWC, convolve
from lottery_jax.networks.node import Operation, Spec, Weights

ROTATIONS = 4


@dataclasses.dataclass(frozen=True)
class RotationConv(Operation):
    """x [..., H, W, I] or, of `rotations` 4, [..., 4, H, W, I] -> [..., 4, H', W', O].

    `weight` [O, I, rotations, size, size], the third axis from the rotation put out to that put in; perhaps `bias` [O].
    The image is square for what is said of rotations to hold; padding: zeros on each side.

    >>> RotationConv(1, 8, 3, padding=1).output(Spec((6, 6, 1))).shape
    (4, 6, 6, 8)
    >>> RotationConv(8, 5, 3, rotations=4, bias=True).tensors()
    {'weight': (5, 8, 4, 3, 3), 'bias': (5,)}
    """

    inputs: int
    outputs: int
    size: int
    padding: int = 0
    rotations: int = 1
    bias: bool = False
    kind: ClassVar[str] = "rotation_conv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1 or self.padding < 0 or self.rotations not in (1, ROTATIONS):
            raise InputError(f"a convolution with rotations needs a size from 1 up and is given 1 or 4 of them: {self}")

    @property
    def places(self) -> tuple[int, ...]:
        return self.rotations, self.size, self.size

    def widened(self, factor: int) -> Self:
        return dataclasses.replace(self, inputs=self.inputs * factor)

    def resized(self, given: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(self, inputs=given.shape[-1], outputs=units(self.outputs))

    def output(self, given: Spec) -> Spec:
        axes = 3 if self.rotations == 1 else 4
        if len(given.shape) != axes or given.shape[-1] != self.inputs or (axes == 4 and given.shape[0] != ROTATIONS):
            needed = f"{'' if axes == 3 else '4, '}H, W, {self.inputs}"
            raise InputError(f"a convolution with rotations needs [{needed}], not {list(given.shape)}")
        both = (self.size, self.size), (1, 1), (self.padding, self.padding)
        return Spec((ROTATIONS, *windows(Spec(given.shape[-3:]), *both), self.outputs))

    def module(self, weights: Weights) -> nnx.Module:
        return Rotated(self, jnp.asarray(weights["weight"]), weights["bias"] if self.bias else None)


class Rotated(nnx.Module):
    """The module of `RotationConv`: one convolution with all rotations side by side."""

    def __init__(self, of: RotationConv, weight: jax.Array, bias: jax.Array | None) -> None:
        self.padding, self.rotations = sides((of.padding, of.padding)), of.rotations
        given = range(of.rotations)
        # Output rotation r meets rotation s of a field with kernel s - r, turned r times.
        rows = [
            jnp.concatenate([jnp.rot90(weight[:, :, (s - r) % of.rotations], r, (2, 3)) for s in given], 1)
            for r in range(ROTATIONS)
        ]
        self.kernel = nnx.Param(jnp.transpose(jnp.concatenate(rows), (2, 3, 1, 0)))  # [h, w, S I, 4 O]
        self.bias = None if bias is None else nnx.Param(jnp.tile(jnp.asarray(bias), ROTATIONS))

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.rotations > 1:
            x = jnp.moveaxis(x, -4, -2)
            x = x.reshape(*x.shape[:-2], -1)
        y = convolve(x, self.kernel[...], (1, 1), self.padding, **NHWC)
        y = y if self.bias is None else y + self.bias[...]
        return jnp.moveaxis(y.reshape(*y.shape[:-1], ROTATIONS, -1), -2, -4)
