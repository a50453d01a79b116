"""ONNX models as JAX functions: whole networks, parameters, and parameters back into the file."""

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
from lottery_jax.importers.onnx_model import save_onnx, with_parameters
from lottery_jax.importers.torch_export import is_torch_module, torch_function
from tests.importers import onnx_models
from tests.importers.onnx_models import RANDOM, Model, assert_same, floats


@pytest.mark.parametrize("network", onnx_models.NETWORKS, ids=lambda network: network.__name__)
def test_a_network_is_that_of_the_reference(network: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = network()
    dims = [one.dim_value or 3 for one in model.graph.input[0].type.tensor_type.shape.dim]
    function = assert_same(model, floats(*dims))
    assert_same(model, floats(1, *dims[1:]))
    assert function.input_shape[0] is None and function.notes == ()
    stored = {one.name for one in model.graph.initializer if one.data_type == TensorProto.FLOAT}
    assert set(function.parameters) == stored
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    loaded = onnx_function(tmp_path / "net.onnx")
    x = floats(2, *dims[1:])
    assert np.array_equal(loaded(loaded.parameters, x), function(function.parameters, x))


def test_parameters_are_differentiable_and_mapped_over() -> None:
    function = onnx_function(onnx_models.residual_network())
    x = floats(2, 3, 16, 16)
    gradients = jax.grad(lambda parameters: function(parameters, x).sum())(function.parameters)
    assert all(np.any(gradients[name] != 0) for name in function.parameters if "running" not in name)
    mapped = jax.vmap(lambda one: function(function.parameters, one[None])[0])(x)
    np.testing.assert_allclose(mapped, function(function.parameters, x), rtol=1e-4, atol=1e-5)


def test_tokens_choose_rows_of_an_embedding() -> None:
    model = Model()
    rows = model.add("Gather", model.weight("embedding", 10, 4), "x")
    mean = model.add("ReduceMean", model.add("MatMul", rows, model.weight("head", 4, 3)), axes=[1], keepdims=0)
    function = onnx_function(model.model(mean, ("batch", 6), dtype=TensorProto.INT64))
    tokens = RANDOM.integers(0, 10, (3, 6))
    found = jax.jit(function)(function.parameters, tokens)
    np.testing.assert_allclose(found, function.reference(tokens), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="must hold integers, got float32"):
        function(function.parameters, tokens.astype(np.float32))


def test_parameters_are_initialisers_and_constants_with_axes() -> None:
    model = Model()
    shared = model.add("Identity", model.weight("w", 4, 4))
    matrix = helper.make_node("Constant", [], ["matrix"], value=numpy_helper.from_array(floats(4, 4), ""))
    vector = helper.make_node("Constant", [], ["vector"], value_floats=[1.0, 2.0, 3.0, 4.0])
    half = helper.make_node("Constant", [], ["half"], value_float=0.5)
    model.nodes = [matrix, vector, half, *model.nodes]
    x = model.add("MatMul", model.add("MatMul", model.add("MatMul", "x", "w"), shared), "matrix")
    built = model.model(model.add("Mul", model.add("Add", x, "vector"), "half"), ("n", 4))
    function = assert_same(built, floats(3, 4))
    assert sorted(function.parameters) == ["matrix", "vector", "w"]
    values = {name: value + 1 for name, value in function.parameters.items()}
    changed = onnx_function(with_parameters(built, values))
    assert all(np.array_equal(changed.parameters[name], value) for name, value in values.items())
    x = floats(3, 4)
    np.testing.assert_allclose(changed.reference(x), function(values, x), rtol=1e-5, atol=1e-5)
    assert np.array_equal(function.parameters["w"] + 1, values["w"]), "the model is copied"


@pytest.mark.parametrize(("data_type", "name"), [(10, "float16"), (11, "float64"), (16, "bfloat16")])
def test_other_floats_are_computed_in_float32(data_type: int, name: str) -> None:
    model = onnx_models.mlp()
    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(TensorProto(name=tensor.name, data_type=data_type, dims=array.shape, raw_data=array.tobytes()))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = data_type
    function = onnx_function(model)
    (note,) = function.notes
    assert note == f"the ONNX model has 4 tensors and 0 casts of {name}, computed in float32."
    assert {value.dtype for value in function.parameters.values()} == {np.dtype(np.float32)}
    x = floats(2, 3, 4)
    wanted = (
        function.reference(x).astype(np.float32)
        if name != "bfloat16"
        else onnx_function(onnx_models.mlp()).reference(x)
    )
    np.testing.assert_allclose(function(function.parameters, x), wanted, rtol=5e-2, atol=5e-2)
    assert with_parameters(model, function.parameters).SerializeToString() == model.SerializeToString()
    if name != "float64":
        with pytest.raises(InputError, match=rf"'fc1.bias' must have the shape \[16\] and values of {name}"):
            with_parameters(model, {"fc1.bias": function.parameters["fc1.bias"] * np.float32(1.0001)})


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    model = onnx_models.residual_network()
    values = {name: np.zeros_like(value) for name, value in onnx_function(model).parameters.items() if "fc" in name}
    save_onnx(with_parameters(model, values), tmp_path / "out.onnx")
    assert np.all(onnx_function(tmp_path / "out.onnx").reference(floats(2, 3, 16, 16)) == 0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"fc1.wieght": floats(16, 12)},
            "parameters must be tensors of the ONNX model, got 'fc1.wieght': did you mean",
        ),
        ({"fc1.bias": floats(15)}, r"must have the shape \[16\] and values of float32, got \[15\] of float32"),
        ({"fc1.bias": np.zeros(16)}, "values of float32, got .* of float64"),
        ({"fc1.bias": np.zeros(16, np.int64)}, "values of float32, got .* of int64"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        with_parameters(onnx_models.mlp(), values)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["TorchScript", "dynamo"])
@pytest.mark.parametrize("kind", ["convolutions", "transformer", "shared", "transposed"])
def test_a_pytorch_module_is_its_function(kind: str, exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
        export = torch.onnx.export

        def only_dynamo(*arguments: Any, dynamo: bool, **options: Any) -> Any:
            assert dynamo
            return export(*arguments, dynamo=dynamo, **options)

        monkeypatch.setattr(torch.onnx, "export", only_dynamo)
    layers = torch.nn

    class Shared(layers.Module):
        """One layer under two names, and two layers with equal weights."""

        def __init__(self) -> None:
            super().__init__()
            self.first = self.again = layers.Linear(4, 4)
            self.norm, self.last = layers.LayerNorm(4), layers.LayerNorm(4)

        def forward(self, x: Any) -> Any:
            return self.last(self.again(self.norm(self.first(x)).relu()))

    torch.manual_seed(0)
    module, shape = {
        "convolutions": lambda: (
            layers.Sequential(
                layers.Conv2d(3, 8, 3, padding=1, bias=False), layers.BatchNorm2d(8), layers.Hardswish(),
                layers.Conv2d(8, 8, 3, groups=8, dilation=2, padding=2), layers.BatchNorm2d(8), layers.SiLU(),
                layers.MaxPool2d(3, 2, ceil_mode=True), layers.GroupNorm(2, 8), layers.AdaptiveAvgPool2d(1),
                layers.Flatten(), layers.Linear(8, 5), layers.GELU(), layers.Dropout(), layers.LogSoftmax(dim=1),
            ),
            (2, 3, 16, 16),
        ),
        "transformer": lambda: (
            layers.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu"), (2, 5, 16)
        ),
        "shared": lambda: (Shared(), (2, 4)),
        "transposed": lambda: (
            layers.Sequential(
                layers.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
                layers.InstanceNorm2d(6, affine=True),
                layers.Upsample(scale_factor=2), layers.PReLU(),
                layers.AvgPool2d(3, 2, padding=1), layers.Softplus(), layers.Mish(),
            ),
            (2, 4, 5, 5),
        ),
    }[kind]()  # fmt: skip
    for parameter in module.parameters():  # those of normalisation are equal at first
        if kind != "shared":
            layers.init.normal_(parameter, 0.5, 0.5)
    x = floats(*shape)
    assert is_torch_module(module) and not is_torch_module(x)
    with pytest.raises(InputError, match=r"must be in evaluation mode, got training mode. Call model.eval"):
        torch_function(module, x)
    function = torch_function(module.eval(), x)
    for batch in (x, floats(3, *shape[1:])):
        with torch.no_grad():
            wanted = module(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(function(function.parameters, batch), wanted, rtol=1e-4, atol=1e-5)
    state = {name: value for name, value in module.state_dict().items() if "num_batches" not in name}
    named = {name for name in function.parameters if name in state}
    assert all(np.array_equal(function.parameters[name], state[name]) for name in named)
    assert {state[name].data_ptr() for name in named} == {value.data_ptr() for value in state.values()}


@pytest.mark.slow
def test_a_pytorch_module_that_cannot_be_exported_is_refused() -> None:
    torch = pytest.importorskip("torch")

    class Failing(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            raise RuntimeError("of its own")

    with pytest.raises(InputError, match=r"must be exported by torch.onnx.export, got: of its own. Export it to"):
        torch_function(Failing().eval(), floats(2, 3))
