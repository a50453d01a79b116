"""A JAX function as a graph: its jaxpr, operation by operation.

The function is traced for a batch of one example. What depends on parameters alone is computed and becomes a constant;
a product of activations with a constant becomes a linear layer; all else becomes an elementary operation of the graph.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, quoted
from lottery_jax.importers.graph_builder import GraphBuilder, Known, Placement
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import (
    BINARY,
    UNARY,
    Binary,
    Broadcast,
    Concatenate,
    DotGeneral,
    Elementwise,
    Lookup,
    Pad,
    Power,
    Reduce,
    ReduceWindow,
    Select,
    Slice,
)
from lottery_jax.networks.node import MAX_MAGNITUDE, MIN_MAGNITUDE

_MAX_SCAN = 64  # steps of a loop that is unrolled


@dataclasses.dataclass(frozen=True)
class Traced:
    """A value that depends on the input: its node."""

    name: str


Operand = Known | Traced


@dataclasses.dataclass(frozen=True, eq=False)
class TracedModel:
    """The graph of a function for one example, its tensors by name, and their placements in the parameters.

    `values` are those of the function itself for an example, by the name of the node.
    """

    graph: Graph
    tensors: dict[str, np.ndarray]
    placements: dict[str, Placement]
    values: dict[str, np.ndarray]


def trace(
    function: Callable[[Any, jax.Array], Any],
    parameters: Mapping[str, np.ndarray],
    example: jax.ShapeDtypeStruct,
    x: jax.Array | None = None,
) -> TracedModel:
    """The graph of `function(parameters, x)`, x [1, ...].

    Args:
        parameters: Arrays by name, from which the constants of the graph get their names.
        example: Shape and dtype of one example, without the batch axis.
        x: One example, for `values`. By default these are not computed.

    Raises:
        InputError: The function has an operation that a graph does not have.
    """
    batch = jax.ShapeDtypeStruct((1, *example.shape), example.dtype)
    try:
        with jax.default_matmul_precision("highest"):
            closed, outputs = jax.make_jaxpr(function, return_shape=True)(dict(parameters), batch)
    except InputError as error:
        raise InputError(error) from None  # without JAX's notes on its own frames
    except Exception as error:  # the function is the user's
        reason = str(error).strip().partition("\n")[0][:200].rstrip(".")
        raise InputError(
            f"model must run on a batch {[*batch.shape]} of {np.dtype(example.dtype).name} and be a pure function of"
            f" JAX, but it raised {type(error).__name__}: {reason}. Pass a function x -> outputs that does."
        ) from error
    leaves = jax.tree.leaves(outputs)
    if not isinstance(outputs, jax.ShapeDtypeStruct) or len(outputs.shape) < 2 or outputs.shape[0] != 1:
        found = [list(leaf.shape) for leaf in leaves]
        raise InputError(
            f"a model must map a batch [N, ...] to one array [N, ...], got outputs of the shapes {found} for a batch of"
            " one example. Wrap it in a function that does."
        )
    given: list[Operand] = []
    for name in sorted(parameters):  # the order of the leaves of a dictionary
        given.append(_parameter(name, parameters[name]))
    builder = GraphBuilder(example.shape)
    first = Traced(builder.reshape(INPUT, (1, *example.shape)))
    interpreter = _Interpreter(builder, not parameters, None if x is None else {first.name: x})
    (output,) = interpreter.call(closed, [*given, first])
    if isinstance(output, Known):
        raise InputError("the outputs of a model must depend on its input, got constants. Check the function.")
    values = interpreter.values or {}
    graph, tensors, placements = builder.finished(builder.reshape(output.name, outputs.shape[1:]))
    for name, (last, in_order) in builder.folded.items():  # a layer computes what is folded into it too
        values.pop(name, None)
        if in_order and last in values:
            values[name] = values[last]
    return TracedModel(graph, tensors, placements, {name: np.asarray(value) for name, value in values.items()})


def _parameter(name: str, value: Any) -> Known:
    array = np.asarray(value)
    return Known(array, name, np.arange(array.size).reshape(array.shape))


@dataclasses.dataclass
class _Interpreter:
    """Goes through the equations of a jaxpr.

    Args:
        own_weights: Whether the weights are the function's own constants, which get names.
        values: Values of nodes for one example, which grow; None if they are not computed.
    """

    builder: GraphBuilder
    own_weights: bool
    values: dict[str, jax.Array] | None
    _constants: dict[int, tuple[Any, Known]] = dataclasses.field(default_factory=dict)

    def call(self, inner: Any, operands: Sequence[Operand]) -> list[Operand]:
        """The outputs of a jaxpr, closed or open."""
        consts = [self._constant(one) for one in getattr(inner, "consts", ())]
        return self.run(getattr(inner, "jaxpr", inner), consts, operands)

    def _constant(self, constant: Any) -> Known:
        if id(constant) not in self._constants:
            array = _array(constant)
            named = self.own_weights and array.ndim > 0
            value = _parameter(f"constant_{len(self._constants) + 1}", array) if named else Known(array)
            self._constants[id(constant)] = constant, value
        return self._constants[id(constant)][1]

    def run(self, jaxpr: Any, constants: Sequence[Operand], arguments: Sequence[Operand]) -> list[Operand]:
        """The outputs of a jaxpr."""
        values: dict[Any, Operand] = {}
        values.update(zip(jaxpr.constvars, constants, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Operand:
            if not hasattr(atom, "val"):
                return values[atom]
            return self._constant(atom.val) if atom.aval.shape else Known(np.asarray(atom.val, atom.aval.dtype))

        for equation in jaxpr.eqns:
            found = self.equation(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, operands: list[Operand]) -> list[Operand]:
        """The outputs of one equation."""
        name = equation.primitive.name
        if name in _CALLS:
            inner = next(equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params)
            return self.call(inner, operands)
        if name == "cond" and isinstance(operands[0], Known):
            return self.call(equation.params["branches"][int(operands[0].array)], operands[1:])
        if all(isinstance(operand, Known) for operand in operands):
            return _folded(equation, operands)  # type: ignore[arg-type]
        at = _Equation(equation, self.builder)
        if name == "scan":
            return self._scan(at, operands)
        rule = _RULES.get(name)
        if rule is None or not all(_has_exact_floats(one.aval) for one in (*equation.invars, *equation.outvars)):
            raise at.refused(*operands)
        found = rule(at, *operands)
        found = found if isinstance(found, list) else [found]
        self._evaluate(equation, operands, found)
        return found

    def _evaluate(self, equation: Any, operands: Sequence[Operand], found: Sequence[Operand]) -> None:
        """Keep the values of an equation's outputs, as JAX computes them."""
        values, given = self.values, []
        if values is None or any(isinstance(one, Traced) and one.name not in values for one in operands):
            return
        for one in operands:
            given.append(values[one.name] if isinstance(one, Traced) else jnp.asarray(one.array))
        outputs = equation.primitive.bind(*given, **equation.params)
        for one, value in zip(found, outputs if equation.primitive.multiple_results else [outputs], strict=True):
            if isinstance(one, Traced):
                values.setdefault(one.name, value)

    def _scan(self, at: "_Equation", operands: list[Operand]) -> list[Operand]:
        """A loop over a leading axis, unrolled."""
        params, length = at.params, at.params["length"]
        inner = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])
        # What is scanned has one more axis outside; the names of the numbers of constants differ between versions.
        scans, stacks = (
            sum(one.aval.ndim > own.aval.ndim for one, own in zip(outside, inside, strict=True))
            for outside, inside in ((at.equation.invars, inner.invars), (at.equation.outvars, inner.outvars))
        )
        carried = len(inner.outvars) - stacks
        constants = len(inner.invars) - scans - carried
        if length > _MAX_SCAN:
            raise at.refused(*operands, detail=f"of {length} steps, more than {_MAX_SCAN}")
        shared, carry = operands[:constants], operands[constants : constants + carried]
        scanned, rows = operands[constants + carried :], list[list[Operand]]()
        for step in range(length)[:: -1 if params["reverse"] else 1]:
            parts = [self._row(operand, step) for operand in scanned]
            found = self.call(params["jaxpr"], [*shared, *carry, *parts])
            carry = found[:carried]
            rows.append(found[carried:])
        columns = [[*column][:: -1 if params["reverse"] else 1] for column in zip(*rows, strict=True)]
        outputs = at.equation.outvars[carried:]
        stacked = [_stacked(at.build, column, var.aval.shape) for column, var in zip(columns, outputs, strict=True)]
        return [*carry, *stacked]

    def _row(self, operand: Operand, step: int) -> Operand:
        """One row of the leading axis."""
        if isinstance(operand, Known):
            return operand.moved(lambda array: array[step])
        rest = self.builder.shapes[operand.name][1:]
        start, limit = (step, *[0] * len(rest)), (step + 1, *rest)
        row = self.builder.add(Slice(start, limit, (1,) * (1 + len(rest))), operand.name)
        row = self.builder.reshape(row, rest)
        if self.values is not None and operand.name in self.values:
            self.values.setdefault(row, self.values[operand.name][step])
        return Traced(row)


_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
"""Equations that compute what the jaxpr inside does."""


def _has_exact_floats(aval: Any) -> bool:
    """Whether a value is a truth value, an integer, or a float that float32 has the accuracy of."""
    kind = np.dtype(aval.dtype) if not jnp.issubdtype(aval.dtype, jax.dtypes.extended) else None
    return kind is not None and (kind.kind in "biu" or kind in (np.float32, np.float64))


def _array(value: Any) -> Any:
    return value if jnp.issubdtype(value.dtype, jax.dtypes.extended) else np.asarray(value)


# Constants


def _folded(equation: Any, operands: Sequence[Known]) -> list[Operand]:
    """The outputs of an equation of constants; layouts keep positions in their parameter."""
    name, params = equation.primitive.name, equation.params
    move = _MOVES.get(name)
    if move is not None and not jnp.issubdtype(operands[0].array.dtype, jax.dtypes.extended):
        first = operands[0]
        arrays = move(np.asarray(first.array), params)
        indices = [None] * len(arrays) if first.index is None else move(first.index, params)
        return [Known(array, first.parameter, index) for array, index in zip(arrays, indices, strict=True)]
    arrays = [operand.array for operand in operands]
    if name in _FOLDS and all(array.dtype == np.float32 for array in arrays):
        with np.errstate(all="ignore"):
            found = [np.asarray(_FOLDS[name](*arrays), np.float32)]
    else:
        found = equation.primitive.bind(*map(jnp.asarray, arrays), **params)
        found = found if equation.primitive.multiple_results else [found]
    sizes = [(operand.array.size, operand.parameter) for operand in operands if operand.parameter is not None]
    origin = max(sizes, key=lambda pair: pair[0])[1] if sizes else None
    return [Known(_array(one), origin) for one in found]


def _spread(array: np.ndarray, params: Mapping[str, Any]) -> list[np.ndarray]:
    shape = params["shape"]
    inner = [1] * len(shape)
    for axis, size in zip(params["broadcast_dimensions"], array.shape, strict=True):
        inner[axis] = size
    return [np.broadcast_to(array.reshape(inner), shape)]


def _sliced(array: np.ndarray, params: Mapping[str, Any]) -> list[np.ndarray]:
    steps = params["strides"] or [1] * array.ndim
    return [array[tuple(map(slice, params["start_indices"], params["limit_indices"], steps))]]


def _split(array: np.ndarray, params: Mapping[str, Any]) -> list[np.ndarray]:
    return np.split(array, np.cumsum(params["sizes"])[:-1], params["axis"])


_MOVES: dict[str, Callable[[np.ndarray, Mapping[str, Any]], list[np.ndarray]]] = {
    "reshape": lambda array, params: [array.reshape(params["new_sizes"])],
    "squeeze": lambda array, params: [array.squeeze(tuple(params["dimensions"]))],
    "transpose": lambda array, params: [array.transpose(params["permutation"])],
    "rev": lambda array, params: [np.flip(array, params["dimensions"])],
    "broadcast_in_dim": _spread,
    "slice": _sliced,
    "split": _split,
    "copy": lambda array, params: [array],
    "copy_p": lambda array, params: [array],
    "stop_gradient": lambda array, params: [array],
}
"""Constants moved by NumPy: a broadcast stays a view, whose strides tell that its numbers are repeated."""

_FOLDS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "div": np.divide,
    "max": np.maximum,
    "mul": np.multiply,
    "neg": np.negative,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sqrt": np.sqrt,
    "square": np.square,
    "sub": np.subtract,
}
"""Constants of float32 computed by NumPy, as those of batch normalisation: XLA compiles a program for each shape."""


# Operations


@dataclasses.dataclass(frozen=True)
class _Equation:
    """An equation whose node is built."""

    equation: Any
    build: GraphBuilder

    @property
    def params(self) -> Mapping[str, Any]:
        return self.equation.params

    @property
    def shape(self) -> tuple[int, ...]:
        return self.equation.outvars[0].aval.shape

    def node(self, operand: Operand, *, full: bool = False) -> str:
        """The name of an operand's node; a constant gets one."""
        return operand.name if isinstance(operand, Traced) else self.build.constant(operand, full=full)

    def shape_of(self, operand: Operand) -> tuple[int, ...]:
        return self.build.shapes[operand.name] if isinstance(operand, Traced) else operand.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the first input."""
        return np.dtype(self.equation.invars[0].aval.dtype)

    def refused(self, *operands: Operand, detail: str = "") -> InputError:
        """The refusal of the operation, with the layers and parameters in front of it."""
        layers = list[str]()
        for one in operands:
            near = self.build.layer_before(one.name) if isinstance(one, Traced) else one.parameter
            if near is not None and quoted(near) not in layers:
                layers.append(quoted(near))
        for atom in (*self.equation.invars, *self.equation.outvars):
            if not detail and not _has_exact_floats(atom.aval):
                detail = f"of {atom.aval.dtype}"
        where = f"behind {' and '.join(layers[:2])}" if layers else "at the input"
        found = " ".join(filter(None, (repr(self.equation.primitive.name), detail, where)))
        return InputError(
            f"the operations of a model must be those of lottery_jax.networks.layers.operations, got {found}. Replace"
            " it in the model, or approximate the weights alone (load_model, or --model on the command line)."
        )


_Rule = Callable[..., Operand | list[Operand]]
_RULES: dict[str, _Rule] = {}


def _rule(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@_rule("copy", "copy_p", "stop_gradient", "name")
def _same(at: _Equation, x: Traced) -> Operand:
    return x


@_rule("optimization_barrier")
def _barrier(at: _Equation, *operands: Operand) -> list[Operand]:
    return list(operands)


@_rule("reduce_precision")
def _reduce_precision(at: _Equation, x: Traced) -> Operand:
    if at.params["exponent_bits"] < 8 or at.params["mantissa_bits"] < 23:
        raise at.refused(x)
    return x


@_rule("convert_element_type")
def _convert(at: _Equation, x: Traced) -> Operand:
    old, new = at.dtype, np.dtype(at.params["new_dtype"])
    if new.kind == "b" != old.kind:
        return Traced(at.build.add(Binary("ne"), x.name, at.build.constant(Known(np.zeros(1)))))
    if new.kind in "iu" and not np.can_cast(old, new):  # numbers would be rounded, or wrap around
        raise at.refused(x, detail=f"of {old} to {new}")
    return x


@_rule("is_finite")
def _is_finite(at: _Equation, x: Traced) -> Operand:
    size = at.build.add(Elementwise("abs"), x.name)
    return Traced(at.build.add(Binary("lt"), size, at.build.constant(Known(np.full(1, np.inf)))))


@_rule("round")
def _round(at: _Equation, x: Traced) -> Operand:
    build = at.build
    if at.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        return Traced(build.add(Elementwise("round"), x.name))
    size = build.add(Elementwise("abs"), x.name)
    low = build.add(Elementwise("floor"), size)
    half = build.add(Binary("ge"), build.add(Binary("sub"), size, low), build.constant(Known(np.full(1, 0.5))))
    return Traced(build.add(Binary("mul"), build.add(Elementwise("sign"), x.name), build.add(Binary("add"), low, half)))


def _unary(at: _Equation, x: Traced) -> Operand:
    return Traced(at.build.add(Elementwise(at.equation.primitive.name), x.name))  # type: ignore[arg-type]


for _name in UNARY:
    _RULES.setdefault(_name, _unary)


@_rule("exp2")
def _exp2(at: _Equation, x: Traced) -> Operand:
    scaled = at.build.add(Binary("mul"), x.name, at.build.constant(Known(np.full(1, math.log(2.0)))))
    return Traced(at.build.add(Elementwise("exp"), scaled))


@_rule("not")
def _not(at: _Equation, x: Traced) -> Operand:
    if at.equation.invars[0].aval.dtype != bool:
        raise at.refused(x)
    return Traced(at.build.add(Binary("sub"), at.build.constant(Known(np.ones(1))), x.name))


@_rule("integer_pow")
def _integer_pow(at: _Equation, x: Traced) -> Operand:
    exponent = at.params["y"]
    if exponent == 0:
        return Known(np.ones(at.shape, np.float32))
    power = x.name
    if abs(exponent) == 2:
        power = at.build.add(Elementwise("square"), power)
    elif abs(exponent) > 1:
        power = at.build.add(Power(abs(exponent)), power)
    if exponent < 0:
        power = at.build.add(Binary("div"), at.build.constant(Known(np.ones(1))), power)
    return Traced(power)


_NEUTRAL = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "max": -np.inf, "min": np.inf, "pow": 1.0}
_BINARY_NAMES = {"and": "mul", "or": "max", "add_any": "add", **{name: name for name in BINARY}}


_INFINITE = {"eq": ("ge", "le"), "ne": ("lt", "gt")}  # a constant of +-inf becomes the largest number of float32
_EXACT = 1 << 24  # float32 has all integers up to here


def _binary(at: _Equation, x: Operand, y: Operand) -> Operand:
    name = at.equation.primitive.name
    if at.dtype.kind in "iu" and not _exact_integers(at, name, x, y):
        raise at.refused(x, y, detail=f"of {at.dtype}")
    name = _BINARY_NAMES[name]
    neutral = _NEUTRAL.get(name)
    for constant, other in ((y, x), (x, y)):
        if not isinstance(constant, Known) or constant.parameter is not None or not isinstance(other, Traced):
            continue
        array, first = constant.array, constant is x
        kept = neutral is not None and not (first and name in ("sub", "div", "pow")) and bool((array == neutral).all())
        if kept and at.build.shapes[other.name] == (at.shape or (1,)):
            return other
        if name == "max" and not array.any():
            return Traced(at.build.add(Relu(), other.name))
        if name in _INFINITE and not first and np.isinf(array).all() and len(np.unique(array)) == 1:
            name = _INFINITE[name][int(array.flat[0] < 0)]
    return Traced(at.build.add(Binary(name), at.node(x), at.node(y)))  # type: ignore[arg-type]


def _exact_integers(at: _Equation, name: str, *operands: Operand) -> bool:
    """Whether floats compute what integers do: comparisons, and sums and products that do not wrap around."""
    if name in ("div", "pow", "and", "or"):
        return False
    if name in ("add", "sub", "mul", "add_any"):
        large = any(isinstance(one, Known) and np.abs(one.array.astype(float)).max() > _EXACT for one in operands)
        return at.dtype in (np.int32, np.int64) and not large
    return True


for _name in _BINARY_NAMES:
    _RULES[_name] = _binary


@_rule("clamp")
def _clamp(at: _Equation, low: Operand, x: Operand, high: Operand) -> Operand:
    raised = at.build.add(Binary("max"), at.node(x), at.node(low))
    return Traced(at.build.add(Binary("min"), raised, at.node(high)))


@_rule("select_n")
def _select(at: _Equation, which: Operand, *cases: Operand) -> Operand:
    if len(cases) != 2:
        raise at.refused(which, *cases)
    if isinstance(which, Known) and which.parameter is None:
        for number, case in enumerate(cases):
            if (which.array == number).all():
                return case
    if isinstance(which, Traced) and _is_nan(at, which, cases[1]):
        return cases[0]
    return Traced(at.build.add(Select(), at.node(which), *map(at.node, cases)))


def _is_nan(at: _Equation, which: Traced, case: Operand) -> bool:
    """Whether one case is selected for NaN alone, and is NaN itself, as in `jax.numpy.logaddexp`."""
    compare, tested = at.build.operation(which.name)
    if compare != "ne" or tested[0] != tested[1] or not isinstance(case, Traced):
        return False
    own, other = at.build.operation(tested[0]), at.build.operation(case.name)
    return tested[0] == case.name or (own[0] in ("add", "sub") and other[0] in ("add", "sub") and own[1] == other[1])


@_rule("reshape")
def _reshape(at: _Equation, x: Traced) -> Operand:
    if at.params["dimensions"] is not None:
        raise at.refused(x)
    return Traced(at.build.reshape(x.name, at.shape))


@_rule("squeeze", "expand_dims")
def _squeeze(at: _Equation, x: Traced) -> Operand:
    return Traced(at.build.reshape(x.name, at.shape))


@_rule("transpose")
def _transpose(at: _Equation, x: Traced) -> Operand:
    return Traced(at.build.transpose(x.name, at.params["permutation"]))


@_rule("broadcast_in_dim")
def _broadcast(at: _Equation, x: Traced) -> Operand:
    shape = [1] * len(at.shape)
    for axis, size in zip(at.params["broadcast_dimensions"], at.equation.invars[0].aval.shape, strict=True):
        shape[int(axis)] = size
    inner = at.build.reshape(x.name, shape)
    return Traced(inner if tuple(shape) == at.shape else at.build.add(Broadcast(at.shape), inner))


def _slice_of(at: _Equation, x: Traced, start: Any, limit: Any, step: Any = None) -> Traced:
    shape = at.shape_of(x)
    fields = [tuple(map(int, part)) for part in (start, limit, step or [1] * len(shape))]
    whole = fields == [(0,) * len(shape), shape, (1,) * len(shape)]
    return x if whole else Traced(at.build.add(Slice(*fields), x.name))


@_rule("slice")
def _slice(at: _Equation, x: Traced) -> Operand:
    return _slice_of(at, x, at.params["start_indices"], at.params["limit_indices"], at.params["strides"])


@_rule("rev")
def _rev(at: _Equation, x: Traced) -> Operand:
    shape = at.shape
    for axis in at.params["dimensions"]:
        if shape[axis] > _MAX_SCAN:
            raise at.refused(x, detail=f"of {shape[axis]} numbers, more than {_MAX_SCAN},")
        parts = []
        for place in reversed(range(shape[axis])):
            start, limit = [0] * len(shape), [*shape]
            start[axis], limit[axis] = place, place + 1
            parts.append(_slice_of(at, x, start, limit).name)
        x = Traced(at.build.add(Concatenate(axis), *parts))
    return x


@_rule("dynamic_slice")
def _dynamic_slice(at: _Equation, x: Operand, *starts: Operand) -> Operand:
    if not isinstance(x, Traced) or any(isinstance(one, Traced) for one in starts):
        raise at.refused(x, *starts)
    rows = zip(starts, at.shape_of(x), at.params["slice_sizes"], strict=True)
    begin = [min(max(int(start.array), 0), length - size) for start, length, size in rows]  # type: ignore[union-attr]
    return _slice_of(at, x, begin, np.add(begin, at.params["slice_sizes"]))


@_rule("split")
def _split_rule(at: _Equation, x: Traced) -> list[Operand]:
    found, start, shape, axis = [], 0, at.shape_of(x), at.params["axis"]
    for size in at.params["sizes"]:
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = start, start + size
        found.append(_slice_of(at, x, begin, end))
        start += size
    return found


@_rule("pad")
def _pad(at: _Equation, x: Operand, value: Operand) -> Operand:
    if not isinstance(value, Known) or not isinstance(x, Traced):
        raise at.refused(x, value)
    number = float(value.array)
    if number and not MIN_MAGNITUDE <= abs(number) <= MAX_MAGNITUDE:
        raise at.refused(x, value, detail=f"with {number:g}")
    return _padded(at, x, at.params["padding_config"], number)


def _padded(at: _Equation, x: Traced, config: Sequence[tuple[int, int, int]], value: float = 0.0) -> Traced:
    """Pad, then cut where the padding is negative."""
    if any(number for row in config for number in row):
        low, high, interior = (tuple(max(row[part], 0) for row in config) for part in range(3))
        if any((*low, *high, *interior)):
            x = Traced(at.build.add(Pad(low, high, interior, value), x.name))
        start = [max(-row[0], 0) for row in config]
        limit = [size - max(-row[1], 0) for size, row in zip(at.shape_of(x), config, strict=True)]
        x = _slice_of(at, x, start, limit)
    return x


@_rule("concatenate")
def _concatenate(at: _Equation, *operands: Operand) -> Operand:
    given = [at.node(operand, full=True) for operand in operands]
    return Traced(at.build.add(Concatenate(at.params["dimension"]), *given))


@_rule("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or")
def _reduce(at: _Equation, x: Traced) -> Operand:
    function = at.equation.primitive.name.removeprefix("reduce_")
    name = {"and": "min", "or": "max"}.get(function, function)
    axes, shape = tuple(map(int, at.params["axes"])), at.shape_of(x)
    if len(axes) < len(shape):
        return Traced(at.build.add(Reduce(name, axes), x.name) if axes else x.name)
    whole = at.build.reshape(x.name, (1, math.prod(shape)))
    return Traced(at.build.add(Reduce(name, (1,)), whole))


@_rule("reduce_window_sum", "reduce_window_max", "reduce_window_min")
def _reduce_window(at: _Equation, x: Traced) -> Operand:
    params = at.params
    if {*params["base_dilation"], *params["window_dilation"]} != {1}:
        raise at.refused(x)
    low, high = (tuple(int(pair[side]) for pair in params["padding"]) for side in (0, 1))
    function = at.equation.primitive.name.removeprefix("reduce_window_")
    node = ReduceWindow(function, params["window_dimensions"], params["window_strides"], low, high)
    return Traced(at.build.add(node, x.name))


@_rule("gather")
def _gather(at: _Equation, table: Operand, indices: Operand) -> Operand:
    """Rows of a table of constants, as an embedding has them, or a constant part of an activation."""
    dimensions, sizes = at.params["dimension_numbers"], at.params["slice_sizes"]
    shape = at.shape_of(table)
    if isinstance(table, Traced) and isinstance(indices, Known):
        return _constant_gather(at, table, indices)
    rows = dimensions.start_index_map == (0,) and dimensions.collapsed_slice_dims == (0,)
    batch = len(at.shape_of(indices)) - 1
    trailing = dimensions.offset_dims == tuple(range(batch, batch + len(shape) - 1))
    if isinstance(table, Traced) or not (rows and trailing and tuple(sizes) == (1, *shape[1:])):
        raise at.refused(table, indices)
    own = at.build.reshape(at.node(indices), at.shape_of(indices)[:-1])
    return Traced(at.build.add(Lookup(), at.node(table, full=True), own))


def _constant_gather(at: _Equation, x: Traced, indices: Known) -> Operand:
    """A part of an activation at constant places, if it is a slice."""
    shape = at.shape_of(x)
    places = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    chosen = np.asarray(at.equation.primitive.bind(jnp.asarray(places), jnp.asarray(indices.array), **at.params))
    at_axis = np.unravel_index(chosen.reshape(-1), shape)
    start, limit, step = [], [], []
    for coordinates in at_axis:
        used = np.unique(coordinates)
        start.append(int(used[0]))
        limit.append(int(used[-1]) + 1)
        step.append(int(used[1] - used[0]) if len(used) > 1 else 1)
    part = places[tuple(map(slice, start, limit, step))]
    if chosen.size == 0 or not np.array_equal(part.reshape(-1), chosen.reshape(-1)):
        raise at.refused(x, indices)
    return Traced(at.build.reshape(_slice_of(at, x, start, limit, step).name, at.shape))


def _stacked(build: GraphBuilder, rows: Sequence[Operand], shape: Sequence[int]) -> Operand:
    """Rows along a new leading axis."""
    if all(isinstance(row, Known) for row in rows):
        origin = next((row.parameter for row in rows if row.parameter is not None), None)  # type: ignore[union-attr]
        return Known(np.stack([row.array for row in rows]), origin)  # type: ignore[union-attr]
    names = []
    for row in rows:
        name = row.name if isinstance(row, Traced) else build.constant(row, full=True)
        names.append(build.reshape(name, (1, *shape[1:])))
    return Traced(build.add(Concatenate(0), *names))


# Linear layers


@_rule("dot_general")
def _dot_general(at: _Equation, x: Operand, y: Operand) -> Operand:
    (left, right), (left_shared, right_shared) = at.params["dimension_numbers"]
    axes = [tuple(map(int, part)) for part in (left, right, left_shared, right_shared)]
    constants = [operand for operand in (x, y) if isinstance(operand, Known)]
    if not constants or constants[0].parameter is None:  # activations, or a constant that is not a weight
        product = at.build.add(DotGeneral(*axes), at.node(x, full=True), at.node(y, full=True))
        return Traced(at.build.reshape(product, at.shape))
    first = isinstance(x, Traced)
    value, (weight,) = x if first else y, constants
    assert isinstance(value, Traced)
    (summed, summed_of, shared, shared_of) = axes if first else (axes[1], axes[0], axes[3], axes[2])
    shape, own = at.shape_of(value), weight.array.shape
    free = [axis for axis in range(len(shape)) if axis not in (*summed, *shared)]
    outputs = [axis for axis in range(len(own)) if axis not in (*summed_of, *shared_of)]
    groups, inputs = _product(shape, shared), _product(shape, summed)
    units, positions = _product(own, outputs), _product(shape, free)
    moved = at.build.transpose(value.name, (*free, *shared, *summed))
    order, kernel = (*shared_of, *outputs, *summed_of), (groups * units, inputs)
    if shared:  # each of the shared positions has its own matrix: groups of a 1 x 1 convolution
        layer, kernel = Conv(groups * inputs, groups * units, (1, 1), groups=groups), (*kernel, 1, 1)
        moved = at.build.reshape(moved, (positions, 1, groups * inputs))
    else:
        layer = Dense(inputs, units)
        moved = at.build.reshape(moved, (*(shape[axis] for axis in free), inputs))
    output = at.build.linear(layer, moved, weight.moved(lambda array: array.transpose(order).reshape(kernel)))
    parts = [[shape[axis] for axis in free], [shape[axis] for axis in shared], [own[axis] for axis in outputs]]
    output = at.build.reshape(output, [size for part in parts for size in part] or (1,))
    ends = np.cumsum([len(part) for part in parts])
    by_part = np.split(np.arange(ends[-1]), ends[:-1])
    wanted = [1, 0, 2] if first else [1, 2, 0]  # shared axes, those of the first operand, those of the second one
    output = at.build.transpose(output, [int(axis) for part in wanted for axis in by_part[part]])
    return Traced(at.build.reshape(output, at.shape))


def _product(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)


@_rule("conv_general_dilated")
def _convolution(at: _Equation, x: Operand, weight: Operand) -> Operand:
    params, build = at.params, at.build
    numbers, shape = params["dimension_numbers"], at.shape_of(x)
    images, axes = shape[numbers.lhs_spec[0]], len(shape) - 2
    if axes not in (1, 2):
        raise at.refused(x, weight, detail=f"along {axes} axes")
    if not isinstance(x, Traced) or not isinstance(weight, Known):
        raise at.refused(x, weight, detail="with a kernel that depends on the input")
    if images != 1 or params["batch_group_count"] != 1:
        raise at.refused(x, weight, detail=f"of {images} images for each example")
    batch, channels, *places = numbers.lhs_spec
    moved = Traced(build.transpose(x.name, (batch, *places, channels)))
    one = (1,) * (2 - axes)  # a sequence is an image of height 1
    moved = Traced(build.reshape(moved.name, (*one, *at.shape_of(moved)[1:])))
    padding, dilation = [(0, 0)] * len(one) + [*params["padding"]], (*one, *params["lhs_dilation"])
    symmetric = all(low == high >= 0 for low, high in padding)
    if not symmetric or {*dilation} != {1}:
        config = [(low, high, step - 1) for (low, high), step in zip(padding, dilation, strict=True)]
        moved, padding = _padded(at, moved, [*config, (0, 0, 0)]), [(0, 0)] * 2

    def kernel(array: np.ndarray) -> np.ndarray:
        array = array.transpose(numbers.rhs_spec)
        return array.reshape(*array.shape[:2], *one, *array.shape[2:])

    own = weight.moved(kernel)
    layer = Conv(
        at.shape_of(moved)[-1],
        own.array.shape[0],
        own.array.shape[2:],
        stride=(*one, *params["window_strides"]),
        padding=(padding[0][0], padding[1][0]),
        groups=params["feature_group_count"],
        dilation=(*one, *params["rhs_dilation"]),
    )
    output = build.linear(layer, moved.name, own)
    output = build.reshape(output, (1, *build.shapes[output][len(one) :]))
    batch, channels, *places = numbers.out_spec
    return Traced(build.transpose(output, [int(axis) for axis in np.argsort((batch, *places, channels))]))
