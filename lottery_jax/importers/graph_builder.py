"""Builds a `Graph` node by node: constants, linear layers with their biases and folded affine maps, fewer reshapes."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.activations import Activation
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Concatenate,
    Constant,
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
    Stored,
    Transpose,
)
from lottery_jax.networks.node import MAX_MAGNITUDE, MIN_MAGNITUDE, LinearLayer, Node, Spec, child_path

Shape = tuple[int, ...]
_Steps = dict[str, tuple[Node, tuple[str, ...]]]  # nodes with the names of their inputs, in order
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_WEIGHT_NAMES = ("kernel", "weight", "w", "embedding")


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """Which numbers of an imported model's parameters make a tensor of the target.

    The tensor is ``scale`` times the parameter's numbers at the positions ``index``, plus a constant.

    Args:
        parameter: Name of the parameter.
        index: int64 [*tensor], row-major positions; None if the tensor is not made of single numbers of it.
        scale: float64 that broadcasts to the tensor: 1, or the factor of a folded normalisation.
    """

    parameter: str
    index: np.ndarray | None
    scale: np.ndarray | float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A constant of an imported model: an array, and the parameter that it comes from.

    `index` are positions in the parameter, in the shape of the array, if it holds the parameter's numbers unchanged.
    """

    array: np.ndarray
    parameter: str | None = None
    index: np.ndarray | None = None

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> "Value":
        """The same numbers in another order and shape."""
        return Value(move(self.array), self.parameter, None if self.index is None else move(self.index))


@dataclasses.dataclass(eq=False)
class _Affine:
    """A linear layer's float64 tensors with affine maps folded in, and the parameters that they come from.

    `scale` [O] is the factor of the weights, `slope` [O] that of the bias's parameter.
    """

    weight: np.ndarray
    weight_from: Value
    scale: np.ndarray
    bias: np.ndarray | None = None
    bias_from: Value | None = None
    slope: np.ndarray | float = 1.0

    def fold(self, function: str, vector: np.ndarray, origin: Value, *, constant_first: bool) -> None:
        """Become the layer followed by this function with a constant [O]."""
        bias = np.zeros_like(vector) if self.bias is None else self.bias
        factor = np.ones_like(vector)
        if function in ("mul", "div"):
            factor = 1 / vector if function == "div" else vector
            self.bias = None if self.bias is None else bias * factor
        elif constant_first and function == "sub":
            factor, self.bias = -factor, vector - bias
        else:
            self.bias = bias - vector if function == "sub" else bias + vector
        self.slope = self.slope * factor
        if function in ("add", "sub"):
            # A change of the last addend changes the bias by as much.
            self.bias_from, self.slope = origin, -1.0 if function == "sub" and not constant_first else 1.0
        self.weight = self.weight * factor.reshape(-1, *[1] * (self.weight.ndim - 1))
        self.scale = self.scale * factor


class GraphBuilder:
    """A graph that grows; every value has a name and a shape.

    Attributes:
        shapes: The shape of each value.
        folded: The last node that was folded into each linear layer.
    """

    def __init__(self, input_shape: Shape) -> None:
        self.shapes: dict[str, Shape] = {INPUT: input_shape}
        self.folded: dict[str, str] = {}
        self._steps: _Steps = {}
        self._stored: dict[str, Value] = {}
        self._linear: dict[str, _Affine] = {}
        self._by_identity: dict[int, tuple[Value, str]] = {}

    def add(self, node: Node, *inputs: str, name: str | None = None) -> str:
        """Append a node; returns its name."""
        specs = [Spec(self.shapes[one]) for one in inputs]
        spec = node.combined_spec(*specs) if isinstance(node, Operation) else node.output_spec(specs[0])
        name = self._unused(name or f"{getattr(node, 'function', node.kind)}_{len(self._steps) + 1}")
        self._steps[name] = node, inputs
        self.shapes[name] = spec.shape
        return name

    def _unused(self, name: str) -> str:
        name = name.lstrip("(") or "layer"
        taken = {INPUT, *self._steps}
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        return next(one for one in names if one not in taken)

    def reshape(self, value: str, shape: Iterable[int]) -> str:
        """The value in another shape; itself if it has that one."""
        shape = tuple(shape)
        return value if self.shapes[value] == shape else self.add(Reshape(shape), value)

    def transpose(self, value: str, axes: Iterable[int]) -> str:
        """The value with its axes in another order; itself if the order is the same."""
        axes = tuple(axes)
        return value if axes == tuple(range(len(axes))) else self.add(Transpose(axes), value)

    def constant(self, value: Value, *, full: bool = False) -> str:
        """A constant; with `full` in its own shape, otherwise in the smallest shape that broadcasts to it."""
        if not full and id(value) in self._by_identity:
            return self._by_identity[id(value)][1]
        array, index = (value.array, value.index) if full else _narrowed(value)
        array = array.astype(np.float32)
        if np.isnan(array).any():
            raise InputError("the constants of a model must be numbers, got NaN. Repair its parameters.")
        array = np.clip(array, -_FLOAT32_MAX, _FLOAT32_MAX)  # a mask of -inf: exp gives 0 for both
        number = float(array.reshape(-1)[0])
        if (
            value.parameter is None
            and array.shape in ((), (1,))
            and (number == 0 or MIN_MAGNITUDE <= abs(number) <= MAX_MAGNITUDE)
        ):
            name = self.add(Constant(number))
        else:
            array = array.reshape(array.shape or (1,))
            name = self.add(Stored(array.shape), name=value.parameter)
            self._stored[name] = Value(array, value.parameter, None if index is None else index.reshape(array.shape))
        if not full:
            self._by_identity[id(value)] = value, name
        return name

    def linear(self, layer: LinearLayer, value: str, weight: Value) -> str:
        """A linear layer of the value [..., I] with a weight as the layer has it, [O, I / groups, ...]."""
        name = layer_name(weight.parameter) or f"{layer.kind}_{len(self._linear) + 1}"
        name = self.add(layer, value, name=name)
        self._linear[name] = _Affine(weight.array.astype(np.float64), weight, np.ones(layer.outputs))
        return name

    def finished(self, output: str) -> tuple[Graph, dict[str, np.ndarray], dict[str, Placement]]:
        """The graph with this output, its tensors by name, float32, and their placements in the model's parameters."""
        output = self._fold_affine_maps(output)
        output = self._without_leading_axis(output)
        output = self._simplified(output)
        nodes, tensors, placements = [], dict[str, np.ndarray](), dict[str, Placement]()

        def place(name: str, array: np.ndarray, origin: Value | None, scale: np.ndarray | float = 1.0) -> None:
            tensors[name] = np.asarray(array, np.float32)
            if origin is not None and origin.parameter is not None:
                placements[name] = Placement(origin.parameter, origin.index, scale)

        for name, (node, inputs) in self._steps.items():
            if isinstance(node, Stored):
                place(name, self._stored[name].array, self._stored[name])
            elif isinstance(node, LinearLayer):
                own = self._linear[name]
                node = dataclasses.replace(node, bias=own.bias is not None)  # type: ignore[type-var]
                scale = own.scale.reshape(-1, *[1] * (own.weight.ndim - 1))
                place(child_path(name, "weight"), own.weight, own.weight_from, scale)
                if own.bias is not None:
                    place(child_path(name, "bias"), own.bias, own.bias_from, own.slope)
            nodes.append((name, node, inputs))
        return Graph(tuple(nodes), output), tensors, placements

    def _fold_affine_maps(self, output: str) -> str:
        """Fold parameters that are added to the outputs of a linear layer, or multiply them, into the layer.

        So a bias becomes the layer's own, and batch normalisation in evaluation mode disappears.
        """
        uses = collections.Counter([output])
        for _, inputs in self._steps.values():
            uses.update(inputs)
        alias: dict[str, str] = {}
        for name, (node, inputs) in [*self._steps.items()]:
            inputs = tuple(alias.get(one, one) for one in inputs)
            self._steps[name] = node, inputs
            if not isinstance(node, Binary) or node.function not in ("add", "sub", "mul", "div"):
                continue
            parameters = [one in self._stored and self._stored[one].parameter is not None for one in inputs]
            if sum(parameters) != 1 or (node.function == "div" and parameters[0]):
                continue
            own, value = self._stored[inputs[parameters.index(True)]], inputs[parameters.index(False)]
            found = self._behind_linear(value, own, uses)
            if found is None or self.shapes[value] != self.shapes[name]:
                continue
            layer, vector, origin = found
            self._linear[layer].fold(node.function, vector, origin, constant_first=parameters[0])
            self.folded[layer] = name
            alias[name], uses[value] = value, uses[name]
            del self._steps[name]
        return alias.get(output, output)

    def _behind_linear(self, value: str, own: Value, uses: Mapping[str, int]) -> tuple[str, np.ndarray, Value] | None:
        """The linear layer in front of a value, if only reshapes are between, and a constant by its outputs [O]."""
        moves, at = list[tuple[Node, str]](), value
        while uses[at] == 1 and at in self._steps and isinstance(self._steps[at][0], Reshape | Transpose):
            move, (before,) = self._steps[at]
            moves.append((move, before))
            at = before
        if uses[at] != 1 or at not in self._linear:
            return None

        def by_output(array: np.ndarray) -> np.ndarray | None:
            if np.broadcast_shapes(array.shape, self.shapes[value]) != self.shapes[value]:
                return None
            array = np.broadcast_to(array, self.shapes[value])
            for move, before in moves:
                if isinstance(move, Transpose):
                    array = array.transpose(np.argsort(move.axes))
                array = array.reshape(self.shapes[before])
            rows = array.reshape(-1, array.shape[-1])
            return rows[0] if (rows == rows[0]).all() else None

        vector = by_output(np.asarray(own.array, np.float64))
        if vector is None:
            return None
        return at, vector, Value(vector, own.parameter, None if own.index is None else by_output(own.index))

    def _without_leading_axis(self, output: str) -> str:
        """Remove the axis of one example, which a traced function has, from the operations that do without it."""
        old, old_shapes = self._emptied()
        alias, dropped = {INPUT: INPUT}, set[str]()

        def whole(name: str) -> str:
            return self.reshape(alias[name], old_shapes[name])

        def lowered(name: str) -> str:
            shape = old_shapes[name]
            return self.reshape(alias[name], shape[1:]) if len(shape) > 1 and shape[0] == 1 else alias[name]

        for name, (node, inputs) in old.items():
            shape = old_shapes[name]
            unit = len(shape) > 1 and shape[0] == 1
            if isinstance(node, Reshape):  # of the numbers in their order, with or without the axis
                alias[name] = self.reshape(alias[inputs[0]], shape[1:] if unit else shape)
                dropped.update([name] if unit else [])
                continue
            smaller = _dropped(node, [old_shapes[one] for one in inputs]) if unit and dropped & {*inputs} else None
            if smaller is None:
                alias[name] = self.add(node, *map(whole, inputs), name=name)
            else:
                dropped.add(name)
                ranks = [len(old_shapes[one]) == len(shape) or not isinstance(node, _ELEMENTWISE) for one in inputs]
                given = [lowered(one) if full else alias[one] for one, full in zip(inputs, ranks, strict=True)]
                if isinstance(node, Lookup):
                    given[0] = alias[inputs[0]]
                alias[name] = self.add(smaller, *given, name=name)
        return alias[output] if output not in dropped else whole(output)

    def _emptied(self) -> tuple[_Steps, dict[str, Shape]]:
        """Remove all nodes, for a pass that adds them again; returns them and their shapes."""
        old = self._steps, self.shapes
        self._steps, self.shapes = {}, {INPUT: self.shapes[INPUT]}
        return old

    def _simplified(self, output: str) -> str:
        """Merge reshapes and transposes, let operations broadcast, and omit nodes without uses."""
        old, old_shapes = self._emptied()
        alias = {INPUT: INPUT}
        for name, (node, inputs) in old.items():
            given = [alias[one] for one in inputs]
            shape = old_shapes[name]
            before, origins = self._steps.get(given[0], (None, ())) if given else (None, ())
            if isinstance(node, Reshape):
                alias[name] = self.reshape(origins[0] if isinstance(before, Reshape) else given[0], shape)
            elif isinstance(node, Transpose) and isinstance(before, Transpose):
                alias[name] = self.transpose(origins[0], [before.axes[axis] for axis in node.axes])
            else:
                if isinstance(node, _ELEMENTWISE):
                    narrow = [self._steps[one][1][0] if self._is(one, Broadcast) else one for one in given]
                    if np.broadcast_shapes(*(self.shapes[one] for one in narrow)) == shape:
                        given = narrow
                alias[name] = self.add(node, *given, name=name)
        used = {alias[output]}
        for name, (_, inputs) in reversed(self._steps.items()):
            used.update(inputs if name in used else ())
        self._steps = {name: step for name, step in self._steps.items() if name in used}
        return alias[output]

    def _is(self, name: str, kind: type[Node]) -> bool:
        return name in self._steps and isinstance(self._steps[name][0], kind)


_ELEMENTWISE = (Elementwise, Power, Binary, Select, Activation)


def _dropped(node: Node, inputs: Sequence[Shape]) -> Node | None:
    """The node for inputs without their first axis, of size 1; None if it needs the axis."""
    match node:
        case Elementwise() | Power() | Binary() | Select() | Activation() | Dense():
            return node
        case Transpose(axes) if axes[0] == 0:
            return Transpose(_less_one(axes[1:]))
        case Broadcast(shape):
            return Broadcast(shape[1:])
        case Slice() | Pad() | ReduceWindow():
            changes = {}
            for field in dataclasses.fields(node):
                value = getattr(node, field.name)
                changes[field.name] = value[1:] if isinstance(value, tuple) else value
            return dataclasses.replace(node, **changes)
        case Concatenate(axis) if axis > 0:
            return Concatenate(axis - 1)
        case Reduce(function, axes) if 0 not in axes:
            return Reduce(function, _less_one(axes))
        case DotGeneral(left, right, left_shared, right_shared) if left_shared[:1] == right_shared[:1] == (0,):
            shared = _less_one(left_shared[1:]), _less_one(right_shared[1:])
            return DotGeneral(_less_one(left), _less_one(right), *shared)
        case Lookup() if len(inputs[1]) > 1:
            return node
    return None


def _less_one(axes: Iterable[int]) -> tuple[int, ...]:
    return tuple(axis - 1 for axis in axes)


def _narrowed(value: Value) -> tuple[np.ndarray, np.ndarray | None]:
    """The smallest array that broadcasts to a constant, and its index.

    Parameters are narrowed by their strides and not by their numbers, so that all weights give one graph.
    """
    array, index = value.array, value.index
    for axis, size in enumerate(array.shape):
        if size == 1:
            continue
        repeated = array.strides[axis] == 0
        if repeated or (value.parameter is None and (array == array.take([0], axis)).all()):
            array, index = array[(slice(None),) * axis + (slice(1),)], None if index is None else index.take([0], axis)
    while array.ndim > 1 and array.shape[0] == 1:
        array, index = array[0], None if index is None else index[0]
    return array, index


def layer_name(parameter: str | None) -> str | None:
    """The name of the layer whose weight has this name.

    >>> layer_name("encoder.fc.kernel"), layer_name("kernel"), layer_name("W1")
    ('encoder.fc', None, 'W1')
    """
    if parameter is None:
        return None
    layer, _, last = parameter.rpartition(".")
    return (layer or None) if last in _WEIGHT_NAMES else parameter
