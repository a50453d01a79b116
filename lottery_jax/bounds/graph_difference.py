"""Interval bounds of f and g - f through a graph, node by node. A node without a bound is refused by its name.

A difference passes through sums and products, maxima, and monotone activations. Nodes in front of the first
approximated layer have none, whatever they are. There are no linear bounds of a graph.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import NoReturn

import numpy as np

from lottery_jax.bounds.difference import LayerBounds, in_float64, propagate
from lottery_jax.errors import InputError
from lottery_jax.networks.intervals import ROUNDING, IntervalArray
from lottery_jax.networks.layers.activations import LeakyRelu, Sigmoid, Tanh
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Concatenate,
    Constant,
    DotGeneral,
    Elementwise,
    Operation,
    Pad,
    Power,
    Reduce,
    ReduceWindow,
    Reshape,
    Select,
    Slice,
    Stored,
    Transpose,
)
from lottery_jax.networks.node import Node, Spec, StatelessLayer, child_path
from lottery_jax.tickets.operation_bounds import Operands, operation_bounds

Layer = Callable[[Node, str, LayerBounds], LayerBounds]
"""From a layer, its path and bounds of its inputs to bounds of its outputs."""


def propagate_graph(
    graph: Graph, path: str, inputs: LayerBounds, layer: Layer, tensor: Callable[[str], np.ndarray]
) -> LayerBounds:
    """Bounds of the outputs of a graph.

    Args:
        layer: Bounds the layers of the graph.
        tensor: Gives the target's stored tensors by name.

    Raises:
        InputError: The outputs of a node have no bound.
    """
    walk = _Walk(graph, inputs)
    for name, node, given in graph.nodes:
        own = child_path(path, name)
        if isinstance(node, Constant | Stored):
            value = np.full(1, np.float32(node.value)) if isinstance(node, Constant) else tensor(own)
            known = IntervalArray(*[value.astype(np.float64)] * 2)
            walk.values[name] = LayerBounds(known, known)
        elif isinstance(node, Operation):
            walk.values[name] = walk.through(name, node, given, own)
        else:
            walk.values[name] = layer(node, own, walk.values[given[0]])
            if not isinstance(node, StatelessLayer):
                continue
        if all(one in walk.equal for one in given):
            walk.equal.add(name)
            walk.values[name] = walk.values[name].without_difference()
    return walk.values[graph.output]


class _Walk:
    """The bounds of the nodes so far; those in `equal` have the same values in both networks."""

    def __init__(self, graph: Graph, inputs: LayerBounds) -> None:
        self.nodes = {name: (node, given) for name, node, given in graph.nodes}
        self.values = {INPUT: inputs}
        self.equal = set() if inputs.difference.magnitude.any() else {INPUT}

    def through(self, name: str, node: Operation, inputs: tuple[str, ...], path: str) -> LayerBounds:
        """Bounds of the outputs of an operation."""
        given = [self.values[one] for one in inputs]
        slope = self._leaky_slope(node, inputs)
        if slope is not None:
            return propagate(LeakyRelu(slope), given[2])
        found = _bounds(node, given)
        if not all(one in self.equal for one in inputs):
            if found is None:
                _refuse(node, path)
            return found
        if found is None:
            # Intervals of float32 contain the exact values.
            shapes = [one.f.low.shape for one in given]
            shape = node.combined_spec(*map(Spec, shapes)).shape
            with np.errstate(all="ignore"):
                values = operation_bounds(node, Operands([one.f for one in given], shapes, lambda sizes: None))
            if not np.isfinite(values.magnitude).all():
                _refuse(node, path)
            ends = IntervalArray(*(np.broadcast_to(end, shape) for end in (values.low, values.high)))
            found = LayerBounds(ends, ends)
        return found

    def _leaky_slope(self, node: Operation, inputs: tuple[str, ...]) -> float | None:
        """The slope of a LeakyReLU that is written as x where x >= 0 (or x > 0), and as a multiple of x elsewhere."""
        if not isinstance(node, Select):
            return None
        which, otherwise, value = inputs
        (compare, compared), (scale, scaled) = self._node(which), self._node(otherwise)
        positive = isinstance(compare, Binary) and compare.function in ("ge", "gt") and compared[0] == value
        if not positive or self._constant(compared[1]) != 0:
            return None
        if not isinstance(scale, Binary) or scale.function != "mul" or value not in scaled:
            return None
        slope = self._constant(scaled[1 - scaled.index(value)])
        return slope if slope is not None and 0 <= slope <= 1 else None

    def _node(self, name: str) -> tuple[Node | None, tuple[str, ...]]:
        return self.nodes.get(name, (None, ()))

    def _constant(self, name: str) -> float | None:
        node, inputs = self._node(name)
        if isinstance(node, Broadcast | Reshape):
            return self._constant(inputs[0])
        return float(np.float32(node.value)) if isinstance(node, Constant) else None


def _refuse(node: Operation, path: str) -> NoReturn:
    function = getattr(node, "function", node.kind)
    raise InputError(
        f"at the node {path!r} the output cannot be bounded through {function!r}, only through sums, products, maxima"
        " and activations such as ReLU, tanh and sigmoid"
    )


def _bounds(node: Operation, given: list[LayerBounds]) -> LayerBounds | None:
    """Bounds of the outputs of an operation; None if no rule is known."""
    match node:
        case Reshape() | Transpose() | Broadcast() | Slice() | Concatenate():
            return _each(node, given)
        case Pad():
            return LayerBounds(
                _ends(node, given[0].f), _ends(dataclasses.replace(node, value=0.0), given[0].difference)
            )
        case Binary("add"):
            return _sum(*given)
        case Binary("sub"):
            return _sum(given[0], _negative(given[1]))
        case Binary("mul"):
            return _power(given[0], 2) if given[0] is given[1] else _product(given[0], given[1])
        case Binary("div") if _is_number(given[1]) and given[1].f.low.all():
            inverse = 1 / given[1].f.low
            return _product(given[0], LayerBounds(IntervalArray(inverse, inverse).widened(), given[1].difference))
        case Binary("lt" | "le" | "gt" | "ge" | "eq" | "ne"):
            shapes = [one.f.low.shape for one in given]
            truth = operation_bounds(node, Operands([one.hull for one in given], shapes, lambda sizes: None))
            return LayerBounds(truth, IntervalArray(truth.low - truth.high, truth.high - truth.low))
        case Binary("max"):
            return _larger(*given)
        case Binary("min"):
            return _negative(_larger(*(_negative(one) for one in given)))
        case Elementwise("neg"):
            return _negative(given[0])
        case Elementwise("tanh"):
            return propagate(Tanh(), given[0])
        case Elementwise("logistic"):
            return propagate(Sigmoid(), given[0])
        case Elementwise("abs"):
            return _larger(given[0], _negative(given[0]))
        case Elementwise("square"):
            return _power(given[0], 2)
        case Power():
            return _power(given[0], node.exponent)
        case Select() if _is_number(given[0]):
            which = given[0].f.low != 0
            parts = ((one.f.low, one.f.high, one.difference.low, one.difference.high) for one in (given[2], given[1]))
            ends = [np.where(which, *both) for both in zip(*parts, strict=True)]
            return LayerBounds(IntervalArray(*ends[:2]), IntervalArray(*ends[2:]))
        case Reduce("sum") | ReduceWindow("sum"):
            return _added(node, given[0])
        case Reduce("max" | "min") | ReduceWindow("max" | "min"):
            # A difference of two maxima is at most the largest difference, and at least the smallest one.
            ends = [dataclasses.replace(node, function=function) for function in ("min", "max")]
            low, high = given[0].difference.low, given[0].difference.high
            difference = IntervalArray(in_float64(ends[0], low), in_float64(ends[1], high))
            return LayerBounds(_ends(node, given[0].f), difference)
        case DotGeneral():
            return _product(given[0], given[1], functools.partial(_dot, node))
    return None


def _is_number(values: LayerBounds) -> bool:
    """Whether a value is known exactly."""
    return bool((values.f.low == values.f.high).all()) and not values.difference.magnitude.any()


def _ends(node: Operation, *values: IntervalArray) -> IntervalArray:
    return IntervalArray(in_float64(node, *(x.low for x in values)), in_float64(node, *(x.high for x in values)))


def _each(node: Operation, given: list[LayerBounds]) -> LayerBounds:
    return LayerBounds(_ends(node, *(one.f for one in given)), _ends(node, *(one.difference for one in given)))


def _negative(values: LayerBounds) -> LayerBounds:
    f, difference = (IntervalArray(-each.high, -each.low) for each in (values.f, values.difference))
    return LayerBounds(f, difference)


def _sum(left: LayerBounds, right: LayerBounds) -> LayerBounds:
    return LayerBounds(left.f + right.f, left.difference + right.difference)


def _added(node: Operation, values: LayerBounds) -> LayerBounds:
    def total(x: IntervalArray) -> IntervalArray:
        return _ends(node, x).widened(ROUNDING * in_float64(node, x.magnitude))

    return LayerBounds(total(values.f), total(values.difference))


def _times(left: IntervalArray, right: IntervalArray) -> IntervalArray:
    ends = [a * b for a, b in itertools.product((left.low, left.high), (right.low, right.high))]
    return IntervalArray(functools.reduce(np.minimum, ends), functools.reduce(np.maximum, ends)).widened()


def _dot(node: DotGeneral, left: IntervalArray, right: IntervalArray) -> IntervalArray:
    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return in_float64(node, a, b)

    centre = product(left.centre, right.centre)
    spread = product(np.abs(left.centre) + left.radius, right.radius) + product(left.radius, np.abs(right.centre))
    rounding = ROUNDING * product(left.magnitude, right.magnitude)
    return IntervalArray(centre - spread, centre + spread).widened(rounding)


def _product(
    left: LayerBounds, right: LayerBounds, times: Callable[[IntervalArray, IntervalArray], IntervalArray] = _times
) -> LayerBounds:
    """f = f1 f2, and g1 g2 - f1 f2 = (g1 - f1) g2 + f1 (g2 - f2), or with the networks exchanged."""
    first = times(left.difference, right.g) + times(left.f, right.difference)
    second = times(left.difference, right.f) + times(left.g, right.difference)
    return LayerBounds(times(left.f, right.f), first.intersect(second))


def _power(values: LayerBounds, exponent: int) -> LayerBounds:
    found = functools.reduce(_product, [values] * exponent)
    return LayerBounds(found.f.clipped(0.0) if exponent % 2 == 0 else found.f, found.difference)


def _larger(left: LayerBounds, right: LayerBounds) -> LayerBounds:
    """The maximum: its difference lies between those of both inputs, and is that of the one that is always larger."""
    f = IntervalArray(np.maximum(left.f.low, right.f.low), np.maximum(left.f.high, right.f.high))
    a, b = left.difference, right.difference
    first, second = left.hull.low >= right.hull.high, right.hull.low >= left.hull.high
    low = np.where(first, a.low, np.where(second, b.low, np.minimum(a.low, b.low)))
    high = np.where(first, a.high, np.where(second, b.high, np.maximum(a.high, b.high)))
    return LayerBounds(f.widened(), IntervalArray(low, high).widened())
