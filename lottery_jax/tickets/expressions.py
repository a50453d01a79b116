"""The structure of a graph that its intervals need: softmax, normalisations, and functions of one value.

Each node is a term: an expression of another node, up to broadcasts, transposes and axes of size 1. Equal expressions
are one number, so that a mean that is computed twice counts as one.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Constant,
    Elementwise,
    Operation,
    Power,
    Reduce,
    Reshape,
    Select,
    Transpose,
)
from lottery_jax.networks.node import Node, Spec

_MAX_STEPS = 64  # of a function of one value
_EXACT_SCALE = 2.0**-23  # relative, of 1 / n in float32

_NEUTRAL = {("add", 0): 0.0, ("add", 1): 0.0, ("sub", 1): 0.0, ("mul", 0): 1.0, ("mul", 1): 1.0, ("div", 1): 1.0}
"""Numbers as one of two inputs that change nothing."""

Expression = tuple[Any, ...]
"""A kind of expression, then terms and numbers."""


@dataclasses.dataclass(frozen=True)
class View:
    """A node as a term. `axes`: the axis of the term's base value for each of its axes, None where it is constant."""

    term: int
    axes: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class RootSize:
    """A bound of values divided by the root of their own mean square.

    Attributes:
        count: Numbers of the mean.
        exact: The bound without float32: the root of a sum that has the square of the value as a term.
        cancels: Whether the mean square is a difference, of the mean of squares and the squared mean.
    """

    count: int
    exact: float
    cancels: bool


class Expressions:
    """The terms of a graph.

    Attributes:
        constants: The nodes that are one constant.
        argument: The node of which a node is an elementwise function, maybe itself; `steps` is how many operations it
            takes at most.
    """

    def __init__(self, graph: Graph, specs: Mapping[str, Spec]) -> None:
        self._nodes = {name: (node, inputs) for name, node, inputs in graph.nodes}
        self._shapes = {name: spec.shape for name, spec in specs.items()}
        self._keys: list[Expression] = []
        self._numbers: dict[Expression, int] = {}
        self._bases: list[int | None] = []
        self._base_shapes: dict[int, tuple[int, ...]] = {}
        self.constants: set[str] = set()
        self.argument, self.steps = {INPUT: INPUT}, {INPUT: 0}
        self.views = {INPUT: self._base(INPUT, ("value", INPUT))}
        for name, node, inputs in graph.nodes:
            self.views[name] = self._view(name, node, inputs)
            self._add_argument(name, node, inputs)

    def _add_argument(self, name: str, node: Node, inputs: tuple[str, ...]) -> None:
        if isinstance(node, Constant) or (isinstance(node, Broadcast | Reshape) and inputs[0] in self.constants):
            self.constants.add(name)
        self.argument[name], self.steps[name] = name, 0
        varying = [one for one in inputs if one not in self.constants]
        own = {self.argument[one] for one in varying}
        steps = 1 + sum(self.steps[one] for one in varying)
        if isinstance(node, Elementwise | Power | Binary | Select | Relu) and len(own) == 1 and steps <= _MAX_STEPS:
            (argument,) = own
            if self._shapes[argument] == self._shapes[name]:
                self.argument[name], self.steps[name] = argument, steps

    def function_of_one(self, name: str) -> str | None:
        """The node of which this one is a function that uses it several times; None if there is none."""
        _, inputs = self._nodes[name]
        varying = [one for one in inputs if one not in self.constants]
        return self.argument[name] if self.argument[name] != name and len(varying) > 1 else None

    def _number(self, key: Expression, base: int | None) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._keys)
            self._keys.append(key)
            self._bases.append(base)
        return self._numbers[key]

    def _base(self, name: str, key: Expression) -> View:
        shape = self._shapes[name]
        term = self._number(key, None)
        self._bases[term], self._base_shapes[term] = term, shape
        return View(term, tuple(axis if size > 1 else None for axis, size in enumerate(shape)))

    def _view(self, name: str, node: Node, inputs: tuple[str, ...]) -> View:
        given = [self.views[one] for one in inputs]
        if isinstance(node, Constant):
            return View(self._number(("constant", float(np.float32(node.value))), None), (None,))
        found = self._expression(node, given, [self._shapes[one] for one in inputs], self._shapes[name])
        if found is not None:
            return found
        # Layers and stored tensors are what their names say; other operations are equal if their inputs are.
        if not isinstance(node, Operation) or not given:
            return self._base(name, ("value", name))
        return self._base(name, ("value", node, *given, *(self._shapes[one] for one in inputs)))

    def _expression(
        self, node: Node, given: list[View], shapes: list[tuple[int, ...]], shape: tuple[int, ...]
    ) -> View | None:
        match node:
            case Reshape() | Broadcast():
                return self._reshaped(given[0], shapes[0], shape, padded=isinstance(node, Broadcast))
            case Transpose():
                return View(given[0].term, tuple(given[0].axes[axis] for axis in node.axes))
            case Reduce():
                return self._reduced(node, given[0], shapes[0])
            case Elementwise() | Power() | Binary():
                return self._combined(node, given, len(shape))
            case Relu():
                zero = View(self._number(("constant", 0.0), None), (None,))
                return self._combined(Binary("max"), [zero, given[0]], len(shape))
            case Select() if self._keys[given[0].term][0] == "constant":
                chosen = 2 if self._keys[given[0].term][1] else 1
                return given[chosen] if shapes[chosen] == shape else None
        return None

    def _reshaped(self, view: View, old: tuple[int, ...], new: tuple[int, ...], *, padded: bool) -> View | None:
        if padded:
            return View(view.term, (*[None] * (len(new) - len(old)), *view.axes))
        if [size for size in old if size > 1] != [size for size in new if size > 1]:
            return None
        axes = iter(axis for axis, size in zip(view.axes, old, strict=True) if size > 1)
        return View(view.term, tuple(next(axes) if size > 1 else None for size in new))

    def _reduced(self, node: Reduce, view: View, shape: tuple[int, ...]) -> View | None:
        over = {view.axes[axis] for axis in node.axes if shape[axis] > 1}
        if None in over:
            return None
        rest = tuple(own for axis, own in enumerate(view.axes) if axis not in node.axes)
        if not over:
            return View(view.term, rest)
        key = ("reduce", node.function, view.term, tuple(sorted(axis for axis in over if axis is not None)))
        return View(self._number(key, self._bases[view.term]), rest)

    def _combined(self, node: Elementwise | Power | Binary, given: list[View], dimensions: int) -> View | None:
        bases = {self._bases[view.term] for view in given} - {None}
        axes = self.aligned(given, dimensions)
        if len(bases) != 1 or axes is None:
            return None
        terms = [view.term for view in given]
        if isinstance(node, Binary):
            for number, key in enumerate(self._keys[term] for term in terms):
                if key[0] == "constant" and key[1] == _NEUTRAL.get((node.function, number)):
                    return View(terms[1 - number], axes)
        return View(self._number(self._elementwise(node, terms), bases.pop()), axes)

    @staticmethod
    def aligned(given: list[View], dimensions: int) -> tuple[int | None, ...] | None:
        """The axes of a broadcast of these views of one base; None if they do not run along the same axes."""
        rows = [(*[None] * (dimensions - len(view.axes)), *view.axes) for view in given]
        axes = []
        for column in zip(*rows, strict=True):
            own = {axis for axis in column if axis is not None}
            if len(own) > 1 or (own and own <= {*axes}):
                return None
            axes.append(own.pop() if own else None)
        return tuple(axes)

    def _elementwise(self, node: Elementwise | Power | Binary, terms: list[int]) -> Expression:
        """The key of an elementwise operation; equal functions have equal keys."""
        if isinstance(node, Elementwise):
            return (node.function, *terms)
        if isinstance(node, Power):
            return ("square", *terms) if node.exponent == 2 else ("power", node.exponent, *terms)
        left, right = (self._keys[term] for term in terms)
        if node.function == "mul" and terms[0] == terms[1]:
            return ("square", terms[0])
        for factor, term in ((left, terms[1]), (right, terms[0])):
            if node.function == "mul" and factor[0] == "constant":
                return self._scaled(factor[1], term)
        if right[0] == "constant" and right[1] != 0:
            if node.function == "div":
                return self._scaled(1 / right[1], terms[0])
            if node.function == "pow" and right[1] == 2:
                return ("square", terms[0])
            if node.function == "pow" and right[1] == -0.5:
                return ("rsqrt", terms[0])
        if node.function == "div" and left == ("constant", 1.0) and right[0] == "sqrt":
            return ("rsqrt", right[1])
        ordered = sorted(terms) if node.function in ("add", "mul", "max", "min") else terms
        return (node.function, *ordered)

    def _scaled(self, factor: Any, term: int) -> Expression:
        key = self._keys[term]
        return ("scale", factor * key[1], key[2]) if key[0] == "scale" else ("scale", factor, term)

    def reduction(self, term: Any, function: str) -> Expression | None:
        """The expression (reduce, function, of which term, over which axes) of a term; None if it is not one."""
        key = self._keys[term]
        return key if key[:2] == ("reduce", function) else None

    def below_own_maximum(self, name: str) -> bool:
        """Whether a node is a value less its maximum over some axes."""
        return self._reaches_zero(self.views[name].term) is not None

    def _reaches_zero(self, term: Any) -> tuple[int, ...] | None:
        """The axes along which a value less its maximum is 0 somewhere."""
        key = self._keys[term]
        if key[0] != "sub":
            return None
        found = self.reduction(key[2], "max")
        return found[3] if found is not None and found[2] == key[1] else None

    def is_difference(self, name: str) -> bool:
        """Whether a node is one value less another one."""
        return self._keys[self.views[name].term][0] == "sub"

    def sums_a_one(self, name: str) -> bool:
        """Whether a node is a sum of exponentials, one of which is exp(0)."""
        found = self.reduction(self.views[name].term, "sum")
        if found is None or self._keys[found[2]][0] != "exp":
            return False
        axes = self._reaches_zero(self._keys[found[2]][1])
        return axes is not None and {*axes} <= {*found[3]}

    def share_axes(self, name: str) -> tuple[int, ...] | None:
        """The axes of the base over which a node's values add up to 1: terms divided by their sum."""
        key = self._keys[self.views[name].term]
        if key[0] != "div":
            return None
        found = self.reduction(key[2], "sum")
        return found[3] if found is not None and found[2] == key[1] else None

    def is_variance(self, name: str) -> int | None:
        """The count of a node that is the mean of squares less the squared mean."""
        found = self._variance(self.views[name].term)
        return None if found is None else found[1]

    def _mean(self, term: Any) -> tuple[Any, tuple[int, ...], float, int] | None:
        """Of s sum(x) over axes: x, the axes, s, and how many numbers are added."""
        key = self._keys[term]
        factor, inner = (key[1], key[2]) if key[0] == "scale" else (1.0, term)
        found = self.reduction(inner, "sum")
        base = self._bases[term]
        if found is None:
            return None
        count = math.prod(self._base_shapes[base][axis] for axis in found[3])
        return found[2], found[3], factor, count

    def _variance(self, term: Any) -> tuple[tuple[Any, tuple[int, ...]], int] | None:
        """Of mean(x^2) - mean(x)^2: x with the axes, and the count."""
        key = self._keys[term]
        if key[0] != "sub" or self._keys[key[2]][0] != "square":
            return None
        squares, mean = self._mean(key[1]), self._mean(self._keys[key[2]][1])
        if squares is None or mean is None or squares[1:] != mean[1:] or self._keys[squares[0]] != ("square", mean[0]):
            return None
        exact = abs(mean[2] * mean[3] - 1) <= _EXACT_SCALE
        return (mean[:2], mean[3]) if exact else None

    def root_size(self, value: View, root: View, dimensions: int, kind: str) -> RootSize | None:
        """The bound of `value` over the root of its own mean square; `kind`: `sqrt` or `rsqrt` of `root`."""
        key = self._keys[root.term]
        if key[0] != kind or self._bases[value.term] != self._bases[root.term]:
            return None
        axes = self.aligned([value, root], dimensions)
        if axes is None or axes != (*[None] * (dimensions - len(value.axes)), *value.axes):
            return None
        square = key[1]
        while self._keys[square][0] in ("add", "max"):  # of a constant, at least 0
            parts = {self._keys[term][0]: term for term in self._keys[square][1:]}
            constant = self._keys[parts.pop("constant")] if "constant" in parts else ("constant", -1.0)
            if len(parts) != 1 or constant[1] < 0:
                return None
            (square,) = parts.values()
        direct, centred = self._mean(square), self._centred(value.term)
        if direct is not None and direct[2] > 0 and self._keys[direct[0]] == ("square", value.term):
            return RootSize(direct[3], 1 / math.sqrt(direct[2]), cancels=False)
        variance = self._variance(square)
        if variance is None or variance[0] != centred:
            return None
        return RootSize(variance[1], math.sqrt(2 * variance[1]), cancels=True)

    def _centred(self, term: Any) -> tuple[Any, tuple[int, ...]] | None:
        """Of x - mean(x): x, and the axes of the mean."""
        key = self._keys[term]
        mean = self._mean(key[2]) if key[0] == "sub" else None
        if mean is None or mean[0] != key[1] or abs(mean[2] * mean[3] - 1) > _EXACT_SCALE:
            return None
        return mean[:2]

    def factors(self, name: str) -> list[str]:
        """The nodes of which a node is the product, without broadcasts; at most eight."""
        found, pending = [], [name]
        while pending:
            one = pending.pop()
            node, inputs = self._nodes.get(one, (None, ()))
            if isinstance(node, Broadcast) or (isinstance(node, Binary) and node.function == "mul" and len(found) < 8):
                pending += inputs
            else:
                found.append(one)
        return found
