"""The builder of graphs: which tensors hold which parameters, what is folded into a layer, and few nodes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.importers.graph_builder import GraphBuilder, Known
from lottery_jax.importers.jax_trace import TracedModel, trace
from lottery_jax.networks.layers.graph import INPUT
from lottery_jax.networks.layers.operations import Binary, Constant, Operation, Stored
from tests.importers import image_models, other_models, sequence_models  # noqa: F401
from tests.importers.models import MODELS
from tests.importers.test_target_from import cases, pure_function

QUICK = {
    *("batch norm around a dense layer", "inverted residual block", "general linear layers", "layers in a scan"),
    *("tied weights", "weight norm", "images NCHW", "transposed convolution, stride 2", "function of a list of pairs"),
    *("attention of one fused projection", "equinox, mlp", "highway network", "convnext block", "lora layer"),
}

DERIVED = ("lora", "weight norm", "spectral norm", "weight standardisation")
"""Models whose tensors are all computed from several numbers of parameters."""


@pytest.mark.parametrize("name", cases([*MODELS], QUICK))
def test_placements_say_where_the_numbers_of_a_parameter_are(name: str) -> None:
    """A change of a parameter's numbers changes the tensors at its places by the scale, and no other tensors."""
    function, parameters, example = pure_function(MODELS[name].build(0))
    before = trace(function, parameters, example)
    random, placed = np.random.default_rng(0), set()
    for own in before.placements.values():
        if own.index is None or own.parameter in placed:
            continue
        placed.add(own.parameter)
        if not parameters:  # a function over its own weights
            continue
        parameter = parameters[own.parameter]
        change = (0.1 * random.normal(size=parameter.shape)).astype(parameter.dtype)
        after = trace(function, {**parameters, own.parameter: parameter + change}, example)
        for tensor, place in before.placements.items():
            if place.parameter == own.parameter and place.index is not None:
                wanted = place.scale * change.reshape(-1)[place.index]
                found = after.tensors[tensor].astype(np.float64) - before.tensors[tensor]
                np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=1e-3, atol=1e-5)
    assert bool(placed) != (name in DERIVED)


def graph_of(function: Any, parameters: dict[str, np.ndarray], *shape: int) -> TracedModel:
    return trace(function, parameters, jax.ShapeDtypeStruct(shape, np.float32))


def kinds(model: TracedModel) -> dict[str, str]:
    return {name: node.kind for name, node, _ in model.graph.nodes}


W = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 4)).astype(np.float32)
B = np.float32([1, -2, 3, -4])


@pytest.mark.parametrize(
    ("function", "weight", "bias"),
    [
        (lambda y, b: y + b, W, B),
        (lambda y, b: b + y, W, B),
        (lambda y, b: y - b, W, -B),
        (lambda y, b: b - y, -W, B),
        (lambda y, b: y * b, W * B, None),
        (lambda y, b: y / b, W / B, None),
        (lambda y, b: (y + b) * b, W * B, B * B),
        (lambda y, b: b - (y - b) / b, -W / B, B + 1),
        (lambda y, b: ((y * b + b) * b - b) * b, W * B**3, B**3 - B**2),
        (lambda y, b: jnp.moveaxis(y.reshape(-1, 2, 2), 1, 2) + b.reshape(2, 2).T, W, B),
    ],
)
def test_parameters_behind_a_layer_are_folded_into_it(function: Any, weight: np.ndarray, bias: Any) -> None:
    found = graph_of(lambda p, x: function(x @ p["w"], p["b"]), {"w": W, "b": B}, 6)
    np.testing.assert_allclose(found.tensors["w.weight"], weight.T, rtol=1e-6)
    assert ("w.bias" in found.tensors) == (bias is not None)
    if bias is not None:
        np.testing.assert_allclose(found.tensors["w.bias"], bias, rtol=1e-6)
        assert found.placements["w.bias"].parameter == "b"
    assert not [node for _, node, _ in found.graph.nodes if isinstance(node, Binary)]


@pytest.mark.parametrize(
    "function",
    [
        lambda y, b: jnp.tanh(y) + b,
        lambda y, b: b / y,
        lambda y, b: (y + b) * y,  # y is used twice
        lambda y, b: jnp.concatenate([y + b, y], 1),
        lambda y, b: y + 2,  # not a parameter
        lambda y, b: jnp.maximum(y, b),
        lambda y, b: y[:, :1] + b,  # one output becomes several
        lambda y, b: y.reshape(-1, 4, 1) + b,
    ],
)
def test_other_maps_stay_operations(function: Any) -> None:
    found = graph_of(lambda p, x: function(x @ p["w"], p["b"]), {"w": W, "b": B}, 6)
    np.testing.assert_array_equal(found.tensors["w.weight"], W.T)
    assert "w.bias" not in found.tensors and [node for _, node, _ in found.graph.nodes if isinstance(node, Binary)]


def test_equal_numbers_do_not_change_the_graph() -> None:
    """A position embedding of zeros, or of equal rows, is not a bias."""

    def function(p: Any, x: jax.Array) -> jax.Array:
        return x @ p["w"] + p["b"] + p["positions"]

    positions = [np.zeros((3, 4)), np.ones((3, 4)), np.random.default_rng(0).normal(size=(3, 4))]
    graphs = {
        graph_of(function, {"w": w, "b": b, "positions": np.float32(one)}, 3, 6).graph
        for one in positions
        for w, b in ((W, B), (0 * W, 0 * B), (np.ones_like(W), np.ones_like(B)))
    }
    assert len(graphs) == 1
    assert [name for name, node, _ in graphs.pop().nodes if isinstance(node, Stored)] == ["positions"]


def test_a_part_that_is_computed_twice_is_one() -> None:
    def function(p: Any, x: jax.Array) -> jax.Array:
        def gate() -> jax.Array:
            return jax.nn.sigmoid(x @ p["w"] + p["b"])

        return gate() * jnp.tanh(x[:, :4]) + (1 - gate()) * x[:, :4]

    assert sorted(kinds(graph_of(function, {"w": W, "b": B}, 6)).values()) == sorted(
        ["dense", "elementwise", "slice", "elementwise", "binary", "constant", "binary", "binary", "binary"]
    )


def test_the_tensor_names_of_a_layer_are_its_own() -> None:
    """A parameter that no layer multiplies by makes way for the tensors of the layer and of its random layers."""
    names = ("weight", "bias", "gain", "first", "other")
    parameters = {"fc.kernel": W, **{f"fc.{name}": np.float32(number) * B for number, name in enumerate(names, 1)}}

    def function(p: Any, x: jax.Array) -> jax.Array:
        y = x @ p["fc.kernel"] + p["fc.other"]
        for name in names:
            y = jnp.tanh(y) * p[f"fc.{name}"]
        return y

    found = graph_of(function, parameters, 6)
    own = {place.parameter: tensor for tensor, place in found.placements.items()}
    assert own["fc.kernel"] == "fc.weight" and found.tensors["fc.bias"].tolist() == (5 * B).tolist()
    assert set(found.tensors) == {"fc.weight", "fc.bias", *(f"fc.{name}_2" for name in names[:4]), "fc.other"}


def test_a_graph_is_small() -> None:
    """Layouts of one example cost no nodes, and constants are stored in their smallest shape."""
    function, parameters, example = pure_function(MODELS["layer norm behind a convolution"].build(0))
    found = trace(function, parameters, example)
    assert {name: found.tensors[name].shape for name in ("norm.scale", "norm.bias")} == {
        "norm.scale": (4,),
        "norm.bias": (4,),
    }
    assert "transpose" not in kinds(found).values() and "broadcast" not in kinds(found).values()
    assert not [
        name
        for name, node, inputs in found.graph.nodes
        if isinstance(node, Operation) and not inputs and name in inputs
    ]


def test_constants_are_written_once_and_as_numbers_of_python() -> None:
    build = GraphBuilder((3,))
    first, second = build.constant(Known(np.full((1, 3), 2.0))), build.constant(Known(np.float32(2)))
    assert first == second
    kept = build.constant(Known(np.arange(3.0), "a", np.arange(3)))
    assert kept == build.constant(Known(np.arange(3.0), "a", np.arange(3)))
    assert kept != build.constant(Known(np.arange(3.0), "b", np.arange(3)))
    graph, tensors, placements = build.finished(build.add(Binary("add"), build.add(Binary("mul"), INPUT, first), kept))
    assert tensors["a"].tolist() == [0, 1, 2] and placements["a"].index.tolist() == [0, 1, 2]
    assert Constant(2.0) in [node for _, node, _ in graph.nodes]
    assert all(
        type(value) is float
        for _, node, _ in graph.nodes
        for value in dataclasses.asdict(node).values()
        if node.kind == "constant"
    )
