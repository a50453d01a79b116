"""Builds a `Graph` node by node: constants, linear layers with their biases and folded affine maps, fewer reshapes."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lottery_jax.errors import InputError, quoted
from lottery_jax.networks.layers.activations import Activation
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph, Step
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
_MAX_NAME = 480  # of the 512 characters that a file may have for a name; those of a layer's tensors are longer
_WEIGHT_NAMES = ("kernel", "weight", "w", "embedding")
_RANDOM_TENSORS = ("gain", "first", "frozen", *(f"rung{number}" for number in range(1, 65)))
"""What follows the name of a layer in the names that the random layers for it have."""


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
class Known:
    """A constant of an imported model: an array, and the parameter that it comes from.

    `index` are positions in the parameter, in the shape of the array, if it holds the parameter's numbers unchanged.
    """

    array: np.ndarray
    parameter: str | None = None
    index: np.ndarray | None = None

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> "Known":
        """The same numbers in another order and shape."""
        return Known(move(self.array), self.parameter, None if self.index is None else move(self.index))


@dataclasses.dataclass(eq=False)
class _Affine:
    """A linear layer's float64 tensors with affine maps folded in, and the parameters that they come from.

    `scale` [O] is the factor of the weights, `slope` [O] that of the bias's parameter.
    """

    weight: np.ndarray
    weight_from: Known
    scale: np.ndarray
    bias: np.ndarray | None = None
    bias_from: Known | None = None
    slope: np.ndarray | float = 1.0

    def fold(self, function: str, constant: Known, *, constant_first: bool) -> None:
        """Become the layer followed by this function with a constant [O]."""
        vector = constant.array.astype(np.float64)
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
            self.bias_from, self.slope = constant, -1.0 if function == "sub" and not constant_first else 1.0
        self.weight = self.weight * factor.reshape(-1, *[1] * (self.weight.ndim - 1))
        self.scale = self.scale * factor


class GraphBuilder:
    """A graph that grows; every value has a name and a shape.

    Attributes:
        shapes: The shape of each value.
        folded: For a linear layer and the reshapes behind it, by name, the last node that was folded into the layer,
            and whether both have their numbers in one order.
    """

    def __init__(self, input_shape: Shape) -> None:
        self.shapes: dict[str, Shape] = {INPUT: input_shape}
        self.folded: dict[str, tuple[str, bool]] = {}
        self._steps: _Steps = {}
        self._stored: dict[str, Known] = {}
        self._linear: dict[str, _Affine] = {}
        self._same: dict[tuple[Node, tuple[str, ...]], str] = {}
        self._names = {INPUT}

    def add(self, node: Node, *inputs: str, name: str | None = None) -> str:
        """Append an operation or an activation, or find an equal one with these inputs; returns its name."""
        if (node, inputs) not in self._same:
            name = name or self._unused(f"{getattr(node, 'function', node.kind)}_{len(self._steps) + 1}")
            self._same[node, inputs] = self._append(name, node, inputs)
        return self._same[node, inputs]

    def _append(self, name: str, node: Node, inputs: tuple[str, ...]) -> str:
        fields = {field.name: _plain(getattr(node, field.name)) for field in dataclasses.fields(node)}
        node = dataclasses.replace(node, **fields)
        specs = [Spec(self.shapes[one]) for one in inputs]
        spec = node.combined_spec(*specs) if isinstance(node, Operation) else node.output_spec(specs[0])
        self._steps[name] = node, inputs
        self.shapes[name] = spec.shape
        return name

    def _unused(self, name: str) -> str:
        """The name, or one like it that no node has; a name in parentheses would not be part of a path."""
        name = name.lstrip("(") or "layer"
        if len(name) > _MAX_NAME:
            raise InputError(
                f"the names of parameters must have at most {_MAX_NAME} characters, got {name[:20]!r}... of"
                f" {len(name)}. Rename it."
            )
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        found = next(one for one in names if one not in self._names)
        self._names.add(found)
        return found

    def layer_before(self, name: str) -> str | None:
        """The last linear layer on the way to a value; the value itself if it is the output of one."""
        return layer_before([(step, *rest) for step, rest in self._steps.items()], name)

    def operation(self, name: str) -> tuple[str | None, tuple[str, ...]]:
        """The function of a binary or elementwise operation, and its inputs."""
        node, inputs = self._steps.get(name, (None, ()))
        return getattr(node, "function", None), inputs

    def reshape(self, value: str, shape: Iterable[int]) -> str:
        """The value in another shape; itself if it has that one. A number is an array [1]."""
        shape = tuple(shape) or (1,)
        return value if self.shapes[value] == shape else self.add(Reshape(shape), value)

    def transpose(self, value: str, axes: Iterable[int]) -> str:
        """The value with its axes in another order; itself if the order is the same."""
        axes = tuple(axes)
        return value if axes == tuple(range(len(axes))) else self.add(Transpose(axes), value)

    def constant(self, value: Known, *, full: bool = False) -> str:
        """A constant; with `full` in its own shape, otherwise in the smallest shape that broadcasts to it."""
        value = value.moved(lambda array: array.reshape(array.shape or (1,))) if full else _narrowed(value)
        array = value.array.astype(np.float32)
        _no_nan(array, value.parameter)
        array = np.clip(array, -_FLOAT32_MAX, _FLOAT32_MAX)  # a mask of -inf: exp gives 0 for both
        number = float(array.reshape(-1)[0])
        if value.parameter is None and array.shape == (1,) and _in_range(number):
            return self.add(Constant(number))
        for name, other in self._stored.items():
            if other.parameter == value.parameter and _equal(other.array, array) and _equal(other.index, value.index):
                return name
        name = self._append(self._unused(f"stored_{len(self._steps) + 1}"), Stored(array.shape), ())
        self._stored[name] = dataclasses.replace(value, array=array)
        return name

    def linear(self, layer: LinearLayer, value: str, weight: Known) -> str:
        """A linear layer of the value [..., I] with a weight as the layer has it, [O, I / groups, ...]."""
        for name, own in self._linear.items():  # such as the gate of a highway network, which is called twice
            same = own.weight_from.parameter == weight.parameter and self._steps[name] == (layer, (value,))
            if same and _equal(own.weight, weight.array) and _equal(own.weight_from.index, weight.index):
                return name
        _no_nan(weight.array, weight.parameter)
        name = layer_name(weight.parameter) or f"{layer.kind}_{len(self._linear) + 1}"
        name = self._append(self._unused(name), layer, (value,))
        self._linear[name] = _Affine(weight.array.astype(np.float64), weight, np.ones(layer.outputs))
        return name

    def finished(self, output: str) -> tuple[Graph, dict[str, np.ndarray], dict[str, Placement]]:
        """The graph with this output, its tensors by name, float32, and their placements in the model's parameters."""
        self._drop_unused(output)
        output = self._fold_affine_maps(output)
        output = self._without_leading_axis(output)
        output = self._simplified(output)
        nodes, tensors, placements = [], dict[str, np.ndarray](), dict[str, Placement]()
        names = self._final_names()

        def place(name: str, array: np.ndarray, origin: Known | None, scale: np.ndarray | float = 1.0) -> None:
            tensors[name] = np.asarray(array, np.float32)
            if origin is not None and origin.parameter is not None:
                placements[name] = Placement(origin.parameter, origin.index, scale)

        for name, (node, inputs) in self._steps.items():
            if isinstance(node, Stored):
                place(names[name], self._stored[name].array, self._stored[name])
            elif isinstance(node, LinearLayer):
                own = self._linear[name]
                node = dataclasses.replace(node, bias=own.bias is not None)  # type: ignore[type-var]
                scale = own.scale.reshape(-1, *[1] * (own.weight.ndim - 1))
                place(child_path(name, "weight"), own.weight, own.weight_from, scale)
                if own.bias is not None:
                    place(child_path(name, "bias"), own.bias, own.bias_from, own.slope)
            nodes.append((names.get(name, name), node, tuple(names.get(one, one) for one in inputs)))
        return Graph(tuple(nodes), output), tensors, placements

    def _final_names(self) -> dict[str, str]:
        """Names of the stored tensors: those of their parameters, if the tensors of no layer have them."""
        stored, self._names = [], {INPUT}
        for name, (node, _) in self._steps.items():
            if isinstance(node, Stored):
                stored.append(name)
                continue
            self._names.add(name)
            if name in self._linear:
                tensors = "weight", *(["bias"] if self._linear[name].bias is not None else []), *_RANDOM_TENSORS
                self._names.update(child_path(name, tensor) for tensor in tensors)
        return {name: self._unused(self._stored[name].parameter or name) for name in stored}

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
            between, vector = found
            self._linear[between[-1]].fold(node.function, vector, constant_first=parameters[0])
            in_order = True
            for one in between:
                self.folded[one] = name, in_order
                in_order &= not isinstance(self._steps[one][0], Transpose)
            alias[name], uses[value] = value, uses[name]
            del self._steps[name]
        return alias.get(output, output)

    def _behind_linear(self, value: str, own: Known, uses: Mapping[str, int]) -> tuple[tuple[str, ...], Known] | None:
        """The nodes back to the linear layer in front of a value, all reshapes, and a constant by its outputs [O]."""
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

        # By positions and not by numbers, so that all weights give one graph.
        places = by_output(np.arange(own.array.size).reshape(own.array.shape))
        if places is None:
            return None
        vector = own.moved(lambda array: array.reshape(-1)[places])
        return (value, *(before for _, before in moves)), vector

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
                alias[name] = self._again(name, node, map(whole, inputs))
            else:
                dropped.add(name)
                ranks = [len(old_shapes[one]) == len(shape) or not isinstance(node, _ELEMENTWISE) for one in inputs]
                given = [lowered(one) if full else alias[one] for one, full in zip(inputs, ranks, strict=True)]
                if isinstance(node, Lookup):
                    given[0] = alias[inputs[0]]
                alias[name] = self._again(name, smaller, given)
        return alias[output] if output not in dropped else whole(output)

    def _emptied(self) -> tuple[_Steps, dict[str, Shape]]:
        """Remove all nodes, for a pass that adds them again; returns them and their shapes."""
        old = self._steps, self.shapes
        self._steps, self.shapes, self._same = {}, {INPUT: self.shapes[INPUT]}, {}
        return old

    def _again(self, name: str, node: Node, inputs: Iterable[str]) -> str:
        """Append a node that an earlier pass has named."""
        own = name in self._linear or name in self._stored
        return self._append(name, node, (*inputs,)) if own else self.add(node, *inputs, name=name)

    def _simplified(self, output: str) -> str:
        """Merge reshapes and transposes, let operations broadcast, and omit nodes without uses."""
        old, old_shapes = self._emptied()
        alias = {INPUT: INPUT}
        for name, (node, inputs) in old.items():
            given = [alias[one] for one in inputs]
            shape = old_shapes[name]
            before, origins = self._steps.get(given[0], (None, ("",))) if given else (None, ("",))
            if isinstance(node, Reshape):
                alias[name] = self.reshape(origins[0] if isinstance(before, Reshape) else given[0], shape)
            elif isinstance(node, Transpose) and isinstance(before, Transpose):
                alias[name] = self.transpose(origins[0], [before.axes[axis] for axis in node.axes])
            else:
                if isinstance(node, _ELEMENTWISE):
                    narrow = [self._steps[one][1][0] if self._is(one, Broadcast) else one for one in given]
                    if np.broadcast_shapes(*(self.shapes[one] for one in narrow)) == shape:
                        given = narrow
                alias[name] = self._again(name, node, given)
        self._drop_unused(alias[output])
        return alias[output]

    def _drop_unused(self, output: str) -> None:
        used = {output}
        for name, (_, inputs) in reversed(self._steps.items()):
            used.update(inputs if name in used else ())
        self._steps = {name: step for name, step in self._steps.items() if name in used}

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


def _narrowed(value: Known) -> Known:
    """The smallest array [n, ...] that broadcasts to a constant.

    Parameters are narrowed by their strides and not by their numbers, so that all weights give one graph.
    """
    array = value.array
    ones, first = 0, []
    for axis, size in enumerate(array.shape):
        repeated = size == 1 or array.strides[axis] == 0
        repeated |= value.parameter is None and bool((array == array.take([0], axis)).all())
        first.append(slice(1 if repeated else None))
        ones += repeated and ones == axis
    return value.moved(lambda whole: whole[tuple(first)].reshape(whole[tuple(first)].shape[ones:] or (1,)))


def _plain(value: Any) -> Any:
    """Python's numbers instead of NumPy's, which JSON does not have."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _no_nan(array: np.ndarray, parameter: str | None) -> None:
    if np.isnan(array).any():
        where = f"in {quoted(parameter)}" if parameter else "in a constant"
        raise InputError(f"parameters must be numbers, got NaN {where}. Train the model again, or repair it.")


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def _in_range(number: float) -> bool:
    return number == 0 or MIN_MAGNITUDE <= abs(number) <= MAX_MAGNITUDE


def layer_before(steps: Sequence[Step], name: str) -> str | None:
    """The last linear layer on the way to a value; the value itself if it is the output of one."""
    needed = {name}
    for step, node, inputs in reversed(steps):
        if step in needed:
            if isinstance(node, LinearLayer):
                return step
            needed.update(inputs)
    return None


def layer_name(parameter: str | None) -> str | None:
    """The name of the layer whose weight has this name.

    >>> layer_name("encoder.fc.kernel"), layer_name("kernel"), layer_name("W1")
    ('encoder.fc', None, 'W1')
    """
    if parameter is None:
        return None
    layer, _, last = parameter.rpartition(".")
    return (layer or None) if last in _WEIGHT_NAMES and parameter != "w" else parameter
