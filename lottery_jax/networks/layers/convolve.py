"""A convolution that is fast where training runs: on a CPU its weight gradient is sums of matrix products.

XLA's own weight gradient takes two to three times as long there as the convolution itself, for the same number of
operations, and so does a convolution of few inputs. Elsewhere, and for strides, groups and dilations, XLA's is used.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Padding = tuple[tuple[int, int], tuple[int, int]]
_CHUNK = 4  # images whose products are summed at a time: they stay in the cache
_FEW = 8  # inputs of which XLA's own convolution takes longer than one product of all windows


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any) -> jax.Array:
    """As `jax.lax.conv_general_dilated`: x [B, H, W, I] and kernel [h, w, I, O] to [B, H', W', O].

    >>> convolve(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), (1, 1), ((1, 1), (1, 1)), **NHWC).shape
    (1, 4, 4, 5)
    """
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    plain = set(strides) == {1} and options.get("feature_group_count", 1) == 1 and set(dilations) <= {1}
    if jax.default_backend() == "cpu" and plain and x.ndim == 4 and not isinstance(padding, str):
        return _convolve(x, kernel, tuple((int(before), int(after)) for before, after in padding))
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


NHWC: dict[str, Any] = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return _values(x, kernel, padding)


def _values(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    if x.shape[-1] > _FEW:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, **NHWC)
    rows, columns, inputs, outputs = kernel.shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    windows = [padded[:, row : row + height, at : at + width] for row in range(rows) for at in range(columns)]
    flat = jnp.concatenate(windows, -1).reshape(-1, rows * columns * inputs)
    return (flat @ kernel.reshape(-1, outputs)).reshape(len(x), height, width, outputs)


def _forward(x: jax.Array, kernel: jax.Array, padding: Padding) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # Not `_convolve`: what is differentiated once more, forwards, must not meet a rule for backwards.
    return _values(x, kernel, padding), (x, kernel)


def _backward(padding: Padding, kept: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    of_x = jax.linear_transpose(lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, **NHWC), x)
    return *of_x(slope), _weight_gradient(x, slope, kernel.shape[:2], padding)


_convolve.defvjp(_forward, _backward)


def _weight_gradient(x: jax.Array, slope: jax.Array, size: Sequence[int], padding: Padding) -> jax.Array:
    """The sum over images and places of input times slope, [h, w, I, O]."""
    count, height, width, outputs = slope.shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))

    def products(padded: jax.Array, slope: jax.Array) -> jax.Array:
        flat = slope.reshape(-1, outputs)
        # The windows of a row of the kernel side by side: few products, each of a size that a CPU is good at.
        wide = jnp.concatenate([padded[:, :, at : at + width] for at in range(size[1])], -1)
        rows = [wide[:, row : row + height].reshape(-1, wide.shape[-1]).T @ flat for row in range(size[0])]
        return jnp.stack(rows).reshape(*size, x.shape[-1], outputs)

    if count % _CHUNK:
        return products(padded, slope)

    def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + products(*chunk), None

    def chunked(array: jax.Array) -> jax.Array:
        return array.reshape(count // _CHUNK, _CHUNK, *array.shape[1:])

    none = jnp.zeros((*size, x.shape[-1], outputs), x.dtype)
    return jax.lax.scan(add, none, (chunked(padded), chunked(slope)))[0]
