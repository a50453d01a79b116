"""What a graph and every elementary operation compute, once more: NumPy in float64, one example at a time."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray

ELEMENTWISE: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "cbrt": lambda x: math.copysign(abs(x) ** (1 / 3), x),
    "ceil": math.ceil,
    "cos": math.cos,
    "erf": math.erf,
    "erfc": math.erfc,
    "exp": math.exp,
    "expm1": math.expm1,
    "floor": math.floor,
    "log": math.log,
    "log1p": math.log1p,
    "logistic": lambda x: 1 / (1 + math.exp(-x)),
    "neg": lambda x: -x,
    "round": round,  # halves to even
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "sign": lambda x: (x > 0) - (x < 0),
    "sin": math.sin,
    "sqrt": math.sqrt,
    "square": lambda x: x * x,
    "tanh": math.tanh,
}
BINARY: dict[str, Callable[[float, float], float]] = {
    "add": lambda x, y: x + y,
    "div": lambda x, y: x / y,
    "eq": lambda x, y: float(x == y),
    "ge": lambda x, y: float(x >= y),
    "gt": lambda x, y: float(x > y),
    "le": lambda x, y: float(x <= y),
    "lt": lambda x, y: float(x < y),
    "max": max,
    "min": min,
    "mul": lambda x, y: x * y,
    "ne": lambda x, y: float(x != y),
    "pow": math.pow,
    "sub": lambda x, y: x - y,
}
REDUCTIONS: dict[str, Callable[[list[float]], float]] = {"sum": math.fsum, "max": max, "min": min, "prod": math.prod}


def broadcast(function: Callable[..., float], *inputs: Array) -> Array:
    """A function of numbers at each place of the broadcast inputs."""
    placed = np.broadcast_arrays(*inputs)
    values = [function(*each) for each in zip(*(one.ravel().tolist() for one in placed), strict=True)]
    return np.array(values, np.float64).reshape(placed[0].shape)


def places(shape: tuple[int, ...]) -> Any:
    return itertools.product(*map(range, shape))


def reduced(node: Any, x: Array) -> Array:
    left = [axis for axis in range(x.ndim) if axis not in node.axes]
    found = np.empty([x.shape[axis] for axis in left])
    for place in places(found.shape):
        index: list[Any] = [slice(None)] * x.ndim
        for axis, number in zip(left, place, strict=True):
            index[axis] = number
        found[place] = REDUCTIONS[node.function](x[tuple(index)].ravel().tolist())
    return found


def windows(node: Any, x: Array) -> Array:
    rows = [*zip(x.shape, node.size, node.stride, node.low, node.high, strict=True)]
    found = np.empty([(length + low + high - size) // stride + 1 for length, size, stride, low, high in rows])
    for place in places(found.shape):
        starts = [number * stride - low for number, (_, _, stride, low, _) in zip(place, rows, strict=True)]
        own = tuple(slice(max(s, 0), max(s + row[1], 0)) for s, row in zip(starts, rows, strict=True))
        found[place] = REDUCTIONS[node.function](x[own].ravel().tolist())
    return found


def padded(node: Any, x: Array) -> Array:
    rows = [*zip(x.shape, node.low, node.high, node.interior, strict=True)]
    found = np.full([low + size + (size - 1) * inner + high for size, low, high, inner in rows], float(node.value))
    for place in places(x.shape):
        found[tuple(low + n * (inner + 1) for n, (_, low, _, inner) in zip(place, rows, strict=True))] = x[place]
    return found


def multiplied(node: Any, left: Array, right: Array) -> Array:
    """One letter for each axis: those that are shared or summed have the same in both inputs."""
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    names = [[next(letters) for _ in range(one.ndim)] for one in (left, right)]
    for one, other in zip(node.left_shared + node.left_summed, node.right_shared + node.right_summed, strict=True):
        names[1][other] = names[0][one]
    shared, summed = ([names[0][axis] for axis in axes] for axes in (node.left_shared, node.left_summed))
    free = [name for one in names for name in one if name not in shared + summed]
    first, second, output = map("".join, (*names, shared + free))
    return np.atleast_1d(np.einsum(f"{first},{second}->{output}", left, right))


def rows(node: Any, table: Array, indices: Array) -> Array:
    found = np.empty((*indices.shape, *table.shape[1:]))
    for place in places(indices.shape):
        found[place] = table[min(max(round(float(indices[place])), 0), len(table) - 1)]
    return found


def sliced(node: Any, x: Array) -> Array:
    return x[tuple(map(slice, node.start, node.limit, node.step))]


OPERATION_ORACLES: dict[str, Callable[..., Array]] = {
    "constant": lambda node: np.array([node.value]),
    "elementwise": lambda node, x: broadcast(ELEMENTWISE[node.function], x),
    "power": lambda node, x: broadcast(lambda number: math.prod([number] * node.exponent), x),
    "binary": lambda node, *inputs: broadcast(BINARY[node.function], *inputs),
    "select": lambda node, *inputs: broadcast(lambda which, no, yes: yes if which else no, *inputs),
    "reshape": lambda node, x: np.array(x.ravel().tolist()).reshape(node.shape),
    "transpose": lambda node, x: np.moveaxis(x, node.axes, range(x.ndim)),
    "broadcast": lambda node, x: x + np.zeros(node.shape),
    "slice": sliced,
    "pad": padded,
    "concatenate": lambda node, *inputs: np.concatenate(inputs, node.axis),
    "reduce": reduced,
    "reduce_window": windows,
    "dot_general": multiplied,
    "lookup": rows,
}
"""Of one example: float64 arrays to a float64 array."""


def graph(node: Any, tensor: Callable[[str], Array], layer: Callable[[str, Any, Array], Array], x: Array) -> Array:
    """The output of a graph for one example; `tensor` gives stored tensors and `layer` runs a layer, by name."""
    values = {"input": x}
    for name, inner, inputs in node.nodes:
        given = [values[one] for one in inputs]
        if inner.kind == "stored":
            values[name] = tensor(name)
        elif inner.kind in OPERATION_ORACLES:
            values[name] = OPERATION_ORACLES[inner.kind](inner, *given)
        else:
            values[name] = layer(name, inner, *given)
    return values[node.output]
