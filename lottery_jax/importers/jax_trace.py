"""A JAX function as a graph: its jaxpr, operation by operation.

The function is traced for a batch of one example. What depends on parameters alone is computed and becomes a constant;
a product of activations with a constant becomes a linear layer; all else becomes an elementary operation of the graph.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.importers import jaxpr_layouts  # noqa: F401, its rules are registered
from lottery_jax.importers.graph_builder import GraphBuilder, Known, Placement
from lottery_jax.importers.jaxpr_rules import MAX_SCAN, RULES, Equation, Operand, Traced, has_exact_floats
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import Concatenate, Slice


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
        at = Equation(equation, self.builder)
        if name == "scan":
            return self._scan(at, operands)
        rule = RULES.get(name)
        if rule is None or not all(has_exact_floats(one.aval) for one in (*equation.invars, *equation.outvars)):
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

    def _scan(self, at: "Equation", operands: list[Operand]) -> list[Operand]:
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
        if length > MAX_SCAN:
            raise at.refused(*operands, detail=f"of {length} steps, more than {MAX_SCAN}")
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
