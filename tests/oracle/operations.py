"""Graphs and their operations, float64, as docs/ticket-format.md defines them: functions of one example."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Node = Mapping[str, Any]
Array = np.ndarray

ELEMENTWISE: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "cos": np.cos,
    "erf": np.vectorize(math.erf, otypes=[float]),
    "erfc": np.vectorize(math.erfc, otypes=[float]),
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": lambda x: np.exp(-np.logaddexp(0, -x)),
    "neg": np.negative,
    "round": np.rint,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": lambda x: x * x,
    "tanh": np.tanh,
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "div": np.divide,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "pow": np.power,
    "sub": np.subtract,
}
REDUCTIONS: dict[str, Callable[[Array], Any]] = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}
NEVER_NEGATIVE = ("abs", "erfc", "exp", "logistic", "rsqrt", "sqrt", "square")
KEEPS_SIGN = ("cbrt", "ceil", "erf", "expm1", "floor", "log1p", "round", "sign", "tanh")
COMPARISONS = ("eq", "ne", "ge", "gt", "le", "lt")


def _places(shape: tuple[int, ...]) -> Any:
    return itertools.product(*map(range, shape))


def _reduced(node: Node, x: Array) -> Array:
    others = [axis for axis in range(x.ndim) if axis not in node["axes"]]
    found = np.empty([x.shape[axis] for axis in others])
    for place in _places(found.shape):
        index = dict(zip(others, place, strict=True))
        found[place] = REDUCTIONS[node["function"]](x[tuple(index.get(axis, slice(None)) for axis in range(x.ndim))])
    return found


def _windows(node: Node, x: Array) -> Array:
    rows = [*zip(x.shape, node["size"], node["stride"], node["low"], node["high"], strict=True)]
    found = np.empty([(length + low + high - size) // stride + 1 for length, size, stride, low, high in rows])
    for place in _places(found.shape):
        own = []
        for number, (_, size, stride, low, _) in zip(place, rows, strict=True):
            start = number * stride - low
            own.append(slice(max(start, 0), max(start + size, 0)))
        found[place] = REDUCTIONS[node["function"]](x[tuple(own)])
    return found


def _padded(node: Node, x: Array) -> Array:
    rows = [*zip(x.shape, node["low"], node["high"], node["interior"], strict=True)]
    sizes = [low + size + (size - 1) * inner + high for size, low, high, inner in rows]
    found = np.full(sizes, np.float64(np.float32(node["value"])))
    for place in _places(x.shape):
        found[tuple(low + n * (inner + 1) for n, (_, low, _, inner) in zip(place, rows, strict=True))] = x[place]
    return found


def _product(node: Node, left: Array, right: Array) -> Array:
    """One letter for each axis; axes that are summed or shared have the same one in both inputs."""
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEF")
    names = [[next(letters) for _ in range(one.ndim)] for one in (left, right)]
    pairs = [*zip(node["left_shared"] + node["left_summed"], node["right_shared"] + node["right_summed"], strict=True)]
    for one, other in pairs:
        names[1][other] = names[0][one]
    shared, paired = [names[0][axis] for axis in node["left_shared"]], {names[0][one] for one, _ in pairs}
    free = [name for one in names for name in one if name not in paired]
    first, second, output = map("".join, (*names, shared + free))
    return np.atleast_1d(np.einsum(f"{first},{second}->{output}", left, right))


def _rows(node: Node, table: Array, indices: Array) -> Array:
    found = np.empty((*indices.shape, *table.shape[1:]))
    for place in _places(indices.shape):
        found[place] = table[min(max(round(float(indices[place])), 0), len(table) - 1)]
    return found


OPERATIONS: dict[str, Callable[..., Array]] = {
    "constant": lambda node: np.array([np.float32(node["value"])], np.float64),
    "elementwise": lambda node, x: ELEMENTWISE[node["function"]](x),
    "power": lambda node, x: np.prod([x] * node["exponent"], 0),
    "binary": lambda node, x, y: BINARY[node["function"]](x, y).astype(np.float64),
    "select": lambda node, truth, no, yes: np.where(truth != 0, yes, no),
    "reshape": lambda node, x: np.array(x.ravel().tolist()).reshape(node["shape"]),
    "broadcast": lambda node, x: x + np.zeros(node["shape"]),
    "transpose": lambda node, x: np.moveaxis(x, node["axes"], range(x.ndim)),
    "slice": lambda node, x: x[tuple(map(slice, node["start"], node["limit"], node["step"]))],
    "pad": _padded,
    "concatenate": lambda node, *inputs: np.concatenate(inputs, node["axis"]),
    "reduce": _reduced,
    "reduce_window": _windows,
    "dot_general": _product,
    "lookup": _rows,
}
"""Of a node and float64 arrays; `stored` reads the file."""


def operate(node: Node, inputs: list[Array], batched: list[bool]) -> Array:
    """An operation on inputs of which some have a batch axis; so has the output if one of them does."""
    apply = OPERATIONS[node["kind"]]
    if not any(batched):
        return apply(node, *inputs)
    count = len(inputs[batched.index(True)])
    examples = [
        [one[number] if many else one for one, many in zip(inputs, batched, strict=True)] for number in range(count)
    ]
    return np.stack([apply(node, *one) for one in examples])


def never_negative(node: Node, inputs: list[bool]) -> bool:
    """Whether the output of an operation is never negative, from that of its inputs."""
    kind, function = node["kind"], node.get("function")
    if kind == "constant":
        return node["value"] >= 0
    if kind == "elementwise":
        return function in NEVER_NEGATIVE or (function in KEEPS_SIGN and inputs[0])
    if kind == "power":
        return node["exponent"] % 2 == 0 or inputs[0]
    if kind == "binary" and function in COMPARISONS:
        return True
    if kind == "binary" and function in ("max", "pow", "sub"):
        return {"max": any(inputs), "pow": inputs[0], "sub": False}[function]
    if kind == "stored":
        return False
    if kind in ("lookup", "select"):
        return inputs[0] if kind == "lookup" else inputs[1] and inputs[2]
    return all(inputs) and (kind != "pad" or node["value"] >= 0)
