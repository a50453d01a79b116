"""Random sources: where weights are drawn, what redraws change, the theorems' full networks, what weights count as."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.forward import forward
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate, Frozen, LinearLayer, Mask, Spec
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.sources.replicated_neurons import ReplicatedGadget, ReplicatedNeurons
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.rng.random_tensor import ATTEMPT_STRIDE, MAX_ATTEMPTS
from lottery_jax.rng.sampler import Sampler, draw_at, draw_host, sampler_arrays
from lottery_jax.rng.threefry import seed_words
from tests.networks.catalogue import DEPTHWISE, IMAGE, SOURCES, STRIDED, Case, U, drawn, network, run
from tests.networks.oracles import multiplied, stated_positions

SEED = 2**63 + 5
NORMAL = Sampler.normal(0.5)
every_source = pytest.mark.parametrize("case", SOURCES, ids=lambda case: f"{case.node.kind}-{case.node.layer.kind}")
ALL_KINDS = Network(
    Chain(
        (
            ("a", Gadget(Conv(2, 4, (3, 3), bias=True), 5, U, NORMAL)),
            ("b", CandidatesPerWeight(Conv(4, 3, (2, 2), bias=True), 3, (U, NORMAL), shared=True)),
            ("c", RandomLayer(Conv(3, 3, (2, 2), bias=True), U)),
            ("d", Gadget(Conv(3, 3, (1, 1), groups=3), 2, U, U, relu=False)),
            ("e", MultiLevelLayer(Conv(3, 2, (2, 2), bias=True), NORMAL, (1.0, -0.5, 0.25))),
            ("f", ReplicatedGadget(Conv(2, 3, (2, 1), bias=True), 4, U, NORMAL, copies=3)),
            ("g", ReplicatedNeurons(Conv(3, 2, (1, 1), bias=True), 3, 2, NORMAL)),
            ("h", ReplicatedNeurons(Conv(2, 1, (1, 1)), 2, 1, U)),
            ("i", BinaryLadder(Conv(1, 2, (1, 1), bias=True), 4, 2)),
        )
    ),
    Spec((7, 6, 2)),
)


def weights_at(sampler: Sampler, stream: int, positions: np.ndarray) -> np.ndarray:
    return draw_at(sampler_arrays(sampler), seed_words(SEED), np.uint32(stream), positions.astype(np.uint32))


def samplers(source: Source) -> dict[str, Sampler]:
    """The sampler of each tensor, as the source's own fields say."""
    if isinstance(source, RandomLayer | MultiLevelLayer | ReplicatedNeurons):
        return dict.fromkeys(source.layer.tensors(), source.sampler)
    if isinstance(source, CandidatesPerWeight):
        return dict(zip(source.layer.tensors(), source.samplers, strict=True))
    if isinstance(source, BinaryLadder):
        return dict.fromkeys(source.random_tensors(), Sampler.signed_constant(1))
    assert isinstance(source, Gadget)
    return {"first": source.first} | dict.fromkeys(source.layer.tensors(), source.second)


def test_every_weight_is_drawn_at_its_stated_position_of_a_stream_of_its_leaf() -> None:
    found, first, checked = ALL_KINDS.draw(SEED), 0, []
    for path, source in ALL_KINDS.sources.items():
        stated = stated_positions(source)
        for name, (stream, positions) in stated.items():
            tensor = found[f"{path}.{name}"]
            expected = weights_at(samplers(source)[name], first + stream, positions)
            np.testing.assert_array_equal(np.broadcast_to(tensor, expected.shape), expected)
            checked.append(f"{path}.{name}")
        first += 1 + max(stream for stream, _ in stated.values())
    assert sorted(checked) == sorted(found)


@every_source
def test_positions_hold_for_every_source(case: Case) -> None:
    source = case.node
    assert isinstance(source, Source)
    found = network(case).draw(SEED)
    for name, (stream, positions) in stated_positions(source).items():
        expected = weights_at(samplers(source)[name], stream, positions)
        np.testing.assert_array_equal(np.broadcast_to(found[name], expected.shape), expected)


def test_no_two_weights_have_one_position() -> None:
    """Not within a tensor, nor between tensors, nor between draws of a block."""
    seen: set[tuple[int, int]] = set()
    count = 0
    for tensor in ALL_KINDS.random_tensors.values():
        for attempt in (0, 1, MAX_ATTEMPTS):
            streams, starts = tensor.positions(np.arange(tensor.blocks), attempt)
            places = starts[:, None] + tensor.layout.step * np.arange(tensor.width)
            seen |= {(int(s), int(p)) for s, row in zip(streams, places, strict=True) for p in row}
            count += tensor.weights
    assert len(seen) == count == 3 * ALL_KINDS.source_weights
    assert max(stream for stream, _ in seen) < 2**31  # above are the streams of scores


@every_source
def test_parts_of_a_draw_are_parts_of_the_whole(case: Case) -> None:
    for tensor in network(case).random_tensors.values():
        whole = tensor.draw_all(SEED, np.array([[0, 3]]))
        rows = whole.reshape(tensor.blocks, tensor.width)
        some = np.arange(tensor.blocks)[::-2]
        np.testing.assert_array_equal(tensor.draw(SEED, some, np.where(some == 0, 3, 0)), rows[some])
        first = tensor.draw(SEED, np.arange(tensor.blocks), 0)
        np.testing.assert_array_equal(first[1:], rows[1:])
        spread = np.arange(min(tensor.blocks, 256)) * tensor.blocks // min(tensor.blocks, 256)
        np.testing.assert_array_equal(tensor.checksum_sample(SEED), first[spread])


def test_redraws_change_their_blocks_alone() -> None:
    redraws = {
        "a.first": np.array([[1, 4]]),
        "a.weight": np.array([[0, 1], [50, MAX_ATTEMPTS]]),
        "a.bias": np.array([[3, 1]]),
        "b.weight": np.array([[2, 1]]),  # all weights of an output share their copies
    }
    plain, again = ALL_KINDS.draw(SEED), ALL_KINDS.draw(SEED, redraws)
    for name, tensor in ALL_KINDS.random_tensors.items():
        changed = (plain[name] != again[name]).reshape(tensor.blocks, tensor.width)
        expected = redraws[name][:, 0].tolist() if name in redraws else []
        assert np.flatnonzero(changed.any(1)).tolist() == np.flatnonzero(changed.all(1)).tolist() == expected
    place = stated_positions(ALL_KINDS.sources["a"])["weight"][1].reshape(-1, 5)[50]
    expected = weights_at(NORMAL, 1 + MAX_ATTEMPTS * ATTEMPT_STRIDE, place)
    np.testing.assert_array_equal(again["a.weight"].reshape(-1, 5)[50], expected)


def test_copies_beyond_a_stream_lie_on_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = Network(
        TensorDict(
            (
                ("a", CandidatesPerWeight(NamedTensor((9, 3)), 4, (U,))),
                ("b", CandidatesPerWeight(NamedTensor((2, 2)), 4, (U,))),
            )
        )
    )
    in_one = bag.draw(SEED)
    monkeypatch.setattr("lottery_jax.rng.random_tensor.MAX_SIZE", 40)  # 8 blocks of 4 fit
    bag = Network(bag.root)
    split = bag.draw(SEED)
    assert [tensor.stream for tensor in bag.random_tensors.values()] == [0, 4]
    for stream in range(4):
        rows = min(8, 27 - 8 * stream)
        found = split["a"].reshape(27, 4)[8 * stream : 8 * stream + rows]
        np.testing.assert_array_equal(found, draw_host(U, seed=SEED, stream=stream, shape=(rows, 4)))
    np.testing.assert_array_equal(split["a"].reshape(27, 4)[:8], in_one["a"].reshape(27, 4)[:8])
    np.testing.assert_array_equal(split["b"].reshape(4, 4), draw_host(U, seed=SEED, stream=4, shape=(4, 4)))
    tensor = bag.random_tensors["a"]
    np.testing.assert_array_equal(tensor.draw(SEED, np.arange(27), 0), split["a"].reshape(27, 4))
    with pytest.raises(InputError, match=r"at most 65536 streams\. Approximate the model in parts"):
        Network(TensorDict((("a", CandidatesPerWeight(NamedTensor((8, ATTEMPT_STRIDE + 1)), 4, (U,))),)))


def test_gadgets_are_the_full_network_of_depth_2l() -> None:
    """Theorem 1's source, drawn as plain streams: [I, I U], ReLU, [I U, O] for each layer; masks do the rest."""
    layers = {"fc1": Gadget(Dense(6, 5, bias=True), 4, U, U, gain=0.5), "fc2": Gadget(Dense(5, 2), 3, U, U, gain=2.0)}
    gadgets = Network(Chain((("fc1", layers["fc1"]), ("relu", Relu()), ("fc2", layers["fc2"]))), Spec((6,)))
    weights, masks = gadgets.draw(3), drawn(gadgets.root, (6,))[1]
    x = np.random.default_rng(1).uniform(-1, 1, (7, 6)).astype(np.float32)
    full = x.astype(np.float64)
    for place, (name, gadget) in enumerate(layers.items()):
        full = np.maximum(full, 0) if place else full
        inputs, units, outputs = gadget.layer.inputs + gadget.layer.bias, gadget.units, gadget.layer.outputs
        first = draw_host(U, seed=3, stream=2 * place, shape=(inputs, inputs * units)).astype(np.float64)
        second = draw_host(U, seed=3, stream=2 * place + 1, shape=(inputs * units, outputs)).astype(np.float64)
        columns = np.zeros((inputs, inputs, units), bool)
        columns[np.arange(inputs), np.arange(inputs)] = masks[f"{name}.first"]
        kept = masks[f"{name}.weight"]
        if gadget.layer.bias:
            full = np.concatenate([full, np.ones((len(full), 1))], 1)  # a bias is the constant's weight
            kept = np.concatenate([kept, masks[f"{name}.bias"][:, None]], 1)
        hidden = np.maximum(full @ (first * columns.reshape(first.shape)), 0)
        full = gadget.gain * hidden @ (second * kept.reshape(outputs, -1).T)
    np.testing.assert_allclose(run(gadgets.root, weights, masks, x), full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [STRIDED, DEPTHWISE], ids=["groups", "depthwise"])
def test_a_gadget_of_a_convolution_is_a_random_1_x_1_convolution_relu_and_the_convolution(layer: Conv) -> None:
    """Da Cunha et al. 2022: the mask of the 1 x 1 convolution isolates the channels."""
    layer = dataclasses.replace(layer, bias=False)
    gadget, units, own = Gadget(layer, 3, U, U), 3, layer.inputs // layer.groups
    _, masks = drawn(gadget, IMAGE)
    first = draw_host(U, seed=0, stream=0, shape=(layer.inputs, layer.inputs * units))
    isolated = np.kron(np.eye(layer.inputs), np.ones(units)) * np.tile(masks["first"].reshape(-1), (layer.inputs, 1))
    second = draw_host(U, seed=0, stream=1, shape=(own, units, *layer.size, layer.outputs)) * np.moveaxis(
        masks["weight"], (0, 1, 4), (4, 0, 1)
    )
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, *IMAGE)), jnp.float32)
    places = ("NHWC", "HWIO", "NHWC")
    pointwise = jnp.asarray((first * isolated)[None, None], jnp.float32)
    hidden = jax.nn.relu(jax.lax.conv_general_dilated(x, pointwise, (1, 1), "VALID", dimension_numbers=places))
    kernel = jnp.asarray(second.reshape(own * units, *layer.size, layer.outputs).transpose(1, 2, 0, 3), jnp.float32)
    sides = [(zeros, zeros) for zeros in layer.padding]
    expected = jax.lax.conv_general_dilated(
        hidden, kernel, layer.stride, sides, dimension_numbers=places, feature_group_count=layer.groups
    )
    found = run(gadget, Network(gadget, Spec(IMAGE)).draw(0), masks, np.asarray(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@every_source
def test_the_weights_that_a_verifier_counts_are_those_that_the_network_has(case: Case) -> None:
    """Coefficient times kept weight, summed, for each sign of input: a dense layer or convolution in NumPy."""
    source = case.node
    assert isinstance(source, Source) and isinstance(source.layer, LinearLayer)
    weights, masks = drawn(source, case.shape)
    kept = {name: np.where(masks[name], weights[name], 0).astype(np.float64) for name in masks}
    edges = {name: kept[name] for name in source.hidden_tensors}
    x = np.random.default_rng(2).normal(size=(3, *case.shape)).astype(np.float32)

    def made(name: str, sign: int) -> np.ndarray:
        tensor = network(case).random_tensors[name]
        rows, columns = np.indices((tensor.rows, tensor.width)).reshape(2, -1)
        counted = kept[name].reshape(-1) * source.coefficients(name, rows, columns, sign, edges)
        assert source.rows_per_weight == 1
        return counted.reshape(tensor.rows, -1).sum(1).reshape(source.layer.tensors()[name])

    signs = source.input_signs("weight", Spec(case.shape))
    sides = {1: np.maximum(x, 0), -1: np.minimum(x, 0)} if len(signs) > 1 else {1: x}
    total = sum(multiplied(source.layer, sides[sign].astype(np.float64), made("weight", sign), 0.0) for sign in signs)
    if source.layer.bias:
        total += made("bias", 1)
    found = run(source, weights, masks, x)
    np.testing.assert_allclose(found, total, rtol=2e-5, atol=2e-5)


def test_signs_of_inputs_that_a_gadget_tells_apart() -> None:
    gadget = Gadget(Dense(3, 2, bias=True), 4, U, U)
    linear = dataclasses.replace(gadget, relu=False)
    given, pixels = Spec((3,)), Spec((3,), nonnegative=True)
    assert [gadget.input_signs("weight", spec) for spec in (given, pixels, None)] == [(1, -1), (1,), (1, -1)]
    assert gadget.input_signs("bias", given) == linear.input_signs("weight", given) == (1,)


def test_frozen_weights_are_no_parameters() -> None:
    """An optimiser sees nothing of a masked network."""
    weights = {name: jnp.asarray(value) for name, value in ALL_KINDS.draw(0).items()}
    shapes = {name: tensor.shape for name, tensor in ALL_KINDS.random_tensors.items()}
    module = ALL_KINDS.module(weights, lambda name: FixedGate(jnp.ones(shapes[name])))
    _, masks, frozen, rest = nnx.split(module, Mask, Frozen, ...)
    assert len(jax.tree.leaves(masks)) == len(jax.tree.leaves(frozen)) == len(shapes)
    assert not jax.tree.leaves(nnx.state(module, nnx.Param))
    assert not jax.tree.leaves(rest)


def test_gates_keep_what_they_say() -> None:
    """A boolean mask and the same one found from scores give one network."""
    case = next(case for case in SOURCES if isinstance(case.node, Gadget))
    weights, masks = drawn(case.node, case.shape)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, *case.shape)), jnp.float32)
    placed = {name: jnp.asarray(value) for name, value in weights.items()}
    scores = {name: jnp.asarray(np.where(mask, -2.0, 1.0), jnp.float32) for name, mask in masks.items()}
    counts = {name: jnp.int32(mask.sum()) for name, mask in masks.items()}

    @jax.jit
    def learned(placed, scores, x):
        return network(case).module(placed, lambda name: FixedGate(top_k_mask(scores[name], counts[name])))(x)

    pruned = {name: np.where(masks[name], value, 0) if name in masks else value for name, value in weights.items()}
    found, expected = learned(placed, scores, x), forward(network(case), pruned)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: CandidatesPerWeight(Dense(3, 2, bias=True), 4, (U,)),
            "samplers must have one entry for each of the 2 tensors, got 1",
        ),
        (lambda: RandomLayer(Dense(3, 2), U, gain=0.0), "gain must be a float32 .* got 0.0"),
        (lambda: CandidatesPerWeight(Dense(3, 2), 4, (U,), gain=-1.0), "gain must be a float32 .* got -1.0"),
        (lambda: MultiLevelLayer(Dense(3, 2), U, (1.0,), gain=0.1), "gain must be a float32 .* got 0.1"),
        *(
            (
                lambda factors=factors: MultiLevelLayer(Dense(3, 2), U, factors),
                "factors must be different powers of two",
            )
            for factors in ((), (0.0,), (0.3,), (3.0,), (1.0, 1.0), (2.0**-16,), (2.0,), (math.nan,), (-math.inf, 1.0))
        ),
        (lambda: ReplicatedNeurons(Dense(3, 2), 0, 1, U), "at least 1 copy, got 0"),
        (lambda: ReplicatedNeurons(Dense(3, 2), 1, 0, U), "at least 1 copy, got 0"),
        (lambda: ReplicatedNeurons(Dense(3, 2), 4, 4, U, gain=0.1), "gain must be a float32"),
        (lambda: ReplicatedNeurons(Dense(3, 2), 4, 4, U, constant=math.inf), "gain must be a float32"),
        (
            lambda: ReplicatedNeurons(Dense(3, 2), 4, 4, U, copy_stride=0),
            "copy_stride must .* got 0 for 3 inputs in 1 groups",
        ),
        (
            lambda: ReplicatedNeurons(Dense(3, 2), 4, 4, U, copy_stride=2),
            "copy_stride must .* got 2 for 3 inputs in 1 groups",
        ),
        (
            lambda: ReplicatedNeurons(Conv(4, 4, (1, 1), groups=4), 4, 4, U, copy_stride=2),
            "copy_stride must .* got 2 for 4 inputs in 4 groups",
        ),
        (lambda: ReplicatedNeurons(Dense(3, 2), 1 << 16, 1, U).random_tensors(), "65536 random weights"),
        (
            lambda: ReplicatedNeurons(Dense(1000, 1000), 100, 100, U).random_tensors(),
            r"100000 outputs has over 2\*\*32",
        ),
        (lambda: ReplicatedGadget(Dense(3, 2), 4, U, U, copies=0), "at least 1 copy, got 0"),
        (lambda: Gadget(Dense(3, 2), 4, U, U, gain=0.1), "gain must be a float32 .* got 0.1"),
        (lambda: Gadget(Dense(3, 2), 4, U, U, gain=math.nan), "gain must be a float32 .* got nan"),
        (lambda: Gadget(Dense(3, 2), 4, U, U, gain=2.0**65), "gain must be a float32"),
        (lambda: Gadget(Dense(3, 2), 0, U, U).random_tensors(), "0 random weights for each target weight; 1 to 65535"),
        (lambda: Gadget(Dense(3, 2), 1 << 16, U, U).random_tensors(), "65536 random weights"),
        (lambda: CandidatesPerWeight(Dense(3, 2), 1 << 16, (U,)).random_tensors(), "65536 random weights"),
        (lambda: Gadget(Dense(10_000, 1), 50, U, U).random_tensors(), r"gadget of 10000 inputs .* 2\*\*32"),
        (
            lambda: Gadget(Dense(100, 50_000), 1000, U, U).random_tensors(),
            r"matrix of 100 inputs, 1000 units .* 2\*\*32",
        ),
        (lambda: RandomLayer(Dense(1 << 16, (1 << 16) + 1), U).random_tensors(), r"65537 outputs has over 2\*\*32"),
    ],
)
def test_bad_sources_are_refused(make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.array([[0, 1]], np.int32), "int64 rows"),
        (np.array([0, 1]), "int64 rows"),
        (np.array([[1, 1], [0, 1]]), "out of order"),
        (np.array([[1, 1], [1, 2]]), "out of order"),
        (np.array([[6, 1]]), "blocks 0 to 5"),
        (np.array([[-1, 1]]), "blocks 0 to 5"),
        (np.array([[0, 0]]), "attempts 1 to 255"),
        (np.array([[0, 256]]), "attempts 1 to 255"),
    ],
)
def test_bad_redraws_are_refused(rows: np.ndarray, words: str) -> None:
    tensor = RandomLayer(Dense(3, 2), U).random_tensors()["weight"]
    tensor.check_redraws("fc1.weight", np.array([[0, 1], [5, MAX_ATTEMPTS]]))
    with pytest.raises(InputError, match=words):
        tensor.check_redraws("fc1.weight", rows)


def test_redraws_are_accepted_exactly_if_plain_integers_are_in_range_and_order() -> None:
    """Differences of such numbers wrap around in int64; Python's integers do not."""
    tensor = RandomLayer(Dense(3, 2), U).random_tensors()["weight"]
    random, accepted = np.random.default_rng(0), 0
    blocks = [-(2**63), -(2**62), -1, 0, 1, 2, 3, 4, 5, 6, 2**62, 2**63 - 1]
    for _ in range(3000):
        count = random.integers(1, 4)
        rows = np.stack([random.choice(blocks, count), random.choice([-(2**63), 0, 1, 255, 256, 2**63 - 1], count)], 1)
        ascending = all(before < after for before, after in itertools.pairwise(rows[:, 0].tolist()))
        fine = ascending and all(0 <= block < 6 and 1 <= attempt <= 255 for block, attempt in rows.tolist())
        accepted += fine
        try:
            tensor.check_redraws("fc1.weight", rows)
            assert fine, rows
        except InputError:
            assert not fine, rows
    assert accepted > 50
