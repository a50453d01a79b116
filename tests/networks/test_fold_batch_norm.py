"""Folded batch normalisations: the same function with fewer leaves, or a refusal."""

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm
from lottery_jax.networks.layers.pooling import GlobalPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.rewrites import batch_norm_folds, fold_batch_norm
from lottery_jax.networks.target import Target
from tests.networks.catalogue import stored
from tests.networks.oracles import evaluate

GROUPED = Conv(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=True)


def chained(*nodes: tuple[str, Node]) -> Chain:
    return Chain(nodes)


BODY = chained(
    ("conv1", Conv(4, 3, (3, 3), padding=(1, 1))),
    ("bn1", BatchNorm(3, epsilon=0.125)),
    ("relu1", Relu()),
    ("conv2", Conv(3, 6, (1, 1), bias=True)),
    ("bn2", BatchNorm(6, affine=False)),
)
SHORTCUT = chained(("0", Conv(4, 6, (1, 1))), ("1", BatchNorm(6)))
NETWORKS = {
    "dense": Network(chained(("fc", Dense(5, 3)), ("bn", BatchNorm(3))), Spec((5,))),
    "dense with bias, not affine": Network(
        chained(("fc", Dense(5, 3, True)), ("bn", BatchNorm(3, affine=False)), ("relu", Relu()), ("out", Dense(3, 2))),
        Spec((5,)),
    ),
    "grouped convolution": Network(chained(("conv", GROUPED), ("bn", BatchNorm(6))), Spec((6, 5, 4))),
    "residual block": Network(
        chained(
            ("layer1", chained(("0", chained(("(block)", Residual(BODY, SHORTCUT)), ("relu", Relu()))))),
            ("pool", GlobalPool()),
            ("fc", Dense(6, 3, bias=True)),
            ("bn", BatchNorm(3)),
        ),
        Spec((5, 4, 4)),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_computes_the_same(name: str) -> None:
    network = NETWORKS[name]
    target = Target(network, stored(network.root))  # type: ignore[arg-type]
    same = fold_batch_norm(target)
    assert not any(isinstance(node, BatchNorm) for _, node in same.network.nodes())
    assert {label for label in network.tensors if label in network.approximated} <= set(same.network.tensors)
    assert network.input_spec is not None
    x = np.random.default_rng(1).normal(size=(6, *network.input_spec.shape)).astype(np.float32)
    expected = evaluate(network.root, target.arrays(), x)
    np.testing.assert_allclose(same.forward()(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(evaluate(same.network.root, same.arrays(), x), expected, rtol=1e-5, atol=1e-5)
    assert fold_batch_norm(same) is same


def test_only_the_operation_in_front_is_changed() -> None:
    network = NETWORKS["residual block"]
    target = Target(network, stored(network.root))  # type: ignore[arg-type]
    pairs = [(fold.layer, fold.norm) for fold in batch_norm_folds(network)]
    path = "layer1.0"
    assert pairs == [
        (f"{path}.conv1", f"{path}.bn1"),
        (f"{path}.conv2", f"{path}.bn2"),
        (f"{path}.downsample.0", f"{path}.downsample.1"),
        ("fc", "bn"),
    ]
    same = fold_batch_norm(target)
    assert list(same.network.tensors) == [f"{leaf}.{part}" for leaf, _ in pairs for part in ("weight", "bias")]
    plain = NETWORKS["dense with bias, not affine"]
    other = Target(plain, stored(plain.root))  # type: ignore[arg-type]
    np.testing.assert_array_equal(fold_batch_norm(other).array("out.weight"), other.array("out.weight"))


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "vgg16"])
def test_all_normalisations_of_the_zoo_can_be_folded(name: str) -> None:
    network = architecture(name, Spec((32, 32, 3), nonnegative=True), 10, width=0.05)
    same = fold_batch_norm(Target(network, stored(network.root)))  # type: ignore[arg-type]
    norms = sum(isinstance(node, BatchNorm) for _, node in network.nodes())
    assert len(batch_norm_folds(network)) == norms > 10
    assert not any(isinstance(node, BatchNorm) for _, node in same.network.nodes())
    assert set(same.network.tensors) == set(same.network.approximated)


@pytest.mark.parametrize(
    ("root", "path"),
    [
        (chained(("bn", BatchNorm(4)), ("conv", Conv(4, 2, (1, 1)))), "bn"),
        (chained(("conv", Conv(4, 4, (1, 1))), ("relu", Relu()), ("bn", BatchNorm(4))), "bn"),
        (chained(("conv", Conv(4, 4, (1, 1))), ("bn", BatchNorm(4)), ("bn2", BatchNorm(4))), "bn2"),
        (chained(("conv", Conv(4, 4, (1, 1))), ("r", Residual(BatchNorm(4)))), "r"),
    ],
)
def test_a_norm_behind_no_operation_is_refused(root: Chain, path: str) -> None:
    network = Network(root, Spec((3, 3, 4)))
    with pytest.raises(InputError, match=f"batch normalisation '{path}' must follow a dense layer or a convolution"):
        fold_batch_norm(Target(network, stored(root)))  # type: ignore[arg-type]


def test_without_batch_normalisation_nothing_changes() -> None:
    network = Network(chained(("fc", Dense(5, 3)), ("norm", LayerNorm(3))), Spec((5,)))
    target = Target(network, stored(network.root))  # type: ignore[arg-type]
    assert fold_batch_norm(target) is target
