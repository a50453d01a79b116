"""ONNX files: read and checked as untrusted input, their tensors as arrays, and arrays written back."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lottery_jax.errors import InputError, quoted, shown, suggest
from lottery_jax.io.files import write_atomically

if TYPE_CHECKING:
    import onnx

OPSETS = range(9, 24)
FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
"""Number in ``TensorProto.DataType`` -> name of a float type; all are computed in float32."""
INTEGERS = {6: "int32", 7: "int64", 9: "bool"}
_NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
_MAX_BYTES = 2**31 - 1  # of a message of protobuf
_MAX_NODES = 100_000


def load_onnx(model: "onnx.ModelProto | str | os.PathLike[str]") -> tuple["onnx.ModelProto", str]:
    """A checked model and its label for messages, from a model or the path of its file.

    Raises:
        InputError: If the package ``onnx`` is missing, or the file is not an ONNX model that is read here.
    """
    try:
        import onnx
        import onnx.checker
        from google.protobuf.message import DecodeError
    except ImportError:
        raise InputError(
            "the package onnx must be installed for ONNX models, got none. Run: pip install 'lottery_jax[onnx]'"
        ) from None
    where = "the ONNX model"
    if not isinstance(model, onnx.ModelProto):
        path = Path(model)
        where = f"the ONNX file {str(path)!r}"
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise InputError(f"{where} must be smaller than 2 GiB. Save its tensors as external data.")
            model = onnx.load(path, format="protobuf")
        except OSError as error:
            raise InputError(f"{where} must be readable, got: {error.strerror or error}. Check the path.") from None
        except (DecodeError, onnx.checker.ValidationError, TypeError, ValueError) as error:
            raise InputError(
                f"{where} must be an ONNX model with its external data, got other bytes ({shown(str(error))})."
                " Export the model again."
            ) from None
    if len(model.graph.node) > _MAX_NODES:
        raise InputError(f"{where} must have at most {_MAX_NODES} nodes, got {len(model.graph.node)}. Simplify it.")
    attributes = (one.t for node in model.graph.node for one in node.attribute if one.HasField("t"))
    tensors = (*model.graph.initializer, *attributes)
    external = next((one.name or "a constant" for one in tensors if one.data_location == one.EXTERNAL), None)
    if external is not None:
        raise InputError(
            f"{where} must hold its tensors, got external data for {quoted(external)}. Pass the path of its file."
        )
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"{where} must be valid and smaller than 2 GiB, got: {first}. Check it with onnx.checker.check_model."
        ) from None
    return model, where


def opset_of(model: "onnx.ModelProto", where: str) -> int:
    """The version of the standard operators, one of ``OPSETS``."""
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if version not in OPSETS:
        raise InputError(
            f"{where} must have an opset from {OPSETS[0]} to {OPSETS[-1]}, got {version}. Export it with opset 17, or"
            " convert it with onnx.version_converter."
        )
    return version


def stored_tensors(model: "onnx.ModelProto", where: str) -> dict[str, np.ndarray]:
    """The initialisers and constants of a model by name, in their own types."""
    from onnx import helper

    if model.functions or model.graph.sparse_initializer or model.training_info:
        raise InputError(
            f"{where} must have neither functions, sparse tensors nor training information, got some of these. Inline"
            " functions with onnx.inliner.inline_local_functions, and store tensors densely."
        )
    found = {tensor.name: _array(tensor, tensor.name, where) for tensor in model.graph.initializer}
    for name, attribute in _constants(model):
        dtype = _NUMBERS.get(attribute.name)
        if dtype is not None:
            found[name] = np.asarray(helper.get_attribute_value(attribute), dtype)
        elif attribute.name == "value":
            found[name] = _array(attribute.t, name, where)
        else:
            raise InputError(
                f"{where} must have constants that are dense tensors or numbers, got {attribute.name} in"
                f" {quoted(name)}. Export the model again."
            )
    return found


def _constants(model: "onnx.ModelProto") -> Iterator[tuple[str, "onnx.AttributeProto"]]:
    """Name and value of each constant; the checker has seen that each has one of both."""
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            yield node.output[0], node.attribute[0]


def _array(tensor: "onnx.TensorProto", name: str, where: str) -> np.ndarray:
    from onnx import numpy_helper

    if tensor.data_type not in FLOATS | INTEGERS or min(tensor.dims, default=0) < 0:
        raise InputError(
            f"{where} must hold tensors of float32, float16, bfloat16, float64, int32, int64 or bool, got"
            f" {quoted(name)} of data type {tensor.data_type}, shape {list(tensor.dims)}. Export the model without"
            " quantisation."
        )
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{where} must hold {quoted(name)} with shape {list(tensor.dims)}, got: {shown(str(error))}. Export it"
            " again."
        ) from None


def with_parameters(model: "onnx.ModelProto", values: Mapping[str, Any]) -> "onnx.ModelProto":
    """A copy of a model with other values of initialisers and constants.

    Args:
        model: The model, with its tensors.
        values: Arrays by name, with the shapes of the model's tensors, in their dtypes or in float32 without rounding.

    Raises:
        InputError: If a name is unknown, or a shape, a dtype or a value does not fit.
    """
    import onnx

    copy, where = onnx.ModelProto(), "the ONNX model"
    copy.CopyFrom(model)
    stored = stored_tensors(copy, where)
    unknown = next((name for name in values if name not in stored), None)
    if unknown is not None:
        raise InputError(f"parameters must be tensors of {where}, got {unknown!r}: {suggest(unknown, stored)}.")
    for tensor in copy.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(_replaced(tensor.name, stored[tensor.name], tensor.data_type, values[tensor.name]))
    for name, attribute in _constants(copy):
        if name in values:
            kind = attribute.t.data_type or (1 if "float" in attribute.name else 7)
            tensor = _replaced(name, stored[name], kind, values[name])
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
    return copy


def _replaced(name: str, old: np.ndarray, data_type: int, value: Any) -> "onnx.TensorProto":
    from onnx import TensorProto

    array = np.asarray(value)
    with np.errstate(over="ignore"):
        found = array.astype(old.dtype)
    exact = array.dtype == old.dtype or (data_type in FLOATS and array.dtype == np.float32)
    if array.shape != old.shape or not exact or not np.array_equal(found.astype(array.dtype), array, equal_nan=True):
        raise InputError(
            f"parameter {name!r} must have the shape {list(old.shape)} and values of {old.dtype}, got"
            f" {list(array.shape)} of {array.dtype}. Convert the model to float32 first if its dtype is smaller."
        )
    raw = found.byteswap() if sys.byteorder == "big" else found  # the format is little-endian
    return TensorProto(name=name, data_type=data_type, dims=old.shape, raw_data=np.ascontiguousarray(raw).tobytes())


def save_onnx(model: "onnx.ModelProto", path: str | os.PathLike[str]) -> None:
    """Write a model with its tensors as one file, atomically."""
    try:
        content = model.SerializeToString()
    except ValueError:  # of protobuf
        raise InputError("the ONNX model must be smaller than 2 GiB. Store its tensors as float16.") from None
    write_atomically(Path(path), content)
