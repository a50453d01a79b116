"""Whole networks: names, what fits together, training statistics, gains, running in batches, targets in memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.forward import batch_size, forward, outputs
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense, PositionEmbedding
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm, Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import MAX_EXAMPLE_SIZE, FixedGate, Node, Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from tests.networks.catalogue import U, stored
from tests.networks.oracles import Own, evaluate, normalized

FOUR = Spec((4,))
BODY = Chain((("conv", Conv(2, 2, (3, 3), padding=(1, 1))), ("bn", BatchNorm(2))))
MIXED = Network(
    Chain(
        (
            ("stem", Chain((("bn", BatchNorm(2, affine=False)),))),
            ("(block)", Residual(BODY, Chain((("0", Conv(2, 2, (1, 1))),)))),
            ("relu", Relu()),
            ("pool", GlobalPool()),
            ("fc", Dense(2, 3, bias=True)),
        )
    ),
    Spec((4, 5, 2)),
)
SOURCE = Network(
    Chain(
        (
            ("fc1", Gadget(Dense(4, 3), 5, U, U)),
            ("relu", Relu()),
            ("fc2", CandidatesPerWeight(Dense(3, 2, True), 4, (U, U))),
        )
    ),
    Spec((4,), nonnegative=True),
)


def test_names_are_paths_without_what_is_in_parentheses() -> None:
    assert list(MIXED.tensors) == [
        *("stem.bn.running_mean", "stem.bn.running_var"),
        *("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"),
        *("downsample.0.weight", "fc.weight", "fc.bias"),
    ]
    assert list(MIXED.weight_nodes) == ["conv", "downsample.0", "fc"]
    assert list(MIXED.approximated) == ["conv.weight", "downsample.0.weight", "fc.weight", "fc.bias"]
    assert MIXED.output_spec == Spec((3,))
    assert MIXED.input_spec_of("relu") == Spec((4, 5, 2)) and MIXED.input_spec_of("fc") == Spec((2,), nonnegative=True)
    assert MIXED.source_weights == 0 and not MIXED.random_tensors


def test_a_source_stands_for_its_target() -> None:
    target = Network(Chain((("fc1", Dense(4, 3)), ("relu", Relu()), ("fc2", Dense(3, 2, True)))), SOURCE.input_spec)
    assert SOURCE.target == target and hash(SOURCE.target) == hash(target)
    assert SOURCE.approximated == target.approximated == target.tensors
    assert {name: tensor.shape for name, tensor in SOURCE.random_tensors.items()} == {
        "fc1.first": (4, 5),
        "fc1.weight": (3, 4, 5),
        "fc2.weight": (2, 3, 4),
        "fc2.bias": (2, 4),
    }
    assert SOURCE.source_weights == 20 + 60 + 24 + 8


def test_initial_weights_are_he_normal_and_norms_change_nothing() -> None:
    network = Network(
        Chain((("fc", Dense(400, 300, True)), ("bn", BatchNorm(300)), ("ln", LayerNorm(300)))), Spec((400,))
    )
    start = network.initial(jax.random.key(0))
    assert {name: value.shape for name, value in start.items()} == network.tensors
    assert abs(float(start["fc.weight"].std()) - (2 / 400) ** 0.5) < 1e-3
    for name in ("bn.weight", "bn.running_var", "ln.weight"):
        np.testing.assert_array_equal(start[name], 1)
    for name in ("fc.bias", "bn.bias", "bn.running_mean", "ln.bias"):
        np.testing.assert_array_equal(start[name], 0)


def test_training_uses_the_batch_and_moves_the_running_means() -> None:
    tensors = stored(MIXED.root)
    x = np.random.default_rng(0).normal(0.5, 2, (6, 4, 5, 2)).astype(np.float32)
    train = jax.jit(lambda tensors, x: MIXED.train(tensors, x))
    found, moved = train({name: jnp.asarray(value) for name, value in tensors.items()}, jnp.asarray(x))
    batch: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def of_batch(path: str, x: np.ndarray) -> np.ndarray:
        batch[path] = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return normalized(x, Own(tensors, path), *batch[path], 1e-5)

    stem = of_batch("stem.bn", x.astype(np.float64))
    convolved = evaluate(BODY.nodes[0][1], {"weight": tensors["conv.weight"]}, stem)
    body = of_batch("bn", convolved)
    added = body + evaluate(Conv(2, 2, (1, 1)), {"weight": tensors["downsample.0.weight"]}, stem)
    pooled = np.maximum(added, 0).mean((1, 2))
    np.testing.assert_allclose(found, pooled @ tensors["fc.weight"].T + tensors["fc.bias"], rtol=1e-4, atol=1e-4)
    assert set(moved) == {name for name in MIXED.tensors if "running" in name}
    for path, (mean, variance) in batch.items():
        for name, value in (("running_mean", mean), ("running_var", variance)):
            expected = 0.9 * tensors[f"{path}.{name}"] + 0.1 * value
            np.testing.assert_allclose(moved[f"{path}.{name}"], expected, rtol=1e-4, atol=1e-5)


def test_measured_gains_make_every_output_a_unit() -> None:
    weights = {name: jnp.asarray(value) for name, value in SOURCE.draw(1).items()}
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 4)), jnp.float32)

    @jax.jit
    def measured(kept: jax.Array) -> dict[str, jax.Array]:
        masks = {name: jnp.broadcast_to(kept, tensor.shape) for name, tensor in SOURCE.random_tensors.items()}
        return SOURCE.measured_gains(weights, lambda name: FixedGate(masks[name]), x)

    def gains(kept: bool) -> dict[str, float]:
        return {name: float(gain) for name, gain in measured(jnp.array(kept)).items()}

    found = gains(True)
    assert set(found) == {"fc1.gain", "fc2.gain"}
    scaled = SOURCE.map_layers(
        lambda path, node: dataclasses.replace(node, gain=found[f"{path}.gain"]) if path in SOURCE.sources else node  # type: ignore[call-arg]
    )
    hidden = Network(Chain(scaled.root.nodes[:1]), SOURCE.input_spec)  # type: ignore[attr-defined]
    for network in (hidden, scaled):
        np.testing.assert_allclose(np.mean(np.square(forward(network, weights)(x))), 1, rtol=1e-5)
    assert gains(False) == {"fc1.gain": 1.0, "fc2.gain": 1.0}  # nothing kept: nothing to scale


def test_batches_are_padded_and_of_one_shape() -> None:
    shapes = []

    def double(x: jax.Array) -> jax.Array:
        shapes.append(x.shape)
        return 2 * x

    images = np.arange(14, dtype=np.float32).reshape(7, 2)
    np.testing.assert_array_equal(outputs(double, images, batch_size=3), 2 * images)
    assert shapes == [(3, 2)] * 3
    np.testing.assert_array_equal(outputs(double, images), 2 * images)
    with pytest.raises(InputError, match="at least one example, got none"):
        outputs(double, images[:0])
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        outputs(double, images, batch_size=0)


def test_large_networks_run_in_small_batches() -> None:
    plain = Network(Conv(3, 2, (3, 3)), Spec((512, 512, 3)))
    wide = Network(Gadget(Conv(3, 2, (3, 3)), 40, U, U), plain.input_spec)
    assert batch_size(MIXED) == 500
    assert batch_size(plain) == 2**25 // (510 * 510 * 9 * 3), "the windows of few channels are copied"
    assert batch_size(wide) == 2**25 // (512 * 512 * 3 * 40) == 1


def chained(*nodes: tuple[str, Node], given: Spec | None = FOUR) -> Network:
    return Network(Chain(nodes), given)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: chained(("relu", Relu())), "at least one layer with weights"),
        (lambda: chained(("fc1", Dense(4, 3)), ("fc2", Dense(2, 5))), r"'fc2': .* 2 features, got \[3\]"),
        (lambda: chained(("a", Chain((("b", Dense(3, 4)),)))), r"node 'a.b': .* 3 features, got \[4\]"),
        (lambda: chained(("(a)", Dense(3, 4))), r"node '\(a\)': .* 3 features, got \[4\]"),
        (lambda: chained(("fc", Dense(4, 3)), given=None), "must have an input_spec"),
        (lambda: Network(NamedTensor((2, 2))), "must have names"),
        (lambda: Network(PositionEmbedding(3, 4), Spec((3, 4))), "must have names"),
        (lambda: chained(("(a)", Dense(4, 4)), ("(b)", Dense(4, 4))), "tensors .* got 2 with the name 'weight'"),
        (
            lambda: chained(("(a)", RandomLayer(Dense(4, 4), U)), ("(b)", Relu()), ("(c)", Relu())),
            "got 3 with the name ''",
        ),
        (
            lambda: chained(("(a)", RandomLayer(Dense(4, 4), U)), ("(b)", RandomLayer(Dense(4, 4), U))),
            "different names",
        ),
        (
            lambda: Network(
                TensorDict(
                    (
                        ("a", CandidatesPerWeight(Dense(4, 4), 2, (U,))),
                        ("a.weight", CandidatesPerWeight(NamedTensor((4, 4)), 2, (U,))),
                    )
                )
            ),
            "tensors .* got 2 with the name 'a.weight'",
        ),
        (
            lambda: chained(
                ("a", RandomLayer(Dense(4, 4), U)), ("a.gain", PositionEmbedding(3, 4)), given=Spec((3, 4))
            ),
            "tensors .* got 2 with the name 'a.gain'",
        ),
        (lambda: chained(("fc", Dense(4, 3)), ("fc", Relu())), "must have different names"),
        (lambda: Network(TensorDict(())), "must have tensors"),
        (lambda: Network(TensorDict((("a", LayerNorm(0)),))), "sizes from 1 up"),
        (
            lambda: Network(TensorDict((("a", NamedTensor((2**20, 2**20, 2**20))),))),
            "at most 281,474,976,710,656 weights",
        ),
        (lambda: chained(("c", Gadget(Conv(1, 1, (1, 1)), 8, U, U)), given=Spec((2**14, 2**14, 1))), "numbers between"),
        (
            lambda: chained(("r", Residual(Dense(4, 3)))),
            r"block 'r' must have equal shapes, got \[3\] and \[4\]. Give it a projection",
        ),
        (lambda: chained(("a", Attention(2, Dense(4, 8), Dense(4, 4))), given=Spec((3, 4))), "qkv must give 3 x 4"),
        (lambda: chained(("a", Attention(2, Dense(4, 12), Dense(4, 8))), given=Spec((3, 4))), "proj must give 4"),
        (lambda: Attention(0, Dense(4, 12), Dense(4, 4)), "at least 1 head, got 0"),
        (lambda: Conv(4, 6, (3, 3), groups=4), "must divide its 4 inputs and 6 outputs, got 4"),
        (lambda: Conv(4, 4, (3, 3), groups=0), "must have groups"),
        (lambda: Conv(4, 4, (0, 3)), "sizes, strides and dilations from 1 up"),
        (lambda: Dense(0, 3), "at least 1 input and 1 output, got 0 and 3"),
        (lambda: MaxPool((2, 2), padding=(2, 0)), "half a window at most"),
        (lambda: AveragePool((2, 2), stride=(0, 1)), "sizes and strides from 1 up"),
        (lambda: Normalize((0.5,), (0.0,)), "positive deviation"),
        (lambda: Normalize((0.5, 0.5), (1.0,)), "positive deviation"),
        (lambda: BatchNorm(3, epsilon=0.0), "positive epsilon"),
        (lambda: LayerNorm(3, epsilon=-1.0), "positive epsilon"),
        (lambda: Spec(()), r"must have sizes from 1 .* got \[\]"),
        (lambda: Spec((3, 0)), r"got \[3, 0\]"),
        (lambda: Spec((MAX_EXAMPLE_SIZE + 1,)), "numbers, got"),
        (lambda: chained(("conv", Conv(1, 2**12, (1, 1))), given=Spec((2**9, 2**9, 1))), "numbers, got"),
    ],
)
def test_what_is_no_network_is_refused(make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_flattening_is_channels_first_as_the_weights_of_others_expect() -> None:
    network = Network(Chain((("flatten", Flatten()), ("fc", Dense(12, 1)))), Spec((2, 3, 2)))
    one_hot = np.zeros((1, 12), np.float32)
    one_hot[0, 1 * 6 + 1 * 3 + 2] = 1  # channel 1, row 1, column 2 of [2, 2, 3]
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    assert float(forward(network, {"fc.weight": one_hot})(jnp.asarray(x))[0, 0]) == x[0, 1, 2, 1]
