"""ONNX models as pure JAX functions of their parameters and input, and parameters back into the model."""

import dataclasses
import functools
import inspect
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lottery_jax.errors import InputError, quoted, shown
from lottery_jax.importers.onnx_arrays import ARRAY_OPERATORS, MAX_ELEMENTS, UnsupportedNodeError
from lottery_jax.importers.onnx_layers import LAYER_OPERATORS
from lottery_jax.importers.onnx_model import FLOATS, load_onnx, opset_of, stored_tensors
from lottery_jax.importers.onnx_reference import reference_output
from lottery_jax.importers.onnx_windows import WINDOW_OPERATORS

if TYPE_CHECKING:
    import onnx

OPERATORS = ARRAY_OPERATORS | LAYER_OPERATORS | WINDOW_OPERATORS
"""Operator of ONNX -> its function of arrays."""

_WAY_OUT = "Save its weights as safetensors, and approximate these tensors with --model."
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_INDICES = {6: "int32", 7: "int64"}
_HOST_INPUTS = {"Dropout": (1, 2), "Range": (0, 1, 2), "Resize": (1, 2, 3), "Upsample": (1,)}
"""Operator -> inputs that are numbers of the program, not parameters, although they may be floats."""


@dataclasses.dataclass(frozen=True)
class _Step:
    """A node: operator, name for messages, values that it reads and writes, and attributes as Python values."""

    operator: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class OnnxFunction:
    """An ONNX model in evaluation mode as a pure function, which works under ``jax.jit`` and ``jax.make_jaxpr``.

    >>> import onnx.parser
    >>> text = '<ir_version: 8, opset_import: ["": 17]> tiny (float[n, 2] x) => (float[n, 1] y)'
    >>> model = onnx.parser.parse_model(text + ' <float[2, 1] w = {1, 3}> { z = Relu(x) y = MatMul(z, w) }')
    >>> function = onnx_function(model)
    >>> function.parameters["w"].shape, function.input_shape
    ((2, 1), (None, 2))
    >>> function(function.parameters, np.array([[1, 2], [-1, 1]], np.float32)).tolist()
    [[7.0], [3.0]]
    """

    model: "onnx.ModelProto"
    parameters: dict[str, np.ndarray]
    """The model's float tensors by name, float32: initialisers, and constants with at least one axis."""
    input_name: str
    input_shape: tuple[int | None, ...]
    """None for an axis of any size. A batch size of 1 that the file fixes stays 1: map over examples."""
    input_dtype: np.dtype
    output_name: str
    notes: tuple[str, ...]
    """One sentence for each difference between the file and this function."""
    _constants: dict[str, np.ndarray]
    _steps: tuple[_Step, ...]
    _opset: int
    _where: str

    @property
    def device_dtype(self) -> np.dtype:
        """The dtype of the input on the device: float32 or int32."""
        return np.dtype(np.int32 if self.input_dtype.kind == "i" else np.float32)

    def __call__(self, parameters: Mapping[str, Any], x: Any) -> jax.Array:
        """The model's output.

        Args:
            parameters: Arrays with the names and shapes of ``self.parameters``, float32, traced or not.
            x: Input of the shape ``input_shape``, traced or not.

        Raises:
            InputError: If a shape differs, or a node cannot be computed; the message names the node.
        """
        self._check_inputs(parameters, x)
        values: dict[str, Any] = {"": None, **self._constants}
        for name in self.parameters:
            value = parameters[name]
            values[name] = value if isinstance(value, Tracer) else np.asarray(value)
        values[self.input_name] = jnp.asarray(x, self.device_dtype)
        with np.errstate(all="ignore"):  # a constant may be infinite, as a mask of attention is
            for step in self._steps:
                values.update(zip(step.outputs, self._run(step, values), strict=False))
        return jnp.asarray(values[self.output_name])

    def reference(self, x: np.ndarray) -> np.ndarray:
        """The output for an input by ``onnx.reference``, which runs the file's own nodes in NumPy."""
        return reference_output(self.model, self._where, {self.input_name: np.asarray(x, self.input_dtype)})

    def _check_inputs(self, parameters: Mapping[str, Any], x: Any) -> None:
        shapes = {name: np.shape(value) for name, value in parameters.items()}
        expected = {name: value.shape for name, value in self.parameters.items()}
        for name in sorted(shapes.keys() | expected.keys()):
            if shapes.get(name) != expected.get(name):
                raise InputError(
                    f"parameters must hold {name!r} of shape {expected.get(name, 'none')}, got"
                    f" {shapes.get(name, 'none')}. Pass arrays like those of function.parameters."
                )
        if self.device_dtype.kind == "i" and not jnp.issubdtype(jnp.result_type(x), jnp.integer):
            raise InputError(f"the input of {self._where} must hold integers, got {jnp.result_type(x)}. Pass indices.")
        shape = np.shape(x)
        fits = len(shape) == len(self.input_shape)
        if not fits or any(size not in (None, got) for size, got in zip(self.input_shape, shape, strict=True)):
            raise InputError(
                f"the input of {self._where} must have the shape {_sizes(self.input_shape)}, got {list(shape)}."
                " Pass one batch of that shape, or export the model with a dynamic batch axis."
            )

    def _run(self, step: _Step, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The outputs of a node; on the host they are arrays of float32, int32, int64 or bool."""
        function = OPERATORS[step.operator]
        context = _context(function, self._opset, len(step.outputs))
        try:
            found = function(*(values[name] for name in step.inputs), **step.attributes, **context)
            outputs = found if isinstance(found, tuple) else (found,)
            for one in outputs:
                if one.size > MAX_ELEMENTS:
                    raise UnsupportedNodeError("have a value of at most 2^28 elements", list(one.shape))
        except UnsupportedNodeError as error:
            raise InputError(f"{step.label} of {self._where} must {error.must}, got {error.got}. {_WAY_OUT}") from None
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            shapes = [None if values[name] is None else list(values[name].shape) for name in step.inputs]
            raise InputError(
                f"{step.label} of {self._where} must have inputs and attributes that fit, got the shapes"
                f" {shown(shapes)} ({shown(str(error))}). Check it with"
                " onnx.checker.check_model(model, full_check=True)."
            ) from None
        return tuple(one if isinstance(one, jax.Array) else _narrowed(np.asarray(one)) for one in outputs)


def onnx_function(model: "onnx.ModelProto | str | os.PathLike[str]") -> OnnxFunction:
    """The pure function of an ONNX model with one input and one output; see ``OnnxFunction``.

    Args:
        model: The model, or its file with the files of its external data.

    Raises:
        InputError: If the file is not an ONNX model, or an operator, a type or a mode is not supported; the message
            names the node.
    """
    model, where = load_onnx(model)
    graph = model.graph
    opset = opset_of(model, where)
    nodes = enumerate(graph.node)
    steps = tuple(_checked_step(node, index, opset, where) for index, node in nodes if node.op_type != "Constant")
    tensors = stored_tensors(model, where)
    inputs = [value for value in graph.input if value.name not in tensors]
    if (len(inputs), len(graph.output)) != (1, 1):
        names = [[value.name for value in values] for values in (inputs, graph.output)]
        raise InputError(
            f"{where} must have one input and one output, got the inputs {shown(names[0])} and the outputs"
            f" {shown(names[1])}. Export the model with one of each."
        )
    shape, dtype = _input_type(inputs[0], where)
    _check_order(steps, {"", inputs[0].name, *tensors}, graph.output[0].name, where)
    host = {name for step in steps for i, name in enumerate(step.inputs) if i in _HOST_INPUTS.get(step.operator, ())}
    initialisers = {tensor.name for tensor in graph.initializer}
    parameters = {
        name: _narrowed(array)
        for name, array in tensors.items()
        if _is_float(array) and array.size and name not in host and (array.ndim or name in initialisers)
    }
    function = OnnxFunction(
        model=model,
        parameters=parameters,
        input_name=inputs[0].name,
        input_shape=shape,
        input_dtype=dtype,
        output_name=graph.output[0].name,
        notes=_notes(model, tensors, where),
        _constants={name: _narrowed(array) for name, array in tensors.items() if name not in parameters},
        _steps=steps,
        _opset=opset,
        _where=where,
    )
    if None not in shape[1:]:  # otherwise only a call tells whether every node can be computed
        example = jax.ShapeDtypeStruct((shape[0] or 1, *shape[1:]), function.device_dtype)  # type: ignore[arg-type]
        jax.eval_shape(functools.partial(function, parameters), example)
    return function


def _is_float(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _narrowed(array: np.ndarray) -> np.ndarray:
    """Floats as float32; other dtypes stay."""
    return array.astype(np.float32) if _is_float(array) and array.dtype != np.float32 else array


def _context(function: Any, opset: int, outputs: int) -> dict[str, int]:
    """Those facts of a node and its model that the operator's function asks for."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in (("opset", opset), ("outputs", outputs)) if name in names}


def _checked_step(node: "onnx.NodeProto", index: int, opset: int, where: str) -> _Step:
    """The node as data, if its operator, mode and attributes are supported."""
    from onnx import helper, numpy_helper

    operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    label = f"node {quoted(node.name[:100]) if node.name else index} ({quoted(operator[:100])})"
    if operator in _CONTROL_FLOW:
        raise InputError(
            f"{where} must compute the same nodes for every input, got the control flow of {label}. Export the model"
            " by tracing it on an example."
        )
    if "Quantize" in operator or operator.startswith("QLinear") or operator.endswith("Integer"):
        raise InputError(f"{where} must compute in floats, got the quantised {label}. Export it before quantisation.")
    if operator in ("ArgMax", "ArgMin", "TopK"):
        raise InputError(
            f"{where} must return what its last layer computes, got the choice of {label}. Export the logits instead."
        )
    if operator not in OPERATORS:
        raise InputError(f"{where} must use supported operators, got {label}. {_WAY_OUT}")
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    several = sum(map(bool, node.output)) > 1
    if attributes.get("training_mode", 0) or (operator == "BatchNormalization" and several):
        raise InputError(
            f"{where} must be in evaluation mode, got {label} in training mode. Export it after model.eval()."
        )
    for name, value in attributes.items():
        if isinstance(value, bytes):
            attributes[name] = value.decode(errors="replace")
        elif hasattr(value, "data_type"):
            attributes[name] = numpy_helper.to_array(value)
    function = OPERATORS[operator]
    try:
        context = _context(function, opset, len(node.output))
        inspect.signature(function).bind(*node.input, **attributes, **context)
    except TypeError as error:
        raise InputError(f"{label} of {where} must have supported attributes, got: {error}. {_WAY_OUT}") from None
    return _Step(operator, label, tuple(node.input), tuple(node.output), attributes)


def _check_order(steps: tuple[_Step, ...], known: set[str], output: str, where: str) -> None:
    """Refuse a value that no function computes: the second output of a node such as MaxPool."""
    for step in steps:
        missing = next((name for name in step.inputs if name not in known), None)
        if missing is not None:
            raise InputError(
                f"{step.label} of {where} must read first outputs of earlier nodes, got {quoted(missing)}. {_WAY_OUT}"
            )
        known.update(step.outputs if step.operator == "Split" else step.outputs[:1])
    if output not in known:
        raise InputError(f"the output of {where} must be the first one of a node, got {quoted(output)}. {_WAY_OUT}")


def _input_type(value: "onnx.ValueInfoProto", where: str) -> tuple[tuple[int | None, ...], np.dtype]:
    """Shape, None for an axis of any size, and dtype of the input."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in FLOATS | _INDICES or not kind.HasField("shape"):
        raise InputError(
            f"the input {quoted(value.name)} of {where} must be a tensor of floats, int32 or int64 with a shape, got"
            f" data type {kind.elem_type}. Export the model for such an input."
        )
    from onnx import helper

    # Exporters write an axis of any size as a name, as nothing, 0 or -1.
    shape = tuple(one.dim_value if one.dim_value > 0 else None for one in kind.shape.dim)
    return shape, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _sizes(shape: Collection[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _notes(model: "onnx.ModelProto", tensors: Mapping[str, np.ndarray], where: str) -> tuple[str, ...]:
    """One sentence per float type that is computed in float32."""
    types = [array.dtype.name for array in tensors.values() if _is_float(array)]
    casts = [
        FLOATS.get(one.i, "")
        for node in model.graph.node
        if node.op_type == "Cast"
        for one in node.attribute
        if one.name == "to"
    ]
    return tuple(
        f"{where} has {types.count(name)} tensors and {casts.count(name)} casts of {name}, computed in float32."
        for name in FLOATS.values()
        if name != "float32" and name in (*types, *casts)
    )
