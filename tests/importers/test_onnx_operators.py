"""Every ONNX operator as a JAX function against onnx.reference."""

import collections
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from lottery_jax.errors import InputError
from lottery_jax.importers.onnx_function import OPERATORS, onnx_function
from tests.importers.onnx_models import IMAGE, Model, assert_same, floats, ints, one_node, positive, scalar


def case(operator: str, shape: tuple[int, ...], *inputs: Any, **options: Any) -> Any:
    settings = [f"{name}={value}" for name, value in options.items()]
    return pytest.param(operator, shape, inputs, options, id=" ".join([operator, *settings]))


def both(operator: str, *inputs: Any, **options: Any) -> list[Any]:
    """An operator of each entry, on a matrix and on an image."""
    return [case(operator, shape, *inputs, **options) for shape in ((3, 5), IMAGE)]


UNARY = ("Abs", "Exp", "Neg", "Tanh", "Floor", "Ceil", "Sin", "Cos", "Identity", "Relu", "Sigmoid", "Softplus", "Erf")

CASES = [
    *[one for name in UNARY
      for one in both(name, opset=18)],
    *[case(name, (3, 5), other, opset=13) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")
      for other in (floats(3, 5), positive(5), floats(2, 1, 5))],
    case("Sub", (5,), floats(3, 5), "x"), case("Div", (3, 5), floats(3, 5), "x"),
    case("Sum", (3, 5)), case("Sum", (3, 5), floats(5), floats(3, 1)), case("Mean", (3, 5), floats(5), floats(3, 1)),
    case("Mean", (3, 5), floats(3, 5)),
    *[case("Pow", (3, 5), scalar(number)) for number in (1, 2, 3)],
    case("Pow", (3, 5), scalar(2.0).reshape(1, 1, 1)), case("Pow", (3, 5), ints(2)),
    case("Pow", (3, 5), positive(3, 5), "x"), case("Pow", (3, 5), np.float32([1, 2, 3, 4, 2])),
    *[case(name, (3, 5), number) for name in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
      for number in (scalar(0), np.zeros((3, 5), np.float32))],
    *both("IsNaN"), *both("Mish", opset=18),
    case("Where", (3, 5), np.array([True, False, True, True, False]), "x", floats(3, 5)),
    case("Where", (3, 5), np.eye(3, 5, dtype=bool), scalar(-np.inf), "x"),
    case("LeakyRelu", (3, 5)), case("LeakyRelu", (3, 5), alpha=0.3),
    case("PRelu", (3, 5), floats(5)), case("PRelu", IMAGE, floats(4, 1, 1)), case("PRelu", (3, 5), scalar(0.1)),
    case("Clip", (3, 5), scalar(-0.5), scalar(0.5)), case("Clip", (3, 5), None, scalar(0.5)), case("Clip", (3, 5)),
    case("Clip", (3, 5), min=0.0, max=6.0, opset=9), case("Clip", (3, 5), min=0.0, opset=9),
    case("HardSigmoid", (3, 5)), case("HardSigmoid", (3, 5), alpha=0.7, beta=0.1),
    *both("HardSwish"), case("Elu", (3, 5)), case("Elu", (3, 5), alpha=0.5), case("Selu", (3, 5)),
    case("Selu", (3, 5), alpha=1.5, gamma=2.0), case("Celu", (3, 5)), case("Celu", (3, 5), alpha=0.5),
    case("Gelu", (3, 5), opset=20), case("Gelu", (3, 5), approximate="tanh", opset=20),
    *[case(name, (2, 3, 4), axis=axis, opset=opset) for name in ("Softmax", "LogSoftmax")
      for axis, opset in ((-1, 13), (1, 13), (-1, 9), (2, 11))],
    case("Softmax", (2, 3, 5)), case("LogSoftmax", (3, 4), opset=11),
    *[case("Conv", IMAGE, *inputs, **options) for inputs, options in [
        ((floats(3, 4, 3, 3),), {}),
        ((floats(3, 4, 3, 3), floats(3)), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ((floats(8, 1, 3, 2), floats(8)), {"group": 4, "dilations": [2, 3], "kernel_shape": [3, 2]}),
        ((floats(6, 2, 3, 3),), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((floats(3, 4, 2, 2),), {"auto_pad": "SAME_LOWER"}),
        ((floats(3, 4, 2, 2),), {"auto_pad": "VALID", "strides": [3, 2]}),
    ]],
    case("Conv", (2, 3, 9), floats(4, 3, 3), floats(4), pads=[2, 1], strides=[2]),
    case("Conv", (2, 4, 9), floats(4, 1, 3), group=4, dilations=[2]),
    *[case("ConvTranspose", IMAGE, *inputs, **options) for inputs, options in [
        ((floats(4, 3, 3, 3),), {}),
        ((floats(4, 3, 3, 2), floats(3)), {"strides": [2, 3], "pads": [1, 0, 1, 1], "output_padding": [1, 0]}),
        ((floats(4, 3, 2, 2),), {"dilations": [2, 1], "strides": [2, 2]}),
        ((floats(4, 3, 3, 2), floats(6)), {"group": 2, "strides": [2, 2], "pads": [1, 0, 1, 1]}),
        ((floats(4, 1, 3, 3),), {"group": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ]],
    case("ConvTranspose", (2, 3, 5), floats(3, 2, 4), strides=[2], pads=[1, 1]),
    case("Gemm", (3, 5), floats(5, 2)), case("Gemm", (3, 5), floats(2, 5), floats(2), transB=1),
    case("Gemm", (5, 3), floats(5, 2), floats(3, 1), transA=1, alpha=0.5, beta=2.0),
    case("Gemm", (3, 5), floats(5, 2), scalar(2), beta=0.5), case("Gemm", (3, 5), floats(2, 3), "x"),
    case("MatMul", (3, 5), floats(5, 2)), case("MatMul", (2, 3, 5), floats(5, 2)), case("MatMul", (5,), floats(5)),
    case("MatMul", (3, 5), floats(2, 4, 3), "x"), case("MatMul", (2, 1, 3, 5), floats(4, 5, 3)),
    case("Einsum", (2, 3, 5), floats(4, 5), equation="bij,kj->bik"), case("Einsum", (3, 3), equation="ii->i"),
    case("BatchNormalization", IMAGE, floats(4), floats(4), floats(4), positive(4)),
    case("BatchNormalization", (3, 5), floats(5), floats(5), floats(5), positive(5), epsilon=0.1, opset=9),
    case("LayerNormalization", (2, 3, 5), floats(5), floats(5)),
    case("LayerNormalization", (2, 3, 5), floats(3, 5), axis=1, epsilon=0.1),
    case("RMSNormalization", (2, 3, 5), floats(5), opset=23),
    case("RMSNormalization", (2, 3, 5), floats(3, 5), axis=-2, epsilon=0.1, opset=23),
    case("InstanceNormalization", IMAGE, floats(4), floats(4)),
    case("InstanceNormalization", (2, 3, 9), floats(3), floats(3), epsilon=0.1),
    case("GroupNormalization", IMAGE, floats(4), floats(4), num_groups=2, epsilon=0.1, opset=21),
    case("GroupNormalization", IMAGE, floats(4), floats(4), num_groups=4, opset=21),
    *[case(name, IMAGE, kernel_shape=[3, 2], **options) for name in ("MaxPool", "AveragePool") for options in [
        {}, {"strides": [2, 2], "pads": [1, 0, 1, 1]}, {"dilations": [2, 1], "opset": 19},
        {"auto_pad": "SAME_UPPER", "strides": [2, 1]}, {"auto_pad": "VALID"}, {"strides": [2, 2], "ceil_mode": 1},
    ] if not (name == "AveragePool" and "ceil_mode" in options)],
    case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
    case("MaxPool", (2, 3, 9), kernel_shape=[4], strides=[3], ceil_mode=1),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    case("AveragePool", (2, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 1]),
    *[case(name, shape) for name in ("GlobalAveragePool", "GlobalMaxPool") for shape in (IMAGE, (2, 3, 5, 1))],
    case("GlobalAveragePool", (2, 3, 9)), case("GlobalMaxPool", (2, 3, 9)),
    *[case(f"Reduce{name}", (2, 3, 4), axes=axes, keepdims=keepdims, opset=11) for name in
      ("Mean", "Sum", "Max", "Min", "L2", "Prod") for axes, keepdims in (([1], 1), ([0, -1], 0))],
    *[case(f"Reduce{name}", (2, 3, 4), ints(-1), keepdims=0, opset=18) for name in ("Mean", "Sum", "Max", "Min", "L2")],
    case("ReduceMean", (2, 3), opset=18), case("ReduceSum", (2, 3), noop_with_empty_axes=1),
    *[case("Reshape", (2, 3, 4), ints(*sizes), **options) for sizes, options in
      (((0, -1), {}), ((4, 6), {}), ((2, 0, 2, 2), {}), ((-1,), {}), ((6, 4), {"allowzero": 1}))],
    *[case("Flatten", (2, 3, 4), axis=axis) for axis in (0, 1, 2, 3, -1)],
    case("Transpose", (2, 3, 4)), case("Transpose", (2, 3, 4), perm=[1, 2, 0]),
    case("Squeeze", (2, 1, 3, 1), ints(1)), case("Squeeze", (2, 1, 3, 1)),
    case("Squeeze", (2, 1, 3), axes=[1], opset=9),
    case("Unsqueeze", (2, 3), ints(0, -1)), case("Unsqueeze", (2, 3), axes=[1, 2], opset=9),
    case("Concat", (2, 3), "x", floats(2, 3), "x", axis=0), case("Concat", (2, 3), "x", floats(2, 1), axis=-1),
    case("Split", (2, 6), axis=1, outputs=3), case("Split", (2, 6), ints(1, 5), axis=-1, outputs=2),
    case("Split", (2, 6), split=[4, 2], axis=1, outputs=2, opset=11),
    case("Split", (2, 7), axis=1, num_outputs=3, outputs=3, opset=18),
    *[case("Slice", (5, 6), *(ints(*one) for one in given)) for given in [
        ((1,), (4,)), ((1, -3), (2**63 - 1, -1)), ((-1,), (-(2**63),), (1,), (-1,)), ((4, 0), (0, 6), (0, -1), (-2, 3)),
        ((0,), (100,), (-2,)), ((-100,), (3,)), ((3,), (-100,), (0,), (-2,)),
    ]],
    case("Slice", (5, 6), starts=[1, 0], ends=[4, -1], opset=9),
    case("Slice", (5, 6), starts=[2], ends=[5], axes=[1], opset=9),
    case("Pad", (3, 4), ints(1, 0, 0, 2)), case("Pad", (3, 4), ints(1, 2, 0, 0), scalar(1.5)),
    case("Pad", (3, 4), ints(1, 2), scalar(0), ints(-1), opset=18), case("Pad", (3, 4), ints(1, 2, 1, 1), mode="edge"),
    case("Pad", (3, 4), ints(1, 2, 1, 1), mode="reflect"), case("Pad", (3, 4), pads=[0, 1, 0, 1], value=2.0, opset=9),
    case("Pad", (3, 4), ints(1, 2, 1, 1), mode="wrap", opset=19), case("Pad", (3, 4), ints(0, 0, 0, 0)),
    case("Expand", (3, 1), ints(2, 1, 4)), case("Expand", (3, 1), ints(1)),
    case("Tile", (2, 3), ints(2, 1)), case("Tile", (2, 3), ints(1, 3)),
    case("Gather", (3, 5), np.asarray(-1), axis=0), case("Gather", (3, 5), ints(0, -2, 3), axis=1),
    case("Gather", (3, 5), np.array([[0, 1], [2, 0]]), axis=-1),
    case("Trilu", (4, 5)), case("Trilu", (4, 5), np.asarray(-1), upper=0),
    case("Cast", (3, 5), to=TensorProto.FLOAT), case("Cast", (3, 5), to=TensorProto.DOUBLE),
    case("CastLike", (3, 5), scalar(1)), case("CastLike", (3, 5), scalar(0.5), "x"),
    case("Dropout", (3, 5), ratio=0.5, opset=9), case("Dropout", (3, 5), scalar(0.5), np.asarray(False), opset=13),
    case("Resize", IMAGE, None, np.float32([1, 1, 2, 3]), mode="nearest", opset=13),
    case("Resize", IMAGE, None, None, ints(2, 4, 14, 18), mode="nearest", coordinate_transformation_mode="asymmetric",
         nearest_mode="floor", opset=13),
    case("Upsample", IMAGE, np.float32([1, 1, 2, 3]), mode="nearest", opset=9),
    case("Upsample", (2, 3, 4), np.float32([1, 1, 2]), opset=9),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "shape", "inputs", "options"), CASES)
def test_an_operator_is_that_of_the_reference(operator: str, shape: Any, inputs: Any, options: Any) -> None:
    assert_same(one_node(operator, shape, *inputs, **options), floats(*shape))


@pytest.mark.parametrize("operator", ["Sqrt", "Log", "Reciprocal"])
@pytest.mark.parametrize("shape", [(3, 5), IMAGE])
def test_an_operator_of_positive_entries(operator: str, shape: tuple[int, ...]) -> None:
    assert_same(one_node(operator, shape), positive(*shape))


def test_every_operator_has_at_least_two_settings() -> None:
    counts = collections.Counter(one.values[0] for one in CASES)  # type: ignore[attr-defined]
    counts.update(dict.fromkeys(("Sqrt", "Log", "Reciprocal"), 2))
    assert {name for name in OPERATORS if counts[name] < 2} == set(HOST)


HOST: dict[str, list[Callable[[Model], str]]] = {
    "Shape": [lambda m: m.add("Shape", "x"), lambda m: m.add("Shape", "x", start=1, end=-1)],
    "Size": [lambda m: m.add("Size", "x"), lambda m: m.add("Size", m.add("Shape", "x"))],
    "Range": [
        lambda m: m.add("Range", np.asarray(0), m.add("Size", "x"), np.asarray(5)),
        lambda m: m.add("Range", scalar(2), scalar(-1), scalar(-0.75)),
    ],
    "ConstantOfShape": [
        lambda m: m.add("ConstantOfShape", m.add("Shape", "x")),
        lambda m: m.add("ConstantOfShape", ints(2, 1), value=numpy_helper.from_array(ints(7))),
        lambda m: m.add("ConstantOfShape", np.zeros(0, np.int64), value=numpy_helper.from_array(np.float32([-1]))),
    ],
    "Mod": [
        lambda m: m.add("Mod", ints(7, -7, 7, -7), ints(3, 3, -3, -3)),
        lambda m: m.add("Mod", m.add("Shape", "x"), ints(2)),
    ],
    "And": [lambda m: m.add("And", m.add("Less", m.add("Shape", "x"), ints(3)), np.array([True, True, False]))] * 2,
    "Or": [lambda m: m.add("Or", m.add("Equal", m.add("Shape", "x"), ints(3)), np.array([True, False, False]))] * 2,
    "Not": [
        lambda m: m.add("Not", m.add("Greater", m.add("Shape", "x"), ints(2))),
        lambda m: m.add("Not", np.array([True])),
    ],
}
"""Operators of shapes and indices: a function that adds one to a model, and gives the name of its value."""


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name, built in HOST.items() for index in range(len(built))]
)
def test_an_operator_of_shapes_is_known_when_tracing(name: str, index: int) -> None:
    model = Model()
    value = HOST[name][index](model)
    size = model.add("Reshape", model.add("Cast", value, to=TensorProto.INT64), ints(-1))
    total = model.add("ReduceSum", model.add("Cast", size, to=TensorProto.FLOAT))
    # The values are also the sizes of an axis, so that a traced one fails.
    repeated = model.add("ConstantOfShape", model.add("Abs", model.add("Slice", size, ints(0), ints(2))))
    output = model.add("Add", model.add("Mul", model.add("ReduceMean", "x"), total), model.add("ReduceSum", repeated))
    assert_same(model.model(output, (2, 3, 4)), floats(2, 3, 4))


def test_integers_are_divided_towards_zero_and_cast_by_truncation() -> None:
    model = Model()
    quotient = model.add("Div", ints(7, -7, 7, -7), ints(2, 2, -2, -2))
    whole = model.add("Cast", np.float32([1.7, -1.7, 0.2, -0.2]), to=TensorProto.INT64)
    both = model.add("Cast", model.add("Concat", quotient, whole, axis=0), to=TensorProto.FLOAT)
    function = assert_same(model.model(model.add("Add", "x", both), (8,)), floats(8))
    assert np.asarray(function(function.parameters, np.zeros(8))).tolist() == [3, -3, -3, 3, 1, -1, 0, 0]


@pytest.mark.parametrize("opset", [11, 13])
def test_batch_normalisation_of_every_opset_is_in_evaluation_mode(opset: int) -> None:
    tensors = (floats(4), floats(4), floats(4), positive(4))
    function = assert_same(one_node("BatchNormalization", IMAGE, *tensors, opset=opset), floats(*IMAGE))
    x, (scale, bias, mean, variance) = floats(*IMAGE), (one[:, None, None] for one in tensors)
    wanted = (x - mean) / np.sqrt(variance + 1e-5) * scale + bias
    np.testing.assert_allclose(function(function.parameters, x), wanted, rtol=1e-4, atol=1e-5)


def test_resize_of_opset_10_repeats_entries() -> None:
    """The reference cannot run it."""
    x = floats(2, 3, 4, 5)
    function = onnx_function(one_node("Resize", x.shape, np.float32([1, 1, 2, 3]), mode="nearest", opset=10))
    assert np.array_equal(function(function.parameters, x), x.repeat(2, axis=2).repeat(3, axis=3))
    with pytest.raises(InputError, match=r"must run in onnx.reference, with which the import is compared, got: "):
        function.reference(x)
