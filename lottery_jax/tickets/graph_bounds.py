"""Intervals of all values of a graph in float32, node by node.

Intervals forget that values depend on each other. What norms, softmax and activations need of that is known from the
structure (`expressions`): shares add up to 1, a centred value over its deviation is at most the root of the count, and
a function of one value is bounded piece by piece.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from lottery_jax.networks.intervals import IntervalArray
from lottery_jax.networks.layers.activations import Relu
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
    Reduce,
    ReduceWindow,
    Reshape,
    Select,
    Slice,
    Stored,
    Transpose,
)
from lottery_jax.networks.node import Node, Spec, child_path
from lottery_jax.tickets.expressions import Expressions
from lottery_jax.tickets.operation_bounds import (
    FUNCTION_ERROR,
    MAX_NUMBERS,
    Note,
    Operands,
    operation_bounds,
)
from lottery_jax.tickets.rounding import SMALLEST, gamma

_STEPS = np.arange(-8, 8.25, 0.25)
_FAR = 2.0 ** np.arange(4, 32)
_EDGES = np.concatenate([-_FAR[::-1], _STEPS, _FAR])
"""Ends of the pieces of a function of one value: activations bend near 0."""

_MAX_PIECES = 1 << 27
"""Numbers in pieces of all functions of one value of a graph; a file may ask for any number of them."""

_SLOPES = {"abs": 1.0, "cos": 1.0, "erf": 1.13, "logistic": 1.0, "neg": 1.0, "sin": 1.0, "tanh": 1.0}
"""Largest slopes of functions; copies may differ this many times as much behind them."""

_SAME = {"sub": 0.0, "lt": 0.0, "gt": 0.0, "ne": 0.0, "eq": 1.0, "le": 1.0, "ge": 1.0}
"""Functions of two equal numbers."""


class Walk(Protocol):
    """What a graph asks of the walk through the network that it belongs to."""

    def note(self, path: str, sizes: np.ndarray | float) -> None:
        """Record partial results of a node; raises an error if they may overflow."""

    def tensor(self, name: str, /) -> np.ndarray:
        """A stored tensor, float64."""
        ...

    def through_layer(
        self, node: Node, path: str, values: IntervalArray, apart: np.ndarray | None
    ) -> tuple[IntervalArray, np.ndarray | None]:
        """Bounds of the outputs of a layer for each channel, from those of its inputs."""
        ...


def through_graph(
    graph: Graph, walk: Walk, path: str, given: Spec, values: IntervalArray, apart: np.ndarray | None
) -> tuple[IntervalArray, np.ndarray | None]:
    """Bounds of each channel of the output, from those of the input: intervals [C], and `apart` [2, C] of copies."""
    bounds = _GraphBounds(graph, walk, path, graph.input_specs(given))
    ones = [1] * (len(given.shape) - 1)
    bounds.values[INPUT] = IntervalArray(*(end.reshape(*ones, -1) for end in (values.low, values.high)))
    if apart is not None:
        bounds.apart[INPUT] = apart.reshape(2, *ones, -1)
    bounds.run(copied=apart is not None)
    return bounds.channels(graph.output)


def _stored(value: np.ndarray) -> IntervalArray:
    """A tensor; numbers below the smallest normal one may count as 0."""
    small = np.where(np.abs(value) < SMALLEST, 0, value)
    return IntervalArray(np.minimum(value, small), np.maximum(value, small))


class _GraphBounds:
    """Intervals of the nodes of a graph, and how far copies can be apart: [2, ...], only of nodes with an input."""

    def __init__(self, graph: Graph, walk: Walk, path: str, specs: Mapping[str, Spec]) -> None:
        self.graph, self.walk, self.path = graph, walk, path
        self.shapes = {name: spec.shape for name, spec in specs.items()}
        self.nodes = {name: (node, inputs) for name, node, inputs in graph.nodes}
        self.expressions = Expressions(graph, specs)
        self.values: dict[str, IntervalArray] = {}
        self.apart: dict[str, np.ndarray] = {}
        self.pieces_left = _MAX_PIECES

    def run(self, *, copied: bool) -> None:
        """Bound all nodes."""
        for name, node, inputs in self.graph.nodes:
            path = child_path(self.path, name)
            if isinstance(node, Constant):
                found = IntervalArray(*[np.full(1, np.float64(np.float32(node.value)))] * 2)
            elif isinstance(node, Stored):
                found = _stored(self.walk.tensor(path))
            elif isinstance(node, Operation | Relu):
                found = self._operation(name, node, inputs, functools.partial(self.walk.note, path))
                if copied:
                    self._add_apart(name, node, inputs, path)
            else:
                channels, apart = self.walk.through_layer(node, path, *self.channels(inputs[0]))
                ones = [1] * (len(self.shapes[name]) - 1)
                found = IntervalArray(channels.low.reshape(*ones, -1), channels.high.reshape(*ones, -1))
                if apart is not None:
                    self.apart[name] = apart.reshape(2, *ones, -1)
            self.walk.note(path, found.magnitude)
            self.values[name] = found.limited(MAX_NUMBERS)

    def channels(self, name: str) -> tuple[IntervalArray, np.ndarray | None]:
        """The hull of a value for each index of its last axis, and its copies' largest differences."""
        size, values = self.shapes[name][-1], self.values[name]
        values = values.hull(range(values.low.ndim - 1))
        ends = (np.broadcast_to(end.reshape(-1), size) for end in (values.low, values.high))
        if not self.apart:
            return IntervalArray(*ends), None
        apart = self.apart.get(name, np.zeros((2, 1)))
        apart = apart.reshape(2, -1, apart.shape[-1])
        apart = np.stack([np.broadcast_to(apart[0].max(0), size), np.broadcast_to(apart[1].min(0), size)])
        return IntervalArray(*ends), apart

    def _evaluate(self, name: str, values: Callable[[str], IntervalArray], note: Note) -> IntervalArray:
        """The interval of an operation for these intervals of its inputs."""
        node, inputs = self.nodes[name]
        if isinstance(node, Relu):
            x = values(inputs[0])
            return IntervalArray(np.maximum(x.low, 0), np.maximum(x.high, 0))
        assert isinstance(node, Operation)
        if isinstance(node, Binary) and inputs[0] == inputs[1]:
            x = values(inputs[0])
            if node.function in _SAME:
                return IntervalArray(*[np.full_like(x.low, _SAME[node.function])] * 2)
            if node.function == "mul":
                return operation_bounds(Elementwise("square"), Operands([x], [self.shapes[inputs[0]]], note))
        given = Operands([values(one) for one in inputs], [self.shapes[one] for one in inputs], note)
        return operation_bounds(node, given)

    def _operation(self, name: str, node: Operation | Relu, inputs: tuple[str, ...], note: Note) -> IntervalArray:
        found = self._evaluate(name, self.values.__getitem__, note)
        if (argument := self.expressions.function_of_one(name)) is not None:
            found = self._by_pieces(name, argument, found)
        match node:
            case Binary("sub"):
                if self.expressions.below_own_maximum(name):
                    found = found.clipped(high=0.0)
                if (count := self.expressions.is_variance(name)) is not None:
                    lost = 4 * gamma(count + 4) * float(self.values[inputs[0]].magnitude.max())
                    found = found.clipped(-lost)
            case Reduce("sum") if self.expressions.sums_a_one(name):
                found = found.clipped(1 - FUNCTION_ERROR)
            case Binary("div") if self.expressions.share_axes(name) and self.values[inputs[0]].low.min() >= 0:
                found = found.clipped(0.0, 1 + FUNCTION_ERROR)
            case DotGeneral():
                for number in range(2):
                    found = self._mixed(node, inputs, number, found)
        if isinstance(node, Binary) and node.function in ("mul", "div"):
            found = self._normalised(node, name, inputs, found)
        return found

    def _by_pieces(self, name: str, argument: str, found: IntervalArray) -> IntervalArray:
        """A function of one value: the hull of its intervals on pieces of the value's interval."""
        x = self.values[argument].limited(MAX_NUMBERS // (len(_EDGES) + 1))
        self.pieces_left -= x.low.size * len(_EDGES) * self.expressions.steps[name]
        if self.pieces_left < 0:
            return found
        ends = np.array([-np.inf, *_EDGES, np.inf]).reshape(-1, *[1] * x.low.ndim)
        known = {argument: IntervalArray(np.clip(ends[:-1], x.low, x.high), np.clip(ends[1:], x.low, x.high))}

        def values(one: str) -> IntervalArray:
            if one not in known:
                constant = one in self.expressions.constants
                known[one] = self.values[one] if constant else self._evaluate(one, values, lambda sizes: None)
            return known[one]

        pieces = self._evaluate(name, values, lambda sizes: None)
        return found.clipped(pieces.low.min(0), pieces.high.max(0))

    def _mixed(self, node: DotGeneral, inputs: tuple[str, ...], number: int, found: IntervalArray) -> IntervalArray:
        """A product whose input `number` are shares that add up to 1: a weighted mean of the other input."""
        summed = (node.left_summed, node.right_summed)
        shared = (node.left_shared, node.right_shared)
        axes, weights, other = self.expressions.share_axes(inputs[number]), inputs[number], 1 - number
        own = {self.expressions.views[weights].axes[a] for a in summed[number] if self.shapes[weights][a] > 1}
        if axes is None or own != {*axes} or self.values[weights].low.min() < 0:
            return found
        values = self.values[inputs[other]].hull(summed[other])
        free = [a for a in range(values.low.ndim) if a not in (*summed[other], *shared[other])]
        ones = [1] * (len(self.shapes[weights]) - len(summed[number]) - len(shared[number]))
        count = math.prod(self.shapes[weights][a] for a in summed[number])
        margin = (gamma(2 * count + 4) + FUNCTION_ERROR) * values.magnitude + count * SMALLEST
        wide = values.widened(margin)

        def placed(array: np.ndarray) -> np.ndarray:
            first = [array.shape[a] for a in shared[other]]
            last = [array.shape[a] for a in free]
            ordered = array.transpose(*shared[other], *free, *summed[other])
            return ordered.reshape([*first, *ones, *last] if number == 0 else [*first, *last, *ones] or [1])

        return found.intersect(IntervalArray(placed(wide.low), placed(wide.high)))

    def _normalised(self, node: Binary, name: str, inputs: tuple[str, ...], found: IntervalArray) -> IntervalArray:
        """A product with a value over the root of its own mean square: that quotient is at most the root of a count."""
        kind = "rsqrt" if node.function == "mul" else "sqrt"
        factors = self.expressions.factors(name if kind == "rsqrt" else inputs[0])
        roots, views = factors if kind == "rsqrt" else [inputs[1]], self.expressions.views
        for root, value in itertools.product(roots, factors):
            size = self.expressions.root_size(views[value], views[root], len(self.shapes[name]), kind)
            largest, own = self._minuend(value), self.values[root]
            if size is None or largest is None:
                continue
            inverse = float(own.magnitude.max()) if kind == "rsqrt" else 1 / own.low.min()
            each = float(gamma(size.count + 4))
            # A rounded mean, or a rounded variance: this much is lost of the square under the root.
            lost = math.sqrt(2 * size.count * each) if size.cancels else each
            bound = (size.exact * (1 + each) + 2 * lost * largest * inverse) * (1 + 2 * FUNCTION_ERROR)
            sizes = np.full([1] * len(self.shapes[name]), bound)
            for other in factors:
                if other not in (root, value):
                    sizes = sizes * self.values[other].limited(found.low.size).magnitude
            found = found.clipped(-sizes, sizes)
        return found

    def _minuend(self, name: str) -> float | None:
        """Bound of a value before its mean was subtracted; None if that is another node's work."""
        node, inputs = self.nodes.get(name, (None, (name,)))
        if isinstance(node, Binary) and node.function == "sub":
            name = inputs[0]
        elif self.expressions.is_difference(name):
            return None
        return float(self.values[name].magnitude.max())

    def _add_apart(self, name: str, node: Operation | Relu, inputs: tuple[str, ...], path: str) -> None:
        """How far copies are apart behind an operation; raises an error where no bound is known."""
        given = [self.apart.get(one) for one in inputs]
        known = [one for one in given if one is not None]
        if known:
            found = self._apart(node, inputs, given, known)
            if found is None:
                self.walk.note(path, math.inf)
            else:
                self.apart[name] = found

    def _apart(
        self, node: Operation | Relu, inputs: tuple[str, ...], given: list[np.ndarray | None], known: list[np.ndarray]
    ) -> np.ndarray | None:
        match node:
            case Relu():
                return known[0]
            case Binary("add" | "sub"):
                return functools.reduce(np.add, known)
            case Binary("max" | "min") | Select() if not isinstance(node, Select) or given[0] is None:
                return functools.reduce(np.maximum, known)
            case Binary("mul" | "div") if len(known) == 1:
                if node.function == "mul":
                    return known[0] * self.values[inputs[given.index(None)]].magnitude
                divisor = self.values[inputs[1]]
                return None if given[0] is None else known[0] / np.minimum(np.abs(divisor.low), np.abs(divisor.high))
            case Elementwise() if node.function in _SLOPES:
                return known[0] * _SLOPES[node.function]
            case Reshape() | Transpose() | Broadcast() | Slice() | Concatenate() | Reduce() | ReduceWindow() | Pad():
                return self._rearranged(node, inputs, given)
        return None

    def _rearranged(
        self, node: Operation, inputs: tuple[str, ...], given: list[np.ndarray | None]
    ) -> np.ndarray | None:
        """Differences behind an operation that moves or adds up numbers, or takes the largest or smallest."""
        if isinstance(node, Reduce | ReduceWindow) and node.function not in ("sum", "max", "min"):
            return None
        if isinstance(node, Reduce) and node.function == "min":
            node = dataclasses.replace(node, function="max")
        shapes = [self.shapes[one] for one in inputs]
        none = [np.zeros((2, *[1] * len(shape))) for shape in shapes]
        rows = [zero if row is None else row for zero, row in zip(none, given, strict=True)]
        # As an interval from what is allowed to what is found, the hull has the least and the most of them.
        intervals = [IntervalArray(row[1], row[0]) for row in rows]
        if isinstance(node, Pad):
            padded = [*zip(node.low, node.high, node.interior, strict=True)]
            found = intervals[0].hull([axis for axis, row in enumerate(padded) if any(row)])
        else:
            found = operation_bounds(node, Operands(intervals, shapes, lambda sizes: None))
        return np.stack([found.high, np.maximum(found.low, 0)])
