"""Intervals of the elementary operations of a graph in float32, from intervals of their inputs.

Arrays of intervals broadcast to the shape of a value: an axis of size 1 stands for all positions, as their hull. So
arrays stay small. Results contain the rounding of float32 and underflow. An undefined or infinite result gives an
interval that is not finite.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from lottery_jax.networks.intervals import ROUNDING, IntervalArray
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Concatenate,
    DotGeneral,
    Elementwise,
    Lookup,
    Operation,
    Pad,
    Power,
    Reduce,
    ReduceWindow,
    Reshape,
    Select,
    Slice,
    Transpose,
)
from lottery_jax.tickets.rounding import SMALLEST, gamma

FUNCTION_ERROR = 2.0**-20
"""Relative, of exp, tanh, erf and rsqrt in float32."""

MAX_NUMBERS = 1 << 18
"""Numbers of an array of intervals, above which an axis becomes a hull."""

_MAX_PRODUCTS = 1 << 22  # of two arrays of intervals
_LAST_BITS = ROUNDING * 2.0**-8  # relative rounding of a number in float64

Note = Callable[[np.ndarray | float], None]
"""Records absolute values of partial results."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operands:
    """The inputs of an operation.

    Attributes:
        values: An interval array for each input, with as many axes as the input has.
        shapes: The shape of each input.
        note: Called with bounds of partial results.
    """

    values: Sequence[IntervalArray]
    shapes: Sequence[tuple[int, ...]]
    note: Note


def operation_bounds(node: Operation, given: Operands) -> IntervalArray:
    """The output of an operation for inputs in intervals."""
    if isinstance(node, Binary | Select):
        # A broadcast of two arrays may be far larger than both.
        size = math.prod(np.broadcast_shapes(*(one.low.shape for one in given.values)))
        numbers = MAX_NUMBERS if size <= MAX_NUMBERS else 1
        given = dataclasses.replace(given, values=[one.limited(numbers) for one in given.values])
    return _interval(node, given)


@functools.singledispatch
def _interval(node: Operation, given: Operands) -> IntervalArray:
    raise AssertionError(f"no interval is known for {node.kind!r}")


def _rounded(values: IntervalArray, relative: np.ndarray | float, absolute: np.ndarray | float = 0.0) -> IntervalArray:
    """With the rounding of float32, relative to each number, and underflow. Rounding keeps signs."""
    least, most = ((relative + _LAST_BITS) * np.abs(end) + absolute + SMALLEST for end in (values.low, values.high))
    low = np.where(values.low >= 0, np.maximum(values.low - least, 0), values.low - least)
    return IntervalArray(low, np.where(values.high <= 0, np.minimum(values.high + most, 0), values.high + most))


def _extremes(*ends: np.ndarray) -> IntervalArray:
    return IntervalArray(functools.reduce(np.minimum, ends), functools.reduce(np.maximum, ends))


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _rsqrt(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, 1 / np.sqrt(x), np.inf)


_EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "neg": np.negative,
    "round": np.round,
    "sign": np.sign,
}
_RELATIVE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cbrt": np.cbrt,
    "exp": np.exp,
    "expm1": np.expm1,
    "rsqrt": _rsqrt,
    "sqrt": np.sqrt,
}
_ABSOLUTE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "erfc": np.vectorize(math.erfc, otypes=[np.float64]),
    "log": np.log,
    "log1p": np.log1p,
    "logistic": _logistic,
    "tanh": np.tanh,
}
"""Monotone functions by the kind of their error: none, relative, also absolute."""

_LARGEST_ANGLE = 1e4  # up to which sine and cosine are bounded by more than -1 and 1


@_interval.register
def _(node: Elementwise, given: Operands) -> IntervalArray:
    (x,), name = given.values, node.function
    if name in ("abs", "square"):
        near, far = np.maximum(np.maximum(x.low, -x.high), 0.0), x.magnitude
        if name == "abs":
            return IntervalArray(near, far)
        return _rounded(IntervalArray(near**2, far**2), gamma(1))
    if name in ("cos", "sin"):
        values = _cosine(x if name == "cos" else IntervalArray(x.low - math.pi / 2, x.high - math.pi / 2))
        return values.widened(FUNCTION_ERROR)
    if name in _EXACT:
        return _extremes(_EXACT[name](x.low), _EXACT[name](x.high))
    if name in _RELATIVE:
        values = _extremes(_RELATIVE[name](x.low), _RELATIVE[name](x.high))
        return _rounded(values, FUNCTION_ERROR)
    values = _extremes(_ABSOLUTE[name](x.low), _ABSOLUTE[name](x.high))
    return _rounded(values, FUNCTION_ERROR, FUNCTION_ERROR)


def _cosine(x: IntervalArray) -> IntervalArray:
    turn = 2 * math.pi
    ends = _extremes(np.cos(x.low), np.cos(x.high))
    wide = x.magnitude > _LARGEST_ANGLE

    def reached(angle: float) -> np.ndarray:
        """Whether the interval has a point that equals this angle, up to whole turns."""
        return wide | (np.ceil((x.low - angle) / turn - ROUNDING) <= (x.high - angle) / turn + ROUNDING)

    return IntervalArray(np.where(reached(math.pi), -1.0, ends.low), np.where(reached(0.0), 1.0, ends.high))


@_interval.register
def _(node: Power, given: Operands) -> IntervalArray:
    return _power(given.values[0], node.exponent, given.note)


def _power(x: IntervalArray, exponent: int, note: Note) -> IntervalArray:
    largest = np.maximum(x.magnitude, 1) ** exponent
    note(largest)
    low = np.maximum(np.maximum(x.low, -x.high), 0.0) if exponent % 2 == 0 else x.low
    high = x.magnitude if exponent % 2 == 0 else x.high
    values = IntervalArray(low**exponent, high**exponent)
    return _rounded(values, gamma(exponent), exponent * SMALLEST * largest)


@_interval.register
def _(node: Binary, given: Operands) -> IntervalArray:
    x, y = given.values
    match node.function:
        case "add" | "sub":
            other = y if node.function == "add" else IntervalArray(-y.high, -y.low)
            return _rounded(IntervalArray(x.low + other.low, x.high + other.high), gamma(1))
        case "mul":
            return _times(x, y, 1)
        case "div":
            zero = (y.low <= 0) & (y.high >= 0)
            low, high = (np.where(zero, np.nan, 1 / end) for end in (y.high, y.low))
            return _times(x, IntervalArray(low, high), 3)
        case "max":
            return IntervalArray(np.maximum(x.low, y.low), np.maximum(x.high, y.high))
        case "min":
            return IntervalArray(np.minimum(x.low, y.low), np.minimum(x.high, y.high))
        case "pow":
            return _raised(x, y, given.note)
    return _compared(node.function, x, y)


def _times(x: IntervalArray, y: IntervalArray, roundings: int) -> IntervalArray:
    ends = _extremes(x.low * y.low, x.low * y.high, x.high * y.low, x.high * y.high)
    return _rounded(ends, gamma(roundings))


def _raised(x: IntervalArray, y: IntervalArray, note: Note) -> IntervalArray:
    exponent = float(y.low.flat[0])
    if (y.low == y.high).all() and (y.low == exponent).all() and exponent in range(1, 65):
        return _power(x, int(exponent), note)
    positive = (x.low > 0) | ((x.low == 0) & (y.low > 0))  # elsewhere the power may be undefined
    logs = np.where(positive, np.log(np.maximum(x.low, 0)), np.nan), np.log(x.high)
    exponents = _extremes(*(end * log for end in (y.low, y.high) for log in logs))
    values = IntervalArray(np.exp(exponents.low), np.exp(exponents.high))
    size = np.where(np.isfinite(exponents.magnitude), exponents.magnitude, 2.0**7)
    return _rounded(values, FUNCTION_ERROR * (1 + size))


def _compared(function: str, x: IntervalArray, y: IntervalArray) -> IntervalArray:
    """0 or 1, or both."""
    if function in ("lt", "le"):
        function, x, y = {"lt": "gt", "le": "ge"}[function], y, x
    if function == "gt":
        always, never = x.low > y.high, x.high <= y.low
    elif function == "ge":
        always, never = x.low >= y.high, x.high < y.low
    else:
        apart = (x.low > y.high) | (x.high < y.low)
        same = (x.low == x.high) & (y.low == y.high) & (x.low == y.low)
        always, never = (same, apart) if function == "eq" else (apart, same)
    return IntervalArray(always.astype(np.float64), 1.0 - never)


@_interval.register
def _(node: Select, given: Operands) -> IntervalArray:
    which, otherwise, value = given.values
    first, second = (which.low > 0) | (which.high < 0), (which.low == 0) & (which.high == 0)
    low, high = np.minimum(value.low, otherwise.low), np.maximum(value.high, otherwise.high)
    return IntervalArray(
        np.where(first, value.low, np.where(second, otherwise.low, low)),
        np.where(first, value.high, np.where(second, otherwise.high, high)),
    )


def _each(values: IntervalArray, function: Callable[[np.ndarray], np.ndarray]) -> IntervalArray:
    return IntervalArray(function(values.low), function(values.high))


@_interval.register
def _(node: Reshape, given: Operands) -> IntervalArray:
    (x,), (shape,) = given.values, given.shapes
    wide, out = [], []
    for old, new in _blocks(shape, node.shape):
        sizes, full = x.low.shape[old], math.prod(shape[old])
        whole = math.prod(sizes) > 1
        if whole and math.prod(sizes) < full and full * x.low.size > MAX_NUMBERS * math.prod(sizes):
            x, whole = x.hull(range(old.start, old.stop)), False
        wide += shape[old] if whole else [1] * len(sizes)
        out += node.shape[new] if whole else [1] * (new.stop - new.start)
    return _each(x, lambda array: np.broadcast_to(array, wide).reshape(out))


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Ranges of the axes of two given.shapes with the same numbers, each as short as possible."""
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start, left, right = (i, j), math.prod(old[i : i + 1]), math.prod(new[j : j + 1])
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        blocks.append((slice(start[0], i), slice(start[1], j)))
    return blocks


@_interval.register
def _(node: Transpose, given: Operands) -> IntervalArray:
    return _each(given.values[0], lambda array: array.transpose(node.axes))


@_interval.register
def _(node: Broadcast, given: Operands) -> IntervalArray:
    more = [1] * (len(node.shape) - len(given.shapes[0]))
    return _each(given.values[0], lambda array: array.reshape(*more, *array.shape))


@_interval.register
def _(node: Slice, given: Operands) -> IntervalArray:
    (x,), rows = given.values, zip(node.start, node.limit, node.step, strict=True)
    own = tuple(slice(*row) if size > 1 else slice(None) for size, row in zip(x.low.shape, rows, strict=True))
    return _each(x, lambda array: array[own])


@_interval.register
def _(node: Pad, given: Operands) -> IntervalArray:
    rows = enumerate(zip(node.low, node.high, node.interior, strict=True))
    padded, value = [axis for axis, row in rows if any(row)], float(np.float32(node.value))
    x = given.values[0].hull(padded)
    return IntervalArray(np.minimum(x.low, value), np.maximum(x.high, value)) if padded else x


@_interval.register
def _(node: Concatenate, given: Operands) -> IntervalArray:
    # Channels keep their own intervals, other positions share one.
    channels = node.axis == len(given.shapes[0]) - 1
    parts = list(given.values) if channels else [one.hull([node.axis]) for one in given.values]
    others = list(np.broadcast_shapes(*(_changed(one.low.shape, node.axis, 1) for one in parts)))
    size = sum(shape[node.axis] for shape in given.shapes)
    if not channels or math.prod(others) * size > MAX_NUMBERS:
        parts = [one.hull([node.axis]) for one in parts]
        return _extremes(*(end for one in parts for end in (one.low, one.high)))

    def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
        wide = [_changed(others, node.axis, shape[node.axis]) for shape in given.shapes]
        return np.concatenate([np.broadcast_to(a, s) for a, s in zip(arrays, wide, strict=True)], node.axis)

    return IntervalArray(joined([one.low for one in parts]), joined([one.high for one in parts]))


def _changed(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


@_interval.register
def _(node: Reduce, given: Operands) -> IntervalArray:
    (x,), (shape,), axes = given.values, given.shapes, node.axes
    count = math.prod(shape[axis] for axis in axes)
    repeated = count // math.prod(x.low.shape[axis] for axis in axes)  # numbers of each interval
    match node.function:
        case "max":
            return _each(x, lambda array: array.max(axes))
        case "min":
            return _each(x, lambda array: array.min(axes))
        case "sum":
            size = repeated * x.magnitude.sum(axes)
            given.note(size)
            values = _each(x, lambda array: repeated * array.sum(axes))
            error = (gamma(count) + count * ROUNDING * 2.0**-12) * size + count * SMALLEST
            return _signed(values.widened(error), x, axes)
    largest = (np.maximum(x.magnitude, 1) ** repeated).prod(axes)
    given.note(largest)
    high = (x.magnitude**repeated).prod(axes)
    high = high * (1 + gamma(count)) + count * SMALLEST * largest
    return _signed(IntervalArray(-high, high).widened(), x, axes)


def _signed(values: IntervalArray, x: IntervalArray, axes: tuple[int, ...]) -> IntervalArray:
    """Sums or products, without the other sign if all `x` are at least 0."""
    return IntervalArray(np.where((x.low >= 0).all(axes), np.maximum(values.low, 0), values.low), values.high)


@_interval.register
def _(node: ReduceWindow, given: Operands) -> IntervalArray:
    windowed = [axis for axis, size in enumerate(node.size) if size > 1 or node.stride[axis] > 1]
    x, count = given.values[0].hull(windowed), math.prod(node.size)
    if node.function != "sum":
        return x
    least = 1 if max(*node.low, *node.high) > 0 else count  # numbers of a window
    size = count * x.magnitude
    given.note(size)
    values = IntervalArray(np.minimum(least * x.low, count * x.low), np.maximum(least * x.high, count * x.high))
    return _rounded(values, 0.0, gamma(count) * size + count * SMALLEST)


@_interval.register
def _(node: DotGeneral, given: Operands) -> IntervalArray:
    summed, shared = (node.left_summed, node.right_summed), (node.left_shared, node.right_shared)
    x, y = given.values
    left, right = list(x.low.shape), list(y.low.shape)
    free = [[i for i in range(len(size)) if i not in (*shared[k], *summed[k])] for k, size in enumerate((left, right))]
    for a, b in zip((*shared[0], *summed[0]), (*shared[1], *summed[1]), strict=True):
        left[a] = right[b] = max(left[a], right[b])
    if math.prod(left) * math.prod(right[b] for b in free[1]) > _MAX_PRODUCTS:
        x, y = (one.hull(range(one.low.ndim)) for one in (x, y))
        left, right = list(x.low.shape), list(y.low.shape)
    repeated = math.prod(given.shapes[0][a] for a in summed[0] if left[a] == 1)
    out = [*(left[a] for a in shared[0]), *(left[a] for a in free[0]), *(right[b] for b in free[1])]

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        matrices = []
        for array, wide, number in ((a, left, 0), (b, right, 1)):
            groups = shared[number], free[number], summed[number]
            sizes = [math.prod(wide[axis] for axis in group) for group in groups]
            order = [axis for group in groups for axis in group]
            matrices.append(np.broadcast_to(array, wide).transpose(order).reshape(sizes))
        total = repeated * (matrices[0] @ matrices[1].swapaxes(1, 2))
        return total.reshape(out or [1])

    count = math.prod(given.shapes[0][axis] for axis in summed[0])
    size = product(x.magnitude, y.magnitude)
    given.note(size)
    centre = product(x.centre, y.centre)
    radius = product(np.abs(x.centre) + x.radius, y.radius) + product(x.radius, np.abs(y.centre))
    error = (gamma(count) + count * ROUNDING * 2.0**-10) * size + count * SMALLEST
    values = IntervalArray(centre - radius, centre + radius).widened(error)
    least = 0.0 if min(x.low.min(), y.low.min()) >= 0 else -size - error
    return values.clipped(least, size + error)


@_interval.register
def _(node: Lookup, given: Operands) -> IntervalArray:
    table = given.values[0].hull([0])
    more = [1] * (len(given.shapes[1]) - 1)
    return _each(table, lambda array: array.reshape(*more, *array.shape))
