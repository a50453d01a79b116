"""The weights that go out of a ticket: a plain network with them computes what the masked random network computes."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import sparse

from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import TensorFile, read_array
from lottery_jax.networks.forward import forward
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import Graph
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.layers.operations import Binary, Elementwise
from lottery_jax.networks.layers.pooling import Flatten, GlobalPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.sources.trained_layer import PartlyTrainedLayer, TrainedLayer
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.export import export_weights
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket, make_ticket
from tests.constructions.catalogue import COVERED, TARGETS, random_target

NORMAL = Sampler.normal(0.5)
LAYERS: dict[str, Callable[[LinearLayer], Node]] = {
    "random": lambda layer: RandomLayer(layer, NORMAL, gain=0.75),
    "several levels": lambda layer: MultiLevelLayer(layer, NORMAL, (1.0, -1.0, 0.5), gain=1.5),
    "gadget without ReLU": lambda layer: Gadget(layer, 4, NORMAL, NORMAL, relu=False, gain=0.5),
    "gadget": lambda layer: Gadget(layer, 4, NORMAL, NORMAL, gain=0.5),
    "trained": lambda layer: TrainedLayer(layer, NORMAL),
    "partly trained": lambda layer: PartlyTrainedLayer(layer, NORMAL),
}
"""The layers of learned masks."""


def learned(layer: Callable[[LinearLayer], Node], network: Network) -> Network:
    """A source of learned masks for a network."""
    return network.map_layers(lambda path, node: layer(node) if isinstance(node, LinearLayer) else node)


def constructed(name: str, target: Target) -> Network:
    """The source of a construction for a target."""
    construction = COVERED[name].construction
    return construction.source(construction.prepare(COVERED[name].takes(target)))


def graph() -> Target:
    """A dilated convolution with SiLU, a mean over positions and a dense layer, as a graph."""
    conv = Conv(2, 4, (2, 2), dilation=(2, 1), bias=True)
    gate = ("gate", Elementwise("logistic"), ("conv",)), ("silu", Binary("mul"), ("conv", "gate"))
    nodes = ("conv", conv, ("input",)), *gate, ("pool", GlobalPool(), ("silu",)), ("fc", Dense(4, 3), ("pool",))
    return random_target(Network(Graph(nodes, "fc"), Spec((5, 4, 2))))


SOURCES: dict[str, Callable[[], Network]] = {"scalar, graph": lambda: constructed("scalar", graph())}
for of, make in (TARGETS | {"graph": graph}).items():
    for name, entry in COVERED.items():
        if of != "graph" and of not in entry.refusals:
            SOURCES[f"{name}, {of}"] = lambda name=name, make=make: constructed(name, make())
    for name, layer in LAYERS.items() if of != "bag" else ():
        SOURCES[f"{name}, {of}"] = lambda layer=layer, make=make: learned(layer, fold_batch_norm(make()).network)


def masked(source: Network, seed: int = 3) -> Ticket:
    """A ticket of random masks."""
    random = np.random.default_rng(seed)
    masks = {name: random.random(tensor.shape) < 0.5 for name, tensor in source.random_tensors.items()}
    stored = {name: random.uniform(0.1, 1, shape).astype(np.float32) for name, shape in source.tensors.items()}
    for name, own in source.frozen_tensors.items():
        masks[own] &= ~masks[name]
    return make_ticket(source, seed=seed, masks=masks, method="random", stored=stored)


def slow_if_large(label: str) -> Any:
    """A source, slow if it is large and another source with the same layers is in the fast tests."""
    name, _, of = label.partition(", ")
    large = of.startswith(("residual", "transformer", "rotations")) and name not in ("scalar", "random", "trained")
    return pytest.param(label, marks=pytest.mark.slow if large else ())


@pytest.mark.parametrize("of", [slow_if_large(label) for label in SOURCES])
def test_a_plain_network_with_the_weights_computes_what_the_ticket_computes(of: str) -> None:
    """Or the weights are refused, because a target weight has several; their mean is that of all of them."""
    ticket = masked(SOURCES[of]())
    plain, weights, refused = ticket.network.target, {}, []
    every = effective_weights(ticket)
    for name, shape in plain.tensors.items():
        try:
            weights[name] = ticket.weights(name)
        except InputError as error:
            assert f"mean must be True for {name!r}" in str(error)
            refused.append(name)
        else:
            assert weights[name].dtype == np.float32 and weights[name].shape == shape
        mean = ticket.weights(name, mean=True)
        if name in every:
            np.testing.assert_array_equal(mean, every[name].mean(0).astype(np.float32))
        else:
            np.testing.assert_array_equal(mean, ticket.stored[name])
    signs = {}
    for path, source in ticket.network.sources.items():
        copied = source.effective_layer != source.layer
        for own in source.layer.tensors():
            several = len(source.input_signs(own, ticket.network.input_spec_of(path))) > 1
            signs[f"{path}.{own}" if own and path else path or own] = several or copied
    assert set(refused) == {name for name, several in signs.items() if several}
    if not refused and plain.input_spec is not None:
        low = 0.0 if plain.input_spec.nonnegative else -1.0
        x = np.random.default_rng(5).uniform(low, 1, (4, *plain.input_spec.shape)).astype(np.float32)
        wanted = np.asarray(ticket.module()(jnp.asarray(x)))  # type: ignore[operator]
        made = np.asarray(forward(plain, weights)(jnp.asarray(x)))
        np.testing.assert_allclose(made, wanted, rtol=0, atol=2e-5 * max(float(np.abs(wanted).max()), 1.0))


def images() -> tuple[Network, Ticket]:
    """A network of a strided convolution with groups, a flattening and a dense layer, and a ticket of random masks."""
    conv = Conv(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=True)
    nodes = (("conv", conv), ("relu", Relu()), ("flatten", Flatten()), ("fc", Dense(72, 3)))
    network = Network(Chain(nodes), Spec((5, 5, 4)))
    return network, masked(learned(LAYERS["random"], network))


@pytest.mark.parametrize("layout", ["jax", "flax"])
def test_kernels_are_those_of_jax_and_flax(layout: Any) -> None:
    _, ticket = images()
    x = np.random.default_rng(1).normal(size=(4, 5, 5, 4)).astype(np.float32)
    kernel, bias = (ticket.weights(f"conv.{name}", layout) for name in ("weight", "bias"))
    assert kernel.shape == (3, 2, 2, 6) and bias.shape == (6,)
    y = jax.lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        (2, 1),
        ((1, 1), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    channels_first = jnp.moveaxis(jax.nn.relu(y + bias), -1, 1).reshape(4, -1)
    wanted = ticket.module()(jnp.asarray(x))  # type: ignore[operator]
    np.testing.assert_allclose(channels_first @ ticket.weights("fc.weight", layout), wanted, rtol=1e-4, atol=1e-4)
    layer = nnx.Linear(72, 3, use_bias=False, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.asarray(ticket.weights("fc.weight", layout))
    np.testing.assert_allclose(layer(channels_first), wanted, rtol=1e-4, atol=1e-4)


def test_only_kernels_are_transposed() -> None:
    """Not biases, positions nor normalisations; the kernels of rotations and attention are."""
    for of in ("transformer, inputs of any sign", "rotations, inputs of any sign"):
        ticket = masked(SOURCES[f"scalar, {of}"]())
        for name, shape in ticket.network.target.tensors.items():
            value, kernel = ticket.weights(name), ticket.weights(name, "flax")
            if name in ticket.network.approximated and name.endswith("weight"):
                assert kernel.shape == (*shape[2:], shape[1], shape[0])
                value = np.moveaxis(value, (0, 1), (-1, -2))
            np.testing.assert_array_equal(kernel, value)


@pytest.mark.parametrize("layout", ["torch", "jax"])
def test_sparse_weights_are_the_same_array(layout: Any) -> None:
    _, ticket = images()
    for name in ticket.network.target.tensors:
        value, found = ticket.weights(name, layout), ticket.weights(name, layout, sparse="bcoo")
        assert isinstance(found, sparse.BCOO) and found.nse == np.count_nonzero(value)
        np.testing.assert_array_equal(found.todense(), value)
    assert ticket.weights("fc.weight", sparse="bcoo").nse == ticket.mask("fc.weight").sum() < 72 * 3


def test_what_is_unknown_is_refused() -> None:
    _, ticket = images()
    unknown: Any = ticket.weights
    for words, call in {
        "name must be .*, got 'conv.wieght'; did you mean 'conv.weight'": lambda: unknown("conv.wieght"),
        "layout must be .*, got 'keras'; choose one of 'torch', 'jax', 'flax'": lambda: unknown("fc.weight", "keras"),
        "sparse must be None or 'bcoo', got 'csr'": lambda: unknown("fc.weight", sparse="csr"),
    }.items():
        with pytest.raises(InputError, match=words):
            call()
    bag = masked(SOURCES["scalar, bag"]())
    assert bag.weights("first").shape == (7, 5)
    with pytest.raises(InputError, match="layout must be 'torch' for a model whose graph is unknown, got 'flax'"):
        bag.weights("first", "flax")


def test_equal_effective_weights_are_one() -> None:
    """A gadget with exact weights for both signs is a plain layer; one with copies is not, whatever its weights."""
    target = TARGETS["mlp, inputs of any sign"]()
    ticket = masked(learned(LAYERS["gadget"], target.network))
    with pytest.raises(InputError, match=r"'fc1\.weight', which has two effective weights .* each sign"):
        ticket.weights("fc1.weight")
    nothing = {name: np.zeros_like(mask) for name, mask in ticket.masks.items()}
    empty = make_ticket(ticket.network, seed=0, masks=nothing, method="random")
    np.testing.assert_array_equal(empty.weights("fc1.weight"), np.zeros((6, 9)))
    copied = masked(SOURCES["burkholz, mlp, inputs of any sign"]())
    for name in ("fc1.weight", "fc2.weight"):
        with pytest.raises(InputError, match="copies of its neurons with different weights"):
            copied.weights(name)


def test_exports_say_how_many_tensors_are_means(tmp_path: Path) -> None:
    for of, several in {
        "pensia, mlp, inputs of any sign": 1,
        "burkholz, mlp with biases, inputs of any sign": 2,
    }.items():
        ticket = masked(SOURCES[of]())
        said = export_weights(ticket, tmp_path / "weights")
        assert said.endswith(f"as the ticket makes them; means of several effective weights: {several}")
        with TensorFile(tmp_path / "weights") as file:
            for name in ticket.network.target.tensors:
                np.testing.assert_array_equal(read_array(file, name), ticket.weights(name, mean=True))
    assert "means" not in export_weights(masked(SOURCES["scalar, mlp, inputs of any sign"]()), tmp_path / "weights")


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in place of PyTorch whose tensors are NumPy arrays."""
    module: Any = types.ModuleType("torch")
    module.tensor = np.array
    monkeypatch.setitem(sys.modules, "torch", module)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_state_dict_goes_into_the_original_network(layer: str, bias: bool, affine: bool) -> None:
    """The normalisations that were folded only add the bias; without the network there are none."""
    nodes = (("conv", Conv(2, 3, (2, 2), bias=bias)), ("bn", BatchNorm(3, affine, epsilon=0.1)), ("flatten", Flatten()))
    network = Network(Chain((*nodes, ("fc", Dense(12, 2)))), Spec((3, 3, 2), nonnegative=True))
    ticket = masked(learned(LAYERS[layer], fold_batch_norm(random_target(network)).network))
    x = np.random.default_rng(1).uniform(size=(4, 3, 3, 2)).astype(np.float32)
    several = layer == "gadget"  # the dense layer has inputs of both signs
    if several:
        with pytest.raises(InputError, match=r"mean must be True for 'fc\.weight'"):
            ticket.torch_state_dict(network)
    found = ticket.torch_state_dict(network, mean=several)
    assert {name: value.shape for name, value in found.items()} == network.tensors
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    plain = ticket.torch_state_dict(mean=several)
    assert set(plain) == {"conv.weight", "conv.bias", "fc.weight"}
    wanted = forward(ticket.network.target, plain)(jnp.asarray(x))
    np.testing.assert_allclose(forward(network, found)(jnp.asarray(x)), wanted, rtol=1e-5, atol=1e-5)
    if not several:
        np.testing.assert_allclose(ticket.module()(jnp.asarray(x)), wanted, rtol=1e-4, atol=1e-4)  # type: ignore[operator]


@pytest.mark.usefixtures("torch")
def test_a_network_of_its_own_is_taken_as_it_is_and_another_is_refused() -> None:
    network, ticket = images()
    own, whole = ticket.torch_state_dict(), ticket.torch_state_dict(network)
    for name, value in own.items():
        np.testing.assert_array_equal(whole[name], value)
    other = Network(Chain((("conv", Conv(4, 6, (3, 2), groups=2)), ("flatten", Flatten()))), Spec((5, 5, 4)))
    with pytest.raises(InputError, match=r"network must be the one that was folded.*'conv\.bias'"):
        ticket.torch_state_dict(other)
    merged = masked(SOURCES["otsuka, transformer, inputs of any sign"]())
    attention = TARGETS["transformer, inputs of any sign"]().network
    with pytest.raises(InputError, match=r"network must be the one that was folded.*attn\.qkv\.weight"):
        merged.torch_state_dict(attention, mean=True)


def test_a_missing_pytorch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="needs PyTorch; run: pip install torch"):
        images()[1].torch_state_dict()


@pytest.mark.slow
def test_pytorch_computes_the_same() -> None:
    torch: Any = pytest.importorskip("torch")
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )
    conv = Conv(2, 4, (3, 3), stride=(2, 2), padding=(1, 1), groups=2, bias=True)
    nodes = (("0", conv), ("1", BatchNorm(4)), ("2", Relu()), ("3", Flatten()), ("4", Dense(36, 3, bias=True)))
    network = Network(Chain(nodes), Spec((5, 5, 2)))
    ticket = masked(learned(LAYERS["random"], fold_batch_norm(random_target(network)).network))
    model.load_state_dict(ticket.torch_state_dict(network))
    x = np.random.default_rng(1).normal(size=(4, 5, 5, 2)).astype(np.float32)
    with torch.no_grad():
        made = model.eval()(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(made, ticket.module()(jnp.asarray(x)), rtol=1e-4, atol=1e-4)  # type: ignore[operator]
