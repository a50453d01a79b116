"""ONNX models for the tests: one node, whole networks as exporters write them, and their check."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lottery_jax.importers.onnx_function import OnnxFunction, onnx_function

COMPARISONS = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "IsNaN")

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.2, 2, shape).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def scalar(number: float) -> np.ndarray:
    return np.float32(number)


IMAGE = (2, 4, 7, 6)

Given = np.ndarray | str | None
"""An input of a node: a stored tensor, the name of a value, or none."""


class Model:
    """Nodes are added one by one; names of tensors are chosen by the caller or counted."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, np.ndarray] = {}

    def stored(self, array: np.ndarray, name: str | None = None) -> str:
        name = name or f"tensor{len(self.tensors)}"
        self.tensors[name] = np.asarray(array)
        return name

    def weight(self, name: str, *shape: int) -> str:
        return self.stored((self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name)

    def add(self, operator: str, *inputs: Given, outputs: int = 1, **attributes: Any) -> Any:
        names = ["" if one is None else one if isinstance(one, str) else self.stored(one) for one in inputs]
        found = [f"value{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, names, found, name=f"/{operator}_{len(self.nodes)}", **attributes))
        return found[0] if outputs == 1 else found

    def model(
        self,
        output: str,
        shape: Sequence[int | str | None],
        *,
        opset: int = 17,
        dtype: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("x", dtype, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.tensors.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        model = onnx.shape_inference.infer_shapes(model)
        if not model.graph.output[0].type.tensor_type.HasField("shape"):  # not inferred; the checker wants any
            model.graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
        onnx.checker.check_model(model)
        return model


def one_node(
    operator: str, shape: Sequence[int | None], *inputs: Given, opset: int = 17, outputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """A node of the input and stored tensors; "x" among the inputs is the input, which is the first one by default."""
    built = Model()
    found = built.add(
        operator,
        *(inputs if any(isinstance(one, str) for one in inputs) else ("x", *inputs)),
        outputs=outputs,
        **attributes,
    )
    output = found if outputs == 1 else built.add("Concat", *found, axis=-1)
    # A boolean or double becomes an output of floats.
    output = built.add("Cast", output, to=TensorProto.FLOAT) if operator in (*COMPARISONS, "Cast") else output
    return built.model(output, shape, opset=opset)


def mlp() -> onnx.ModelProto:
    """Gemm and ReLU, as PyTorch exports ``nn.Linear``."""
    built = Model()
    x = built.add("Flatten", "x")
    x = built.add(
        "Relu", built.add("Gemm", x, built.weight("fc1.weight", 16, 12), built.weight("fc1.bias", 16), transB=1)
    )
    x = built.add("Gemm", x, built.weight("fc2.weight", 5, 16), built.weight("fc2.bias", 5), transB=1)
    return built.model(x, ("batch", 3, 4))


def _batch_norm(built: Model, x: str, name: str, channels: int) -> str:
    tensors = [built.weight(f"{name}.{part}", channels) for part in ("weight", "bias", "running_mean")]
    variance = built.stored(built.random.uniform(0.5, 2, channels).astype(np.float32), f"{name}.running_var")
    return built.add("BatchNormalization", x, *tensors, variance)


def residual_network() -> onnx.ModelProto:
    """A CNN with batch normalisation, a residual block with a projection, and pooling."""
    built = Model()
    x = built.add("Conv", "x", built.weight("conv1.weight", 8, 3, 3, 3), pads=[1, 1, 1, 1])
    x = built.add("Relu", _batch_norm(built, x, "bn1", 8))
    x = built.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = built.add("Conv", x, built.weight("block.conv1.weight", 16, 8, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    y = built.add("Relu", _batch_norm(built, y, "block.bn1", 16))
    y = built.add("Conv", y, built.weight("block.conv2.weight", 16, 16, 3, 3), pads=[1, 1, 1, 1])
    short = built.add("Conv", x, built.weight("block.down.weight", 16, 8, 1, 1), strides=[2, 2])
    x = built.add("Relu", built.add("Add", _batch_norm(built, y, "block.bn2", 16), short))
    x = built.add("Flatten", built.add("GlobalAveragePool", x))
    x = built.add("Gemm", x, built.weight("fc.weight", 5, 16), built.weight("fc.bias", 5), transB=1)
    return built.model(x, ("batch", 3, 16, 16))


def inverted_residual() -> onnx.ModelProto:
    """Expansion, depthwise convolution, squeeze and excitation, projection: a block of MobileNetV3."""
    built = Model()
    x = built.add(
        "HardSwish", _batch_norm(built, built.add("Conv", "x", built.weight("expand", 16, 4, 1, 1)), "bn", 16)
    )
    x = built.add("Conv", x, built.weight("depthwise", 16, 1, 5, 5), group=16, pads=[2, 2, 2, 2])
    x = built.add("Clip", x, np.float32(0), np.float32(6))
    gate = built.add("ReduceMean", x, axes=[2, 3], keepdims=1)
    gate = built.add(
        "Relu", built.add("Conv", gate, built.weight("fc1.weight", 4, 16, 1, 1), built.weight("fc1.bias", 4))
    )
    gate = built.add("Conv", gate, built.weight("fc2.weight", 16, 4, 1, 1), built.weight("fc2.bias", 16))
    x = built.add("Mul", x, built.add("HardSigmoid", gate, alpha=1 / 6))
    x = built.add("Add", "x", built.add("Conv", x, built.weight("project", 4, 16, 1, 1)))
    return built.model(x, ("batch", 4, 8, 8))


def attention_block() -> onnx.ModelProto:
    """A transformer's block as PyTorch exports it: sizes are read from the shape, weights transposed in the graph."""
    built = Model()
    entry = {name: built.stored(np.asarray(number, np.int64)) for name, number in (("0", 0), ("1", 1))}

    def linear(x: str, name: str, outputs: int, inputs: int) -> str:
        product = built.add("MatMul", x, built.add("Transpose", built.weight(f"{name}.weight", outputs, inputs)))
        return built.add("Add", built.weight(f"{name}.bias", outputs), product)

    def norm(x: str, name: str) -> str:
        return built.add("LayerNormalization", x, built.weight(f"{name}.weight", 8), built.weight(f"{name}.bias", 8))

    def sizes(*parts: str | int) -> str:
        ends = [np.array([part], np.int64) if isinstance(part, int) else part for part in parts]
        return built.add("Concat", *ends, axis=0)

    length = built.add("Gather", built.add("Shape", "x"), entry["1"], axis=0)
    batch = built.add("Gather", built.add("Shape", "x"), entry["0"], axis=0)
    batch, length = (built.add("Unsqueeze", one, np.array([0], np.int64)) for one in (batch, length))
    heads = []
    for name, part in zip(
        "qkv", built.add("Split", linear(norm("x", "n1"), "qkv", 24, 8), axis=-1, outputs=3), strict=True
    ):
        split = built.add("Reshape", part, sizes(batch, length, 2, 4))
        heads.append(built.add("Transpose", split, perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]))
    width = built.add(
        "Cast", built.add("Slice", built.add("Shape", heads[0]), *(np.array([n]) for n in (-1, 2**63 - 1))), to=1
    )
    scores = built.add("Div", built.add("MatMul", heads[0], heads[1]), built.add("Sqrt", width))
    mixed = built.add("MatMul", built.add("Softmax", scores, axis=-1), heads[2])
    joined = built.add("Reshape", built.add("Transpose", mixed, perm=[0, 2, 1, 3]), sizes(batch, length, 8))
    x = built.add("Add", "x", linear(joined, "out", 8, 8))
    hidden = linear(norm(x, "n2"), "up", 16, 8)
    half = built.add("Add", built.add("Erf", built.add("Div", hidden, np.float32(np.sqrt(2)))), np.float32(1))
    hidden = built.add("Mul", built.add("Mul", hidden, half), np.float32(0.5))
    return built.model(built.add("Add", x, linear(hidden, "down", 8, 16)), ("batch", "length", 8))


NETWORKS = (mlp, residual_network, inverted_residual, attention_block)


def assert_same(model: onnx.ModelProto, x: np.ndarray) -> OnnxFunction:
    """The function equals the reference with traced parameters, and traces with constant ones."""
    function = onnx_function(model)
    wanted = function.reference(x)
    found = np.asarray(jax.jit(function)(function.parameters, x))
    assert found.shape == wanted.shape and found.dtype == np.float32
    assert np.all(np.isfinite(wanted) == np.isfinite(found))
    scale = max(1.0, float(np.max(np.abs(wanted), initial=0, where=np.isfinite(wanted))))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * scale * 0.3)
    traced = jax.make_jaxpr(lambda x: function(function.parameters, x))(x)
    assert traced.out_avals[0].shape == wanted.shape
    return function
