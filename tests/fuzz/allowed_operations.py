"""How far the output of a graph's operation may be from the target's, from how far its inputs may be."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracle.operations import COMPARISONS, operate

Array = np.ndarray
Node = Mapping[str, Any]


def operation_error(
    node: Node, values: list[Array], errors: list[Array], batched: list[bool], rounding: float
) -> tuple[Array, Array]:
    """The target's value and its allowed error; infinite where the operation has no bound there.

    Args:
        rounding: Allowed error of one operation, as a fraction of the sum of its terms without their signs.
    """

    def at(inputs: list[Array], changed: Node = node) -> Array:
        return operate(changed, inputs, batched)

    kind, function, value, sizes = node["kind"], node.get("function"), at(values), [np.abs(one) for one in values]
    terms = np.abs(value)
    if kind == "constant":
        error = np.zeros_like(value)
    elif kind == "lookup":
        table, index = errors
        error = at([table, values[1]]) if not index.any() else np.full_like(value, np.inf)
    elif kind == "select":
        (_, no, yes), (doubt, *others) = values, errors
        flips = np.where(doubt > 0, np.abs(yes - no), 0.0) if batched == [True] * 3 else np.full_like(value, np.inf)
        error = np.maximum(*np.broadcast_arrays(*others)) + (flips if doubt.any() else 0.0)
    elif kind == "power" or function in ("square", "abs", "prod"):
        error = at([sizes[0] + errors[0]]) - at(sizes)
    elif function in COMPARISONS:
        # Within this distance a comparison may have either result.
        minus = {"kind": "binary", "function": "sub"}, {"kind": "binary", "function": "add"}
        error = (np.abs(at(values, minus[0])) <= at(errors, minus[1])) & (at(errors, minus[1]) > 0)
    elif kind == "binary":
        ends = [
            at([one + sign * own for one, own, sign in zip(values, errors, signs, strict=True)]) for signs in _SIGNS
        ]
        error = np.max([np.abs(end - value) for end in ends], 0)
        if function == "div":
            excluded = {"kind": "binary", "function": "mul"}
            zero = at([np.ones_like(values[0]), np.where(sizes[1] <= errors[1], 1.0, 0.0)], excluded)
            error = np.where(zero > 0, np.inf, error)
        if function in ("add", "sub"):
            terms = at(sizes, {"kind": "binary", "function": "add"})
    elif kind == "elementwise":
        error = np.max([np.abs(at([values[0] + sign * errors[0]]) - value) for sign in (1, -1)], 0)
        error = np.maximum(error, errors[0]) if function in ("sin", "cos") else error
    elif kind == "dot_general":
        (x, y), (dx, dy) = sizes, errors
        error, terms = at([x, dy]) + at([dx, y]) + at([dx, dy]), at(sizes)
    else:
        wider = {**node, "value": 0.0} if kind == "pad" else {**node, "function": "max"} if function == "min" else node
        error = at(errors, wider)
        terms = at(sizes, wider) if function == "sum" else np.zeros_like(value)
    return value, np.nan_to_num(error + rounding * terms, nan=np.inf, posinf=np.inf)


_SIGNS = [*itertools.product((1, -1), repeat=2)]
