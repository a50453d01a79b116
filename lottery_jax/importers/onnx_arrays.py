"""ONNX operators on values, shapes and indices, as functions of arrays: NumPy on the host, JAX for what is traced.

Each function takes the operator's inputs by position (None for an omitted one) and its attributes by keyword. Values
that depend on neither the network's input nor a traced parameter stay NumPy arrays, so that shapes are concrete.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from lottery_jax.errors import shown

Value = Any
"""A NumPy array on the host, or an array of JAX, traced or not."""

MAX_ELEMENTS = 2**28
"""Of a value on the host; a value of JAX is refused by size when it is traced."""


class UnsupportedNodeError(Exception):
    """A node that cannot be imported: what it must have, and what it has."""

    def __init__(self, must: str, got: object) -> None:
        super().__init__(must)
        self.must, self.got = must, got if isinstance(got, str) else shown(got)


def require(condition: bool, must: str, got: object) -> None:
    """Raise ``UnsupportedNodeError`` unless the condition holds."""
    if not condition:
        raise UnsupportedNodeError(must, got)


def namespace(*values: Value) -> Any:
    """``numpy`` if all values are on the host, else ``jax.numpy``."""
    return np if all(value is None or isinstance(value, np.ndarray) for value in values) else jnp


def bounded(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape, unless a value of it would be too large for the host."""
    sizes = tuple(int(size) for size in shape)
    require(
        min(sizes, default=0) >= 0 and math.prod(sizes) <= MAX_ELEMENTS, "have a value of at most 2^28 elements", sizes
    )
    return sizes


def integers(value: Value, what: str) -> list[int]:
    """The integers of a shape, of axes or of indices, which must be known before the network runs."""
    require(
        isinstance(value, np.ndarray), f"have {what} that do not depend on the input or on parameters", "a traced value"
    )
    require(
        value.dtype.kind in "iu" and value.ndim <= 1, f"have {what} that are a vector of integers", str(value.dtype)
    )
    return [int(one) for one in value.reshape(-1)]


def normalized(axes: Sequence[int], rank: int) -> list[int]:
    """Axes counted from the front, each once."""
    require(all(-rank <= axis < rank for axis in axes), f"have axes of {rank} axes", list(axes))
    found = [axis % rank for axis in axes]
    require(len(set(found)) == len(found), "have each axis once", list(axes))
    return found


def spatial(x: Value, layer: str) -> tuple[int, ...]:
    """The sizes of the axes after batch and channels."""
    require(x.ndim >= 3, f"have {layer} of an input [batch, channels, ...]", list(x.shape))
    return x.shape[2:]


def _unary(name: str) -> Callable[[Value], Value]:
    return lambda x: getattr(namespace(x), name)(x)


def _binary(name: str) -> Callable[[Value, Value], Value]:
    return lambda a, b: _broadcast(lambda xp, *both: getattr(xp, name)(*both), a, b)


def _broadcast(function: Callable[..., Value], *values: Value) -> Value:
    bounded(np.broadcast_shapes(*(value.shape for value in values)))
    return function(namespace(*values), *values)


def _variadic(name: str) -> Callable[..., Value]:
    def fold(first: Value, *others: Value) -> Value:
        return functools.reduce(_binary(name), others, first)

    return fold


def _mean(*values: Value) -> Value:
    return _variadic("add")(*values) / np.float32(len(values))


def _divide(a: Value, b: Value) -> Value:
    if a.dtype.kind == "f":
        return _binary("divide")(a, b)
    require(not isinstance(b, np.ndarray) or bool(np.all(b != 0)), "divide by integers other than 0", "0")
    # Integers are truncated towards zero, not rounded down.
    return _broadcast(lambda xp, a, b: xp.sign(a) * xp.sign(b) * (xp.abs(a) // xp.abs(b)), a, b)


def _modulo(a: Value, b: Value, *, fmod: int = 0) -> Value:
    require(a.dtype.kind in "iu" and not fmod, "have integers and fmod=0", f"{a.dtype}, fmod={fmod}")
    require(not isinstance(b, np.ndarray) or bool(np.all(b != 0)), "divide by integers other than 0", "0")
    return _binary("mod")(a, b)


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and exponent.ndim <= base.ndim:
        number = float(exponent.reshape(()))
        if number == 0.5 and base.dtype.kind == "f":
            return namespace(base).sqrt(base)
        if number.is_integer() and 1 <= number <= 64:  # multiplications, which need no case for negative bases
            return base ** int(number)
    require(base.dtype.kind == "f", "have a base of floats", str(base.dtype))
    return _broadcast(lambda xp, a, b: xp.power(a, b.astype(a.dtype)), base, exponent)


def _where(condition: Value, a: Value, b: Value) -> Value:
    return _broadcast(lambda xp, *values: xp.where(*values), condition, a, b)


_DTYPES = {1: np.float32, 10: np.float32, 11: np.float32, 16: np.float32, 9: np.bool_, 6: np.int32, 7: np.int64}
"""Of ``TensorProto.DataType``: floats are computed in float32."""


def _cast(x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    require(to in _DTYPES, "cast to float32, float64, float16, bfloat16, int32, int64 or bool", f"data type {to}")
    dtype = np.dtype(_DTYPES[to])
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    return x.astype(np.int32 if dtype == np.int64 else dtype)  # int64 does not exist on the device


def _shape(x: Value, *, start: int = 0, end: int | None = None) -> Value:
    return np.asarray(x.shape[start:end], np.int64)


def _size(x: Value) -> Value:
    return np.asarray(x.size, np.int64)


def _constant_of_shape(shape: Value, *, value: np.ndarray | None = None) -> Value:
    value = np.zeros(1, np.float32) if value is None else value
    require(value.size == 1, "fill with one value", value.shape)
    return np.full(bounded(integers(shape, "sizes")), value.reshape(()))


def _range(start: Value, limit: Value, delta: Value) -> Value:
    for value in (start, limit, delta):
        require(
            isinstance(value, np.ndarray) and value.size == 1, "have limits that are constant scalars", "other limits"
        )
    first, last, step = (value.reshape(()) for value in (start, limit, delta))
    require(bool(step != 0), "have a step other than 0", "0")
    bounded([max(math.ceil((float(last) - float(first)) / float(step)), 0)])
    return np.arange(first, last, step, dtype=start.dtype)


def _reshape(x: Value, shape: Value, *, allowzero: int = 0) -> Value:
    sizes = integers(shape, "sizes")
    require(all(size or allowzero or axis < x.ndim for axis, size in enumerate(sizes)), "copy sizes that exist", sizes)
    sizes = [size if size or allowzero else x.shape[axis] for axis, size in enumerate(sizes)]
    require(sizes.count(-1) <= 1 and min(sizes, default=0) >= -1, "have sizes, of which one may be -1", sizes)
    known = math.prod(size for size in sizes if size != -1)
    fits = x.size == known if -1 not in sizes else known > 0 and x.size % known == 0
    require(
        fits, f"have a shape that fits the input {list(x.shape)}; a fixed batch size is run at that batch only", sizes
    )
    return x.reshape(sizes)


def _flatten(x: Value, *, axis: int = 1) -> Value:
    require(-x.ndim <= axis <= x.ndim, f"have an axis of {x.ndim} axes", axis)
    split = axis % x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))


def _transpose(x: Value, *, perm: Sequence[int] | None = None) -> Value:
    return namespace(x).transpose(x, perm)


def _squeeze(x: Value, given: Value = None, *, axes: Sequence[int] | None = None) -> Value:
    found = integers(given, "axes") if given is not None else axes
    return namespace(x).squeeze(x, None if found is None else tuple(normalized(found, x.ndim)))


def _unsqueeze(x: Value, given: Value = None, *, axes: Sequence[int] | None = None) -> Value:
    found = integers(given, "axes") if given is not None else list(axes or ())
    rank = x.ndim + len(found)
    return namespace(x).expand_dims(x, tuple(normalized(found, rank)))


def _concat(*values: Value, axis: int) -> Value:
    (along,) = normalized([axis], values[0].ndim)
    bounded([sum(value.size for value in values)])
    return namespace(*values).concatenate(values, axis=along)


def _split(
    x: Value, sizes: Value = None, *, axis: int = 0, split: Sequence[int] = (), num_outputs: int = 0, outputs: int
) -> tuple[Value, ...]:
    (along,) = normalized([axis], x.ndim)
    given = integers(sizes, "sizes") if sizes is not None else list(split)
    if not given:  # equal parts, of which the last one may be smaller
        part = -(-x.shape[along] // outputs)
        given = [part] * (outputs - 1) + [x.shape[along] - part * (outputs - 1)]
        require(num_outputs in (0, outputs), f"have {outputs} outputs", num_outputs)
    fits = len(given) == outputs and min(given) >= 0 and sum(given) == x.shape[along]
    require(fits, f"split {x.shape[along]} entries into {outputs} parts", given)
    stops = [sum(given[:index]) for index in range(outputs + 1)]
    return tuple(_part(x, along, start, stop, 1) for start, stop in itertools.pairwise(stops))


def _part(x: Value, axis: int, start: int, stop: int, step: int) -> Value:
    if isinstance(x, np.ndarray):
        return x[(slice(None),) * axis + (slice(start, stop, step),)]
    return lax.slice_in_dim(x, start, max(start, stop), step, axis)


def _slice(
    x: Value,
    starts_input: Value = None,
    ends_input: Value = None,
    axes_input: Value = None,
    steps_input: Value = None,
    *,
    starts: Sequence[int] = (),
    ends: Sequence[int] = (),
    axes: Sequence[int] | None = None,
) -> Value:
    if starts_input is not None:
        starts, ends = integers(starts_input, "starts"), integers(ends_input, "ends")
        axes = integers(axes_input, "axes") if axes_input is not None else None
    steps = integers(steps_input, "steps") if steps_input is not None else [1] * len(starts)
    along = normalized(list(range(len(starts))) if axes is None else axes, x.ndim)
    require(len(starts) == len(ends) == len(along) == len(steps), "have one start, end and step per axis", list(starts))
    for axis, start, end, step in zip(along, starts, ends, steps, strict=True):
        require(step != 0, "have steps other than 0", 0)
        size, back = x.shape[axis], step < 0
        first = min(max(start + size * (start < 0), 0), size - back)
        last = min(max(end + size * (end < 0), -int(back)), size)
        entries = range(first, last, step)
        if not entries:
            x = _part(x, axis, 0, 0, 1)
        elif back:
            x = namespace(x).flip(_part(x, axis, entries[-1], entries[0] + 1, -step), axis)
        else:
            x = _part(x, axis, first, last, step)
    return x


def _pad(
    x: Value,
    pads_input: Value = None,
    fill: Value = None,
    axes: Value = None,
    *,
    mode: str = "constant",
    pads: Sequence[int] = (),
    value: float = 0.0,
) -> Value:
    widths = integers(pads_input, "pads") if pads_input is not None else list(pads)
    along = normalized(integers(axes, "axes") if axes is not None else list(range(x.ndim)), x.ndim)
    require(len(widths) == 2 * len(along), f"have {2 * len(along)} pads", len(widths))
    pairs = [(0, 0)] * x.ndim
    for index, axis in enumerate(along):
        pairs[axis] = (widths[index], widths[index + len(along)])
    bounded([size + low + high for size, (low, high) in zip(x.shape, pairs, strict=True)])
    if not any(map(any, pairs)):
        return x
    if mode == "constant":
        x = jnp.asarray(x)
        entry = jnp.asarray(value if fill is None or not fill.size else fill.reshape(()), x.dtype)
        return lax.pad(x, entry, [(low, high, 0) for low, high in pairs])  # negative widths crop
    require(mode in ("reflect", "edge", "wrap"), "pad with constant, reflect, edge or wrap", mode)
    require(min(map(min, pairs)) >= 0, f"have pads of at least 0 in mode {mode}", widths)
    if mode != "edge":
        fits = all(max(pair) <= size - (mode == "reflect") for pair, size in zip(pairs, x.shape, strict=True))
        require(fits, f"have pads in mode {mode} that are smaller than the input", widths)
    return namespace(x).pad(x, pairs, mode=mode)


def _expand(x: Value, shape: Value) -> Value:
    sizes = bounded(np.broadcast_shapes(x.shape, tuple(integers(shape, "sizes"))))
    return namespace(x).broadcast_to(x, sizes)


def _tile(x: Value, repeats: Value) -> Value:
    counts = integers(repeats, "repeats")
    require(len(counts) == x.ndim, f"have {x.ndim} repeats", counts)
    bounded([size * count for size, count in zip(x.shape, counts, strict=True)])
    return namespace(x).tile(x, counts)


def _gather(x: Value, indices: Value, *, axis: int = 0) -> Value:
    (along,) = normalized([axis], x.ndim)
    size = x.shape[along]
    bounded([*x.shape[:along], *indices.shape, *x.shape[along + 1 :]])
    if not isinstance(indices, np.ndarray):  # an embedding: a wrong index gives NaN
        return jnp.take(jnp.asarray(x), indices, axis=along)
    require(bool(np.all((indices >= -size) & (indices < size))), f"have indices of {size} entries", "an index beyond")
    found = np.where(indices < 0, indices + size, indices)
    if isinstance(x, np.ndarray) or found.ndim:
        return namespace(x).take(x, found, axis=along)
    return lax.index_in_dim(x, int(found), along, keepdims=False)


def _trilu(x: Value, diagonal: Value = None, *, upper: int = 1) -> Value:
    (k,) = integers(diagonal, "diagonals") if diagonal is not None else (0,)
    return (namespace(x).triu if upper else namespace(x).tril)(x, max(-(2**31), min(k, 2**31 - 1)))


def _reduce(name: str) -> Callable[..., Value]:
    def reduced(
        x: Value,
        given: Value = None,
        *,
        axes: Sequence[int] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Value:
        require(keepdims in (0, 1), "have keepdims of 0 or 1", keepdims)
        found = integers(given, "axes") if given is not None else list(axes or ())
        if not found and noop_with_empty_axes:
            return abs(x) if name == "norm" else x
        along = tuple(normalized(found, x.ndim)) or tuple(range(x.ndim))
        xp = namespace(x)
        if name == "norm":
            return xp.sqrt(xp.sum(x * x, axis=along, keepdims=bool(keepdims)))
        return getattr(xp, name)(x, axis=along, keepdims=bool(keepdims))

    return reduced


ARRAY_OPERATORS: dict[str, Callable[..., Any]] = {
    **{name: _binary(function) for name, function in (("Add", "add"), ("Sub", "subtract"), ("Mul", "multiply"))},
    **{name: _unary(name.lower()) for name in ("Sqrt", "Exp", "Log", "Abs", "Tanh", "Floor", "Ceil", "Sin", "Cos")},
    **{name: _binary(name.lower()) for name in ("Equal", "Greater", "Less")},
    **{f"Reduce{name}": _reduce(name.lower()) for name in ("Mean", "Sum", "Max", "Min", "Prod")},
    "And": _binary("logical_and"),
    "Cast": _cast,
    "CastLike": lambda x, other: x.astype(other.dtype),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GreaterOrEqual": _binary("greater_equal"),
    "Identity": lambda x: x,
    "IsNaN": _unary("isnan"),
    "LessOrEqual": _binary("less_equal"),
    "Max": _variadic("maximum"),
    "Mean": _mean,
    "Min": _variadic("minimum"),
    "Mod": _modulo,
    "Neg": _unary("negative"),
    "Not": _unary("logical_not"),
    "Or": _binary("logical_or"),
    "Pad": _pad,
    "Pow": _power,
    "Range": _range,
    "Reciprocal": lambda x: np.float32(1) / x,
    "ReduceL2": _reduce("norm"),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sum": _variadic("add"),
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""Operator of ONNX -> its function."""
