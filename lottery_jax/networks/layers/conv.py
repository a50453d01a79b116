"""Convolutions of images, plain and equivariant to rotations by 90 degrees.

On a CPU `convolve` computes the weight gradient as sums of matrix products: XLA's gradient takes two to three times as
long as the convolution itself, and so does a convolution of few inputs. On other devices, and for strides, groups and
dilations, XLA's convolution is used.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import NO_RNGS, Cost, LinearLayer, Spec, Weights, constant_init

Padding = tuple[tuple[int, int], tuple[int, int]]
_CHUNK = 4  # images per matrix product: they fit in the cache
_FEW_INPUTS = 8  # up to here one product of all windows is faster than XLA's convolution
_MAX_POSITIONS = 128  # of a kernel: the program has an operation for each


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any) -> jax.Array:
    """`jax.lax.conv_general_dilated` of x [B, H, W, I] and kernel [h, w, I, O], faster on a CPU.

    >>> convolve(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), (1, 1), ((1, 1), (1, 1)), **NHWC).shape
    (1, 4, 4, 5)
    """
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    plain = set(strides) == {1} and options.get("feature_group_count", 1) == 1 and set(dilations) <= {1}
    small = math.prod(kernel.shape[:2]) <= _MAX_POSITIONS
    if jax.default_backend() == "cpu" and plain and small and x.ndim == 4 and not isinstance(padding, str):
        return _convolve(x, kernel, tuple((int(before), int(after)) for before, after in padding))
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


NHWC: dict[str, Any] = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return _values(x, kernel, padding)


def _values(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    if x.shape[-1] > _FEW_INPUTS:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, **NHWC)
    rows, columns, inputs, outputs = kernel.shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    windows = [padded[:, row : row + height, at : at + width] for row in range(rows) for at in range(columns)]
    flat = jnp.concatenate(windows, -1).reshape(-1, rows * columns * inputs)
    return (flat @ kernel.reshape(-1, outputs)).reshape(len(x), height, width, outputs)


def _forward(x: jax.Array, kernel: jax.Array, padding: Padding) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # Not `_convolve`: a custom_vjp function has no forward-mode derivative.
    return _values(x, kernel, padding), (x, kernel)


def _backward(
    padding: Padding, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    input_gradient = jax.linear_transpose(lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, **NHWC), x)
    return *input_gradient(cotangent), _weight_gradient(x, cotangent, kernel.shape[:2], padding)


_convolve.defvjp(_forward, _backward)


def _weight_gradient(x: jax.Array, cotangent: jax.Array, size: Sequence[int], padding: Padding) -> jax.Array:
    """The sum over images and positions of input times cotangent, [h, w, I, O]."""
    count, height, width, outputs = cotangent.shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))

    def products(padded: jax.Array, cotangent: jax.Array) -> jax.Array:
        flat = cotangent.reshape(-1, outputs)
        # One product per row of the kernel: few products of a size that is fast on a CPU.
        wide = jnp.concatenate([padded[:, :, at : at + width] for at in range(size[1])], -1)
        rows = [wide[:, row : row + height].reshape(-1, wide.shape[-1]).T @ flat for row in range(size[0])]
        return jnp.stack(rows).reshape(*size, x.shape[-1], outputs)

    if count % _CHUNK:
        return products(padded, cotangent)

    def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + products(*chunk), None

    def chunked(array: jax.Array) -> jax.Array:
        return array.reshape(count // _CHUNK, _CHUNK, *array.shape[1:])

    zeros = jnp.zeros((*size, x.shape[-1], outputs), x.dtype)
    return jax.lax.scan(add, zeros, (chunked(padded), chunked(cotangent)))[0]


@dataclasses.dataclass(frozen=True)
class Conv(LinearLayer):
    """Convolution x [..., H, W, I] -> [..., H', W', O]: `weight` [O, I / groups, h, w], optionally `bias` [O].

    Args:
        size: (h, w) of the kernel.
        stride: Strides along the height and the width.
        padding: Zeros on each side of the height and of the width.
        groups: Groups of channels; as many as inputs make the convolution depthwise.
        dilation: Distance of two positions of the kernel along the height and the width.

    >>> Conv(16, 32, (3, 3), stride=(2, 2), padding=(1, 1)).output_spec(Spec((32, 32, 16))).shape
    (16, 16, 32)
    """

    inputs: int
    outputs: int
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    bias: bool = False
    dilation: tuple[int, int] = (1, 1)
    kind: ClassVar[str] = "conv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 1 or min(*self.size, *self.stride, *self.dilation) < 1:
            raise InputError(f"a convolution must have groups, sizes, strides and dilations from 1 up, got {self}")
        if self.inputs % self.groups or self.outputs % self.groups:
            raise InputError(
                f"the groups of a convolution must divide its {self.inputs} inputs and {self.outputs} outputs, got"
                f" {self.groups}"
            )

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the part of an image that one output sees."""
        height, width = (step * (length - 1) + 1 for length, step in zip(self.size, self.dilation, strict=True))
        return height, width

    @property
    def depthwise(self) -> bool:
        """Whether each input channel has its own outputs; one group of one channel does not count."""
        return self.groups == self.inputs > 1

    @property
    def width_divisor(self) -> int:
        return 1 if self.depthwise else self.groups

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        inputs, outputs, groups = input_spec.shape[-1], units(self.outputs), self.groups
        if self.depthwise:
            outputs, groups = self.outputs // self.inputs * inputs, inputs
        return dataclasses.replace(self, inputs=inputs, outputs=outputs, groups=groups)

    def output_spec(self, input_spec: Spec) -> Spec:
        height, width = windows(input_spec, self.window, self.stride, self.padding)
        if input_spec.shape[-1] != self.inputs:
            raise InputError(
                f"the input of the convolution must have {self.inputs} channels, got {list(input_spec.shape)}"
            )
        return Spec((height, width, self.outputs))

    def cost(self, input_spec: Spec) -> Cost:
        return super().cost(input_spec) + windows_cost(input_spec, self.window, self.stride, self.padding)

    def module(self, weights: Weights) -> nnx.Module:
        return nnx.Conv(
            self.inputs,
            self.outputs,
            self.size,
            self.stride,
            padding=sides(self.padding),
            kernel_dilation=self.dilation,
            feature_group_count=self.groups,
            use_bias=self.bias,
            conv_general_dilated=convolve,
            kernel_init=constant_init(jnp.transpose(weights["weight"], (2, 3, 1, 0))),
            bias_init=constant_init(weights["bias"] if self.bias else None),
            rngs=NO_RNGS,
        )


def sides(padding: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Padding before and after each axis of an image."""
    return tuple((zeros, zeros) for zeros in padding)


def windows(
    input_spec: Spec, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Number of windows along the height and the width of an image; raises `InputError` if none fits."""
    if len(input_spec.shape) != 3:
        raise InputError(f"the input must be an image [H, W, C], got {list(input_spec.shape)}")
    counts = [
        (length + 2 * zeros - window) // step + 1
        for length, window, step, zeros in zip(input_spec.shape[:2], size, stride, padding, strict=True)
    ]
    if min(counts) < 1:
        raise InputError(
            f"windows of {size} do not fit into an image of {list(input_spec.shape)} with padding {padding}"
        )
    return counts[0], counts[1]


def windows_cost(input_spec: Spec, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Cost:
    """The work to pad an image and to go through its windows; those of few channels are copied."""
    height, width = windows(input_spec, size, stride, padding)
    padded = math.prod(length + 2 * zeros for length, zeros in zip(input_spec.shape[:2], padding, strict=True))
    channels, in_windows = input_spec.shape[2], height * width * math.prod(size)
    copied = in_windows if channels <= _FEW_INPUTS and math.prod(size) <= _MAX_POSITIONS else 0
    return Cost((padded + in_windows) * channels, max(padded, copied) * channels)


ROTATIONS = 4


@dataclasses.dataclass(frozen=True)
class RotationConv(LinearLayer):
    """Convolution equivariant to rotations of square images by 90 degrees (Cohen and Welling 2016, arXiv 1602.07576).

    Maps x [..., H, W, I], or [..., 4, H, W, I] with `rotations` 4, to [..., 4, H', W', O]: each kernel is applied in
    four rotations. `weight` [O, I, rotations, size, size] holds the coefficients in the basis of equivariant maps, on
    which Ferbach et al. 2022 (arXiv 2206.04270) solve subset sums; its third axis is output minus input rotation.

    Args:
        size: Height and width of the kernel.
        padding: Zeros on each side.
        rotations: 1 for an image, 4 for the output of another such layer.

    >>> RotationConv(1, 8, 3, padding=1).output_spec(Spec((6, 6, 1))).shape
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
            raise InputError(
                f"a convolution with rotations must have a size from 1 up and 1 or 4 rotations, got {self}"
            )

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return self.rotations, self.size, self.size

    def output_spec(self, input_spec: Spec) -> Spec:
        axes = 3 if self.rotations == 1 else 4
        if (
            len(input_spec.shape) != axes
            or input_spec.shape[-1] != self.inputs
            or (axes == 4 and input_spec.shape[0] != ROTATIONS)
        ):
            expected = f"{'' if axes == 3 else '4, '}H, W, {self.inputs}"
            raise InputError(
                f"the input of a convolution with rotations must be [{expected}], got {list(input_spec.shape)}"
            )
        both = (self.size, self.size), (1, 1), (self.padding, self.padding)
        return Spec((ROTATIONS, *windows(Spec(input_spec.shape[-3:]), *both), self.outputs))

    def cost(self, input_spec: Spec) -> Cost:
        height, width, channels = input_spec.shape[-3:]
        image = Spec((height, width, self.rotations * channels))
        both = (self.size, self.size), (1, 1), (self.padding, self.padding)
        return super().cost(input_spec) + windows_cost(image, *both)

    def module(self, weights: Weights) -> nnx.Module:
        return Rotated(self, jnp.asarray(weights["weight"]), weights["bias"] if self.bias else None)


class Rotated(nnx.Module):
    """The module of `RotationConv`: one convolution whose channels are all rotations."""

    def __init__(self, layer: RotationConv, weight: jax.Array, bias: jax.Array | None) -> None:
        self.padding, self.rotations = sides((layer.padding, layer.padding)), layer.rotations
        # Output rotation r meets rotation s of a field with kernel s - r, turned r times.
        rows = [
            jnp.concatenate(
                [jnp.rot90(weight[:, :, (s - r) % layer.rotations], r, (2, 3)) for s in range(layer.rotations)], 1
            )
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
