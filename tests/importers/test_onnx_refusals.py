"""ONNX models and files that are refused, each with its sentence, and changed files."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lottery_jax.errors import InputError
from lottery_jax.importers.onnx_function import onnx_function
from tests.importers import onnx_models
from tests.importers.onnx_models import IMAGE, Model, floats, ints, one_node, positive, scalar
from tests.importers.test_onnx_operators import CASES


def _changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    model = onnx_models.mlp()
    change(model)
    return model


def _loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Relu", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info("i", 7, ()), helper.make_tensor_value_info("c", 9, ()),
         helper.make_tensor_value_info("a", 1, (3,))],
        [helper.make_tensor_value_info("d", 9, ()), helper.make_tensor_value_info("b", 1, (3,))],
    )  # fmt: skip
    model = Model()
    return model.model(model.add("Loop", np.asarray(3), np.asarray(True), "x", body=body), (3,))


def _two_inputs() -> onnx.ModelProto:
    return _changed(lambda model: model.graph.input.append(helper.make_tensor_value_info("mask", 1, (3,))))


def _indices_of_max() -> onnx.ModelProto:
    model = Model()
    _, indices = model.add("MaxPool", "x", outputs=2, kernel_shape=[2, 2])
    return model.model(model.add("Cast", indices, to=1), (1, 1, 4, 4))


def _traced_shape() -> onnx.ModelProto:
    model = Model()
    return model.model(model.add("Reshape", "x", model.add("Cast", "x", to=7)), (2,))


def _training() -> onnx.ModelProto:
    model = Model()
    outputs = model.add(
        "BatchNormalization", "x", floats(4), floats(4), floats(4), positive(4), training_mode=1, outputs=3
    )
    return model.model(outputs[0], IMAGE)


def _dropout() -> onnx.ModelProto:
    return one_node("Dropout", (3,), scalar(0.5), np.asarray(True), opset=13)


def _quantised() -> onnx.ModelProto:
    model = Model()
    scale, zero = model.stored(scalar(0.1)), model.stored(np.uint8(0))
    return model.model(model.add("DequantizeLinear", model.add("QuantizeLinear", "x", scale, zero), scale, zero), (3,))


def _other_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _string_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, (1,), [b"a"]))


def _huge_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 2**40


REFUSED = [
    (_loop, r"must compute the same nodes for every input, got the control flow of node /Loop_0 \(Loop\)"),
    (lambda: one_node("ArgMax", (2, 3)), r"must return what its last layer computes, got the choice of node /ArgMax_0"),
    (lambda: one_node("LRN", IMAGE, size=3),
     r"must use supported operators, got node /LRN_0 \(LRN\). Save its weights"),
    (lambda: _changed(_other_domain), r"got node /Gemm_1 \(com.microsoft.Gemm\)"),
    (_two_inputs, r"must have one input and one output, got the inputs \['x', 'mask'\]"),
    (lambda: _changed(lambda m: m.graph.output.append(m.graph.output[0])), "one input and one output|valid"),
    (_indices_of_max, r"node /Cast_1 \(Cast\) of the ONNX model must read first outputs of earlier nodes"),
    (_traced_shape,
     r"/Reshape_1 .* must have sizes that do not depend on the input or on parameters, got a traced value"),
    (_training, r"must be in evaluation mode, got node /BatchNormalization_0 .*model.eval\(\)"),
    (_dropout, "must run in evaluation mode, got training_mode=True"),
    (_quantised, "must compute in floats, got the quantised node"),
    (lambda: _changed(_string_tensor), "must hold tensors of float32, .* got words of data type 8"),
    (lambda: _changed(_huge_tensor), r"must hold fc1.weight with shape \[1099511627776, 12\]|must be valid"),
    (lambda: _changed(lambda m: m.graph.node.add(op_type="Nonsense")), "must be valid and smaller"),
    (lambda: _changed(lambda m: setattr(m.opset_import[0], "version", 7)), "must have an opset from 9 to 23, got 7"),
    (lambda: one_node("Cast", (3,), to=TensorProto.INT8), "must cast to float32, .* got data type 3"),
    (lambda: one_node("Softmax", (2, 3, 4), axis=1, opset=9), "must have the last axis before opset 13"),
    (lambda: one_node("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), "must have ceil_mode=0"),
    (lambda: one_node("MaxPool", IMAGE, kernel_shape=[2, 1], pads=[1, 1, 1, 1]), "must have pads that are smaller"),
    (lambda: one_node("Resize", IMAGE, None, np.float32([1, 1, 1.5, 1])), r"must have 4 scales that are integers"),
    (lambda: one_node("Resize", IMAGE, None, np.float32([1, 1, 2, 2]), mode="linear"),
     "repeating entries .nearest., got linear"),
    (lambda: one_node("Expand", (1,), ints(2**20, 2**20)),
     r"value of at most 2\^28 elements, got \(1048576, 1048576\)"),
    (lambda: one_node("Tile", (1,), ints(2**40)), "at most 2.28 elements"),
    (lambda: one_node("Pad", (1,), ints(0, 2**50)), "at most 2.28 elements"),
    (lambda: one_node("ConvTranspose", (1, 1, 4, 4), floats(1, 1, 2, 2), auto_pad="SAME_UPPER"),
     "must have pads instead of"),
    (lambda: one_node("MatMul", (3, 5), floats(4, 2)),
     r"/MatMul_0 .* must have inputs and attributes that fit, got the shapes"),
    (lambda: one_node("Gather", (3, 5), np.asarray(3)), "must have indices of 3 entries, got an index beyond"),
]  # fmt: skip


@pytest.mark.parametrize(("built", "sentence"), REFUSED)
def test_a_model_that_is_not_supported_is_refused(built: Callable[[], onnx.ModelProto], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        onnx_function(built())
    assert str(caught.value).endswith((".", ")")) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"PK\x03\x04", bytes(1000), b"version https://git-lfs.github.com"]
)
def test_a_file_that_is_not_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"the ONNX file '.*net.onnx' must be"):
        onnx_function(tmp_path / "net.onnx")


def test_a_missing_file_and_missing_external_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be readable, got: No such file"):
        onnx_function(tmp_path / "absent.onnx")
    onnx.save(onnx_models.mlp(), tmp_path / "net.onnx", save_as_external_data=True, location="d", size_threshold=0)
    with pytest.raises(InputError, match=r"got external data for fc1.weight. Pass the path of its file"):
        onnx_function(onnx.load(tmp_path / "net.onnx", load_external_data=False))
    outside = onnx.load(tmp_path / "net.onnx", load_external_data=False).graph.initializer[0]
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    with pytest.raises(InputError, match="got external data for"):
        onnx_function(_changed(lambda model: model.graph.node.insert(0, constant)))
    (tmp_path / "d").unlink()
    with pytest.raises(InputError, match=r"with its external data|must be readable"):
        onnx_function(tmp_path / "net.onnx")


def test_a_wrong_input_or_parameter_is_refused() -> None:
    function = onnx_function(onnx_models.mlp())
    with pytest.raises(InputError, match=r"must have the shape \[any, 3, 4\], got \[2, 4, 3\]"):
        function(function.parameters, floats(2, 4, 3))
    with pytest.raises(InputError, match=r"parameters must hold 'fc1.bias' of shape \(16,\), got none"):
        function({name: value for name, value in function.parameters.items() if name != "fc1.bias"}, floats(2, 3, 4))
    fixed = onnx_function(one_node("Reshape", (1, 3, 4), ints(1, -1)))
    assert fixed({}, floats(1, 3, 4)).shape == (1, 12)
    with pytest.raises(InputError, match=r"must have the shape \[1, 3, 4\], got \[2, 3, 4\].*dynamic batch axis"):
        fixed({}, floats(2, 3, 4))


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"Run: pip install 'lottery_jax\[onnx\]'"):
        onnx_function("net.onnx")


def test_a_changed_file_is_refused_or_computed(tmp_path: Path) -> None:
    """No byte of an untrusted file leads to another error."""
    random = np.random.default_rng(1)
    path, refused = tmp_path / "net.onnx", 0
    for number in range(300):
        content = bytearray(onnx_models.NETWORKS[number % 4]().SerializeToString())
        # Nodes come first in the file, the tensors' bytes after them.
        for position in random.integers(0, 2000 if number % 2 else len(content), random.integers(1, 4)):
            content[position % len(content)] = random.integers(0, 256)
        path.write_bytes(content[: len(content) if number % 5 else random.integers(0, len(content))])
        try:
            function = onnx_function(path)
            shape = [size or 2 for size in function.input_shape]
            jax.eval_shape(function, function.parameters, jax.ShapeDtypeStruct(shape, function.device_dtype))
        except InputError:
            refused += 1
    assert 100 < refused < 300


EXTREME = (-(2**63), -(2**31), -7, -1, 0, 1, 2, 5, 2**20, 2**31, 2**40, 2**63 - 1)
SMALL = (-3, -2, -1, 0, 1, 2, 3, 4)


def _with_another_number(model: onnx.ModelProto, numbers: tuple[int, ...], random: np.random.Generator) -> bool:
    """Change one entry of each stored vector of integers and of one attribute; False if a model has neither."""
    tensors = [one for one in model.graph.initializer if one.data_type == TensorProto.INT64]
    attributes = [one for node in model.graph.node for one in node.attribute if one.type in (one.INT, one.INTS)]
    for tensor in tensors:
        array = numpy_helper.to_array(tensor).copy()
        if array.size:
            array.flat[random.integers(array.size)] = random.choice(numbers)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for attribute in random.choice(attributes, min(1, len(attributes)), replace=False):
        if attribute.type == attribute.INT:
            attribute.i = int(random.choice(numbers))
        else:
            attribute.ints[random.integers(len(attribute.ints))] = int(random.choice(numbers))
    return bool(tensors or attributes)


@pytest.mark.parametrize("numbers", [EXTREME, SMALL], ids=["extreme", "small"])
def test_an_operator_with_other_numbers_is_refused_or_right(numbers: tuple[int, ...]) -> None:
    """No integer leads to another error, to a value that fills the memory, or to another result."""
    random = np.random.default_rng(2)
    refused = same = 0
    for one in CASES * (1 if numbers is SMALL else 3):
        operator, shape, inputs, options = one.values  # type: ignore[attr-defined]
        model = one_node(operator, shape, *inputs, **options)
        if not _with_another_number(model, numbers, random):
            continue
        try:
            function = onnx_function(model)
        except InputError:
            refused += 1
            continue
        x = floats(*shape)
        if numbers is SMALL and "auto_pad" not in options:  # the reference pools with negative pads if it is SAME
            with contextlib.suppress(InputError):  # and does not know negative pads elsewhere
                wanted = function.reference(x)
                found = np.asarray(function(function.parameters, x))
                assert found.shape == wanted.shape, model
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
                same += 1
    assert refused > 30 and (same > 30) == (numbers is SMALL)
