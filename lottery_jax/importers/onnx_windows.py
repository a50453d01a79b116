"""ONNX operators with windows over spatial axes: convolutions, pooling, resizing, as functions of arrays.

Values have the layout of the file, [batch, channels, ...]. Inputs and attributes are passed as in ``onnx_arrays``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from lottery_jax.importers.onnx_arrays import Value, bounded, namespace, require, spatial

Pairs = list[tuple[int, int]]


def _one_per_axis(name: str, values: Sequence[int] | None, rank: int) -> list[int]:
    found = list(values or [1] * rank)
    require(len(found) == rank and min(found) >= 1, f"have {rank} {name} of at least 1", found)
    return found


def _widths(pads: Sequence[int] | None, auto_pad: str, rank: int) -> list[tuple[int, int]]:
    """The explicit padding of each axis."""
    require(auto_pad in ("NOTSET", "VALID"), "have an auto_pad of NOTSET, VALID, SAME_UPPER or SAME_LOWER", auto_pad)
    found = list((auto_pad == "NOTSET" and pads) or [0] * 2 * rank)
    require(len(found) == 2 * rank and min(found) >= 0, f"have {2 * rank} pads of at least 0", found)
    return list(zip(found[:rank], found[rank:], strict=True))


def _window(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
) -> tuple[list[int], list[int], Pairs]:
    """Strides, dilations and padding of a window over spatial sizes, checked."""
    rank = len(sizes)
    kernel = _one_per_axis("kernel_shape", kernel, rank)
    steps, spread = _one_per_axis("strides", strides, rank), _one_per_axis("dilations", dilations, rank)
    reach = [(size - 1) * one + 1 for size, one in zip(kernel, spread, strict=True)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // step) - 1) * step + k - size, 0) for size, step, k in zip(sizes, steps, reach, strict=True)
        ]
        halves = [(total // 2, total - total // 2) for total in totals]
        pairs = [(low, high) if auto_pad == "SAME_UPPER" else (high, low) for low, high in halves]
    else:
        pairs = _widths(pads, auto_pad, rank)
    bounded([size + low + high for size, (low, high) in zip(sizes, pairs, strict=True)])
    fits = all(k <= size + low + high for k, size, (low, high) in zip(reach, sizes, pairs, strict=True))
    require(fits, f"have a kernel that fits the padded input {list(sizes)}", list(kernel))
    return steps, spread, pairs


def _check_weight(x: Value, weight: Value, kernel_shape: Sequence[int] | None, group: int, channels: int) -> None:
    """Refuse a convolution whose weight is not for its input, with that number of channels, and its groups."""
    kernel = list(weight.shape[2:])
    require(list(kernel_shape or kernel) == kernel, f"have the kernel_shape {kernel} of its weight", kernel_shape)
    fits = group >= 1 and weight.ndim == x.ndim and x.shape[1] == channels and weight.shape[0] % group == 0
    require(fits, f"have a weight for the input {list(x.shape)} in {group} groups", list(weight.shape))


def _add_bias(x: Value, bias: Value) -> Value:
    return x if bias is None else x + bias.reshape(-1, *[1] * (x.ndim - 2))


def _conv(
    x: Value,
    weight: Value,
    bias: Value = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    sizes = spatial(x, "a convolution")
    _check_weight(x, weight, kernel_shape, group, group * weight.shape[1])
    steps, spread, pairs = _window(sizes, weight.shape[2:], strides, dilations, pads, auto_pad)
    y = lax.conv_general_dilated(x, weight, steps, pairs, rhs_dilation=spread, feature_group_count=group)
    return _add_bias(y, bias)


def _conv_transpose(
    x: Value,
    weight: Value,
    bias: Value = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    sizes, kernel = spatial(x, "a convolution"), weight.shape[2:]
    rank = len(sizes)
    _check_weight(x, weight, kernel_shape, group, weight.shape[0])
    require(
        auto_pad in ("NOTSET", "VALID") and not output_shape, "have pads instead of auto_pad or output_shape", auto_pad
    )
    steps, spread = _one_per_axis("strides", strides, rank), _one_per_axis("dilations", dilations, rank)
    extra = list(output_padding or [0] * rank)
    require(len(extra) == rank and min(extra) >= 0, f"have {rank} output_padding of at least 0", extra)
    pairs = [
        ((k - 1) * one - low, (k - 1) * one - high + more)
        for k, one, (low, high), more in zip(kernel, spread, _widths(pads, auto_pad, rank), extra, strict=True)
    ]
    bounded([(size - 1) * step + 1 + sum(pair) for size, step, pair in zip(sizes, steps, pairs, strict=True)])
    # [in, out / group, ...] to [out, in / group, ...], mirrored: the transpose of a convolution.
    inputs, outputs = weight.shape[0] // group, weight.shape[1]
    mirrored = namespace(weight).flip(weight, tuple(range(2, weight.ndim))).reshape(group, inputs, outputs, *kernel)
    mirrored = mirrored.swapaxes(1, 2).reshape(group * outputs, inputs, *kernel)
    y = lax.conv_general_dilated(
        x, mirrored, [1] * rank, pairs, lhs_dilation=steps, rhs_dilation=spread, feature_group_count=group
    )
    return _add_bias(y, bias)


def _check_padding(kernel: Sequence[int], spread: Sequence[int], pairs: Pairs) -> None:
    """Refuse windows of padding alone, which have neither a maximum nor a mean."""
    fits = all(max(pair) <= (k - 1) * one for k, one, pair in zip(kernel, spread, pairs, strict=True))
    require(fits, "have pads that are smaller than its windows", pairs)


def _max_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Value:
    sizes = spatial(x, "pooling")
    steps, spread, pairs = _window(sizes, kernel_shape, strides, dilations, pads, auto_pad)
    _check_padding(kernel_shape, spread, pairs)
    if ceil_mode:
        pairs = _rounded_up(sizes, kernel_shape, steps, spread, pairs)
    return lax.reduce_window(
        jnp.asarray(x), -jnp.inf, lax.max, (1, 1, *kernel_shape), (1, 1, *steps), [(0, 0), (0, 0), *pairs],
        window_dilation=(1, 1, *spread),
    )  # fmt: skip


def _rounded_up(
    sizes: Sequence[int], kernel: Sequence[int], steps: Sequence[int], spread: Sequence[int], pairs: Pairs
) -> Pairs:
    """Padding with which windows that end beyond the input count, but none that starts beyond it."""
    found = []
    for size, k, step, one, (low, high) in zip(sizes, kernel, steps, spread, pairs, strict=True):
        reach = (k - 1) * one + 1
        windows = -(-(size + low + high - reach) // step) + 1
        if (windows - 1) * step >= size + low:
            windows -= 1
        found.append((low, max(high, (windows - 1) * step + reach - size - low)))
    return found


def _average_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    sizes = spatial(x, "pooling")
    steps, spread, pairs = _window(sizes, kernel_shape, strides, dilations, pads, auto_pad)
    _check_padding(kernel_shape, spread, pairs)
    rounded = not ceil_mode or _rounded_up(sizes, kernel_shape, steps, spread, pairs) == pairs
    require(rounded, "have ceil_mode=0 if the windows do not fit exactly", f"ceil_mode={ceil_mode}")
    total = lax.reduce_window(
        jnp.asarray(x), 0.0, lax.add, (1, 1, *kernel_shape), (1, 1, *steps), [(0, 0), (0, 0), *pairs],
        window_dilation=(1, 1, *spread),
    )  # fmt: skip
    if count_include_pad or not any(map(any, pairs)):
        return total / np.float32(math.prod(kernel_shape))
    counts = np.ones((), np.float32)
    for size, k, step, one, (low, high) in zip(sizes, kernel_shape, steps, spread, pairs, strict=True):
        starts = np.arange(0, size + low + high - (k - 1) * one, step) - low
        bounded([len(starts), k])
        entries = starts[:, None] + np.arange(k) * one
        counts = counts[..., None] * np.sum((entries >= 0) & (entries < size), axis=1).astype(np.float32)
    return total / counts


def _global_pool(name: str) -> Callable[[Value], Value]:
    def pool(x: Value) -> Value:
        axes = tuple(range(2, 2 + len(spatial(x, "pooling"))))
        return getattr(namespace(x), name)(x, axis=axes, keepdims=True)

    return pool


def _resize(
    x: Value,
    first: Value = None,
    scales: Value = None,
    sizes: Value = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    opset: int,
) -> Value:
    scales = first if opset == 10 else scales
    kind = (coordinate_transformation_mode, nearest_mode)
    if opset == 10:
        kind = ("asymmetric", "floor")
    exact = kind == ("asymmetric", "floor") or (kind[0] == "half_pixel" and kind[1].startswith("round"))
    exact = exact and mode == "nearest" and not antialias and axes is None and keep_aspect_ratio_policy == "stretch"
    require(exact, "resize by repeating entries (nearest)", f"{mode}, {', '.join(kind)}")
    if sizes is not None and sizes.size:
        wanted = [size / old for size, old in zip(_host(sizes), x.shape, strict=True)]
    else:
        wanted = _host(scales)
    return _repeated(x, wanted)


def _upsample(x: Value, scales: Value, *, mode: str = "nearest") -> Value:
    require(mode == "nearest", "resize by repeating entries (nearest)", mode)
    return _repeated(x, _host(scales))


def _host(value: Value) -> list[float]:
    require(isinstance(value, np.ndarray), "have constant scales", "scales that depend on the input")
    return [float(one) for one in value.reshape(-1)]


def _repeated(x: Value, scales: list[float]) -> Value:
    """Each entry as often as the integer scale of its axis."""
    whole = len(scales) == x.ndim and all(scale >= 1 and scale.is_integer() for scale in scales)
    require(whole, f"have {x.ndim} scales that are integers", scales)
    counts = [int(scale) for scale in scales]
    shape = bounded([size * count for size, count in zip(x.shape, counts, strict=True)])
    pairs = [(size, count) for size, count in zip(x.shape, counts, strict=True)]
    spread = x.reshape([size for axis in x.shape for size in (axis, 1)])
    return namespace(x).broadcast_to(spread, [size for pair in pairs for size in pair]).reshape(shape)


WINDOW_OPERATORS: dict[str, Callable[..., Any]] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_pool("mean"),
    "GlobalMaxPool": _global_pool("max"),
    "MaxPool": _max_pool,
    "Resize": _resize,
    "Upsample": _upsample,
}
"""Operator of ONNX -> its function."""
