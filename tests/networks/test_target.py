"""A target in memory: its tensors fit its network, and its digest is of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.architectures import architecture, mlp
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.target import Target
from tests.networks.catalogue import U, stored


def test_a_target_holds_what_its_network_has() -> None:
    network = Network(Chain((("fc", Dense(4, 3, bias=True)),)), Spec((4,)))
    arrays = stored(network.root)
    target = Target(network, arrays)  # type: ignore[arg-type]
    assert target.weights == 15 and target.scan("fc.weight").largest == np.abs(arrays["fc.weight"]).max()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    np.testing.assert_allclose(target.forward()(x), target.module()(x), rtol=1e-6)  # type: ignore[operator]
    changed = {**arrays, "fc.bias": arrays["fc.bias"] + np.float32(1)}
    signed = Network(network.root, Spec((4,), nonnegative=True))
    digests = [Target(*pair).digest for pair in ((network, arrays), (signed, arrays), (network, changed))]  # type: ignore[arg-type]
    assert digests[0] == target.digest == digests[1] != digests[2]
    with pytest.raises(
        InputError, match=r"must have the tensors fc.weight \[3, 4\], fc.bias \[3\], got fc.weight \[3, 4\]"
    ):
        Target(network, {"fc.weight": arrays["fc.weight"]})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"must be floats, got other types for \['fc.bias'\]"):
        Target(network, {**arrays, "fc.bias": np.ones(3, np.int64)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no random layers"):
        Target(Network(RandomLayer(Dense(4, 3), U), Spec((4,))), {})  # type: ignore[arg-type]
    broken = arrays["fc.weight"].copy()
    broken[0, 1], broken[2, 2] = np.nan, np.inf
    with pytest.raises(InputError, match=r"'fc.weight' must be finite, got 2 of 12 weights that are NaN"):
        Target(network, {**arrays, "fc.weight": broken}).scan("fc.weight")  # type: ignore[arg-type]


FLAT = mlp((4, 3), Spec((4,)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_arrays_of_jax_are_tensors(dtype: str) -> None:
    value = jax.random.normal(jax.random.key(0), (3, 4), dtype)
    target, same = Target(FLAT, {"fc1.weight": value}), np.asarray(value)  # type: ignore[arg-type]
    np.testing.assert_array_equal(target.array("fc1.weight"), same)
    assert target.array("fc1.weight").dtype == same.dtype and target.scan("fc1.weight").high == float(same.max())
    assert target.digest == Target(FLAT, {"fc1.weight": same}).digest  # type: ignore[arg-type]


def test_the_order_of_bytes_changes_nothing() -> None:
    value = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    swapped = Target(FLAT, {"fc1.weight": value.astype(">f4")})  # type: ignore[arg-type]
    assert swapped.digest == Target(FLAT, {"fc1.weight": value}).digest  # type: ignore[arg-type]
    np.testing.assert_array_equal(swapped.array("fc1.weight"), value)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"fc1": {"weight": np.ones((3, 4))}}, "got a dict for 'fc1'. Pass a flat"),
        (nnx.state(nnx.Sequential(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))), "got a State for 'layers'"),
        (nnx.state(nnx.Linear(4, 3, rngs=nnx.Rngs(0))), r"must have the tensors fc1.weight \[3, 4\], got .*kernel"),
        (nnx.Linear(4, 3, rngs=nnx.Rngs(0)), "arrays by name, got a Linear"),
        ([np.ones((3, 4))], "arrays by name, got a list"),
        ("target.safetensors", "arrays by name, got a str"),
        (None, "arrays by name, got a NoneType"),
        ({"fc1.weight": None}, "'fc1.weight' holds object, which is not stored; convert it to float32"),
        ({"fc1.weight": [[1.0], [2.0, 3.0]]}, r"'fc1.weight' \(list\) is not an array; convert"),
        ({"fc1.weight": np.ones((3, 4), bool)}, "holds bool, which is not stored"),
        ({"fc1.weight": np.ones((3, 4), complex)}, "holds complex128, which is not stored"),
        ({"fc1.weight": jax.random.key(0)}, "'fc1.weight' .*(is not an array|is not stored); convert"),
        ({1: np.ones((3, 4))}, "the tensor 1 has a name of type int; use a str"),
    ],
)
def test_what_are_no_tensors_is_refused(tensors, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Target(FLAT, tensors)


def test_a_target_needs_a_network() -> None:
    with pytest.raises(InputError, match="must be a Network, got a Chain"):
        Target(FLAT.root, {})  # type: ignore[arg-type]


def test_a_target_is_one_short_line_whatever_its_size() -> None:
    digits = architecture("mlp-64", Spec((8, 8, 1), True), 10)
    target = Target(digits, stored(digits.root))  # type: ignore[arg-type]
    assert repr(target) == (
        "<Target of 4,736 weights, 2 layers: fc1.weight [64, 64], fc2.weight [10, 64] ([out, in]),"
        " inputs [8, 8, 1] never negative>"
    )
    assert repr(mlp_target([np.ones((1, 2))])).endswith(
        "1 layer: fc1.weight [1, 2] ([out, in]), inputs [2] of any sign>"
    )
    one = mlp_target([np.ones((1, 2))])
    assert one == one and one != mlp_target([np.ones((1, 2))]) and len({one, one}) == 1


@pytest.mark.parametrize(
    "network",
    [
        architecture("resnet50", Spec((224, 224, 3)), 1000),
        Network(
            TensorDict(tuple((f"model\n.{'long' * 90}.{n}", NamedTensor((2**20, 2**19, 1, 1))) for n in range(100)))
        ),
        mlp((4, 3, 2), Spec((4,))).map_layers(
            lambda path, node: RandomLayer(node, U) if isinstance(node, Dense) else node
        ),
        mlp((4,) * 1000, Spec((4,))),
    ],
    ids=["resnet50", "bag", "source", "deep"],
)
def test_a_network_is_one_short_line_whatever_its_size(network: Network) -> None:
    shown = repr(network)
    assert shown.startswith("<Network of ") and len(shown) < 300 and "\n" not in shown
    assert (" more (" in shown) == (len(network.approximated) > 3)
    assert ("random" in shown) == bool(network.sources) and ("no graph" in shown) == (network.input_spec is None)
    assert network == Network(network.root, network.input_spec) and hash(network) == hash(
        Network(network.root, network.input_spec)
    )
