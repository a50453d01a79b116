"""Weights as their owners have them: one network, whether it comes as a list, by PyTorch's names or from Flax."""

import itertools
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen, nnx

from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import dense_layers, mlp_target, natural_order
from lottery_jax.networks.node import Spec

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(5, 4)), jnp.float32)
FIRST, SECOND = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((3, 4), (2, 3)))
BIAS = RANDOM.normal(size=3).astype(np.float32)
WANTED = np.maximum(X @ FIRST.T + BIAS, 0) @ SECOND.T
FLAX = {"Dense_0": {"kernel": FIRST.T, "bias": BIAS}, "Dense_1": {"kernel": SECOND.T}}


def square(*names: str) -> dict[str, np.ndarray]:
    return {f"{name}.weight": np.full((2, 2), number, np.float32) for number, name in enumerate(names)}


class Model(nnx.Module):
    """Layers whose names come in another order when they are sorted, and what has no weights."""

    def __init__(self, sizes: tuple[int, int, int] = (4, 3, 2)) -> None:
        self.stem = nnx.Linear(*sizes[:2], rngs=nnx.Rngs(0))
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(2))
        self.head = nnx.Linear(*sizes[1:], use_bias=False, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.stem(x)))


class SharedLayers(nnx.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        self.first = self.second = nnx.Linear(3, 3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    "weights",
    [
        {"fc1.weight": FIRST, "fc1.bias": BIAS, "fc2.weight": SECOND},
        {"net.2.weight": jnp.asarray(SECOND), "net.0.bias": BIAS.tolist(), "net.0.weight": jnp.asarray(FIRST)},
        {"stem": {"weight": FIRST, "bias": BIAS}, "head": {"weight": SECOND}},
        types.MappingProxyType(FLAX),
        {"params": FLAX},
        {"params": dict(reversed(FLAX.items()))},
        {"Dense_0.kernel": FIRST.T, "Dense_0.bias": BIAS, "Dense_1.weight": SECOND},
    ],
    ids=["pytorch", "jax", "nested", "flax", "params", "reversed", "mixed"],
)
def test_every_form_is_the_same_network(weights) -> None:
    target = mlp_target(weights, nonnegative=True)
    np.testing.assert_allclose(target.forward()(X), WANTED, rtol=1e-5, atol=1e-5)
    assert target.network.input_spec == Spec((4,), True)
    assert [len(shape) for shape in target.network.tensors.values()] == [2, 1, 2]


def test_lists_may_hold_the_arrays_of_jax() -> None:
    biases = [jnp.asarray(BIAS), jnp.zeros(2)]
    for rows in ([jnp.asarray(FIRST), SECOND], (FIRST, SECOND), (FIRST.tolist(), SECOND.tolist())):
        np.testing.assert_allclose(mlp_target(rows, biases).forward()(X), WANTED, rtol=1e-5, atol=1e-5)
    stack = mlp_target(jnp.ones((2, 3, 3)))
    assert stack.network.tensors == {"fc1.weight": (3, 3), "fc2.weight": (3, 3)}
    half = mlp_target([FIRST.astype(ml_dtypes.bfloat16), jnp.asarray(SECOND, jnp.float16)])
    np.testing.assert_array_equal(half.array("fc1.weight"), FIRST.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert mlp_target([np.ones((2, 3), int)]).array("fc1.weight").dtype == np.float32


def test_modules_of_linear_layers_and_their_states() -> None:
    model = Model()
    for given in (model, nnx.to_pure_dict(nnx.state(model, nnx.Param)) | {}):
        if not isinstance(given, nnx.Module):  # comes sorted: `head` is first, and does not fit
            with pytest.raises(InputError, match=r"'stem' has 4 inputs, but 'head' before it has 2 outputs"):
                mlp_target(given)
            given = {name: given[name] for name in ("stem", "head")}
        found = mlp_target(given)
        np.testing.assert_allclose(found.forward()(X), model(X), rtol=1e-5, atol=1e-5)
        assert list(found.network.tensors) == ["stem.weight", "stem.bias", "head.weight"]
    layers = [nnx.Linear(4, 4, rngs=nnx.Rngs(seed)) for seed in range(12)]
    chain = nnx.Sequential(*[part for layer in layers for part in (nnx.relu, layer)][1:])
    x = chain(X)
    for given in (chain, nnx.state(chain), nnx.state(chain, nnx.Param)):
        np.testing.assert_allclose(mlp_target(given).forward()(X), x, rtol=1e-4, atol=1e-4)
    assert mlp_target(chain.layers[0]).network.tensors == {"fc1.weight": (4, 4), "fc1.bias": (4,)}


def test_parameters_of_linen() -> None:
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for _ in range(11):
                x = linen.relu(linen.Dense(4)(x))
            return linen.Dense(2, use_bias=False)(x)

    net = Net()
    given = net.init(jax.random.key(0), X)
    given = jax.tree.map(lambda value: value + 0.1, given)  # comes back sorted: Dense_10 before Dense_2
    for form in (given, given["params"]):
        target = mlp_target(form)
        assert list(target.network.weight_nodes)[-2:] == ["Dense_10", "Dense_11"]
        np.testing.assert_allclose(target.forward()(X), net.apply(given, X), rtol=1e-4)


def test_numbers_are_put_in_order_and_other_names_stay() -> None:
    assert natural_order(["a10", "b", "a9"]) == ["a9", "a10", "b"]
    assert natural_order(["enc.0.up", "enc.0.down", "enc.1.up", "enc.1.down", "dec.0"]) == [
        *("enc.0.up", "enc.0.down", "enc.1.up", "enc.1.down", "dec.0")
    ]
    assert natural_order(["fc", "fc2", "fc1"]) == ["fc", "fc1", "fc2"] and natural_order([]) == []
    assert len(natural_order(["a" + "9" * 9999, "a1"])) == 2  # more digits than Python reads
    assert natural_order(["²", "1", "0"]) == ["²", "0", "1"]  # a digit to Python, and no number


def orders(sizes: list[tuple[int, int]]) -> int:
    """In how many orders these layers (in, out) chain, by trying all of them."""
    return sum(
        all(left[1] == right[0] for left, right in itertools.pairwise(order)) for order in itertools.permutations(sizes)
    )


def test_an_order_that_nothing_tells_is_refused() -> None:
    """Sorted names without numbers are taken only where no other order fits: against all orders of small networks."""
    refused = 0
    for count in (1, 2, 3, 4, 5):
        for sizes in itertools.product((1, 2, 3), repeat=count + 1):
            pairs = list(itertools.pairwise(sizes))
            weights = {f"{name}.weight": np.ones(pair[::-1]) for name, pair in zip("abcde", pairs, strict=False)}
            if orders(pairs) == 1:
                assert [layer.weight.shape[::-1] for layer in dense_layers(weights)] == pairs
                continue
            refused += 1
            with pytest.raises(InputError, match="are in alphabetical order and would fit in another one"):
                dense_layers(weights)
    assert refused > 100
    assert len(dense_layers(square("encoder", "decoder"))) == 2  # nobody sorted these
    assert [layer.name for layer in dense_layers(square("b2", "b10", "b1"))] == ["b1", "b2", "b10"]
    hidden = {**square("hidden1", "hidden2", "hidden3"), "out.weight": np.ones((1, 2))}
    assert [layer.name for layer in dense_layers(hidden)] == ["hidden1", "hidden2", "hidden3", "out"]
    with pytest.raises(InputError, match="decoder, encoder are in alphabetical order"):
        dense_layers(jax.tree.map(jnp.asarray, square("encoder", "decoder")))
    assert [layer.name for layer in dense_layers(Model((2, 2, 2)))] == ["stem", "head"]
    with pytest.raises(InputError, match="head, stem are in alphabetical order"):
        dense_layers(nnx.state(Model((2, 2, 2))))


@pytest.mark.parametrize(
    ("weights", "biases", "words"),
    [
        ([], None, "one for each layer, got none. Pass"),
        ({}, None, "got none. Pass"),
        ({"params": {}}, None, "got none. Pass"),
        ([np.ones((2, 3, 1))], None, r"weight of 'fc1' must be a matrix \[out, in\], got the shape \[2, 3, 1\]. Pass"),
        (np.ones((2, 3)), None, r"must be a matrix \[out, in\], got the shape \[3\]. Pass"),
        (np.ones(()), None, "the weights must be a sequence of arrays, got a ndarray. Pass matrices"),
        ("fc.safetensors", None, "got a str. Pass matrices"),
        (None, None, "got a NoneType. Pass matrices"),
        ([np.ones((3, 4)), np.ones((2, 5))], None, r"'fc2' has 5 inputs, but 'fc1' before it has 3 outputs. Pass"),
        ([np.ones((3, 4))], [np.ones(2)], r"bias of 'fc1' must have the shape \[3\] of its outputs, got \[2\]"),
        ([np.ones((3, 4))], [], "biases must be one for each of 1 weights, or None, got 0"),
        ([np.ones((3, 4))], [np.ones(3), np.ones(3)], "biases must be one for each of 1 weights, or None, got 2"),
        ([np.ones((3, 4))], {"fc1.bias": np.ones(3)}, "the biases must be a sequence of arrays, got a dict. Pass"),
        ([np.ones((3, 4))], [[[1.0], [2.0, 3.0]]], r"bias of 'fc1' must be an array, got a list"),
        ([[[1.0], [2.0, 3.0]]], None, r"weight of 'fc1' must be an array, got a list. Pass"),
        ([np.ones((0, 4))], None, r"got the shape \[0, 4\]"),
        ([np.ones((3, 4), complex)], None, "must hold real numbers, got a ndarray of complex128. Pass"),
        ([np.ones((3, 4), bool)], None, "must hold real numbers, got a ndarray of bool"),
        ([np.full((3, 4), "a")], None, "must hold real numbers, got a ndarray of str32"),
        ([{"kernel": np.ones((3, 4))}], None, r"'fc1' must hold real numbers, got a dict of object"),
        ([jax.random.key(0)], None, r"must be an array|must hold real numbers"),
        ({"fc1.weight": FIRST}, [BIAS], "biases must be None if the weights are a dict. Put them there"),
        ({"fc1": FIRST}, None, "hold 'fc1', which is not a part of a dense layer. Pass"),
        ({"norm.scale": BIAS}, None, "hold 'norm.scale', which is not a part of a dense layer"),
        ({"params": FLAX, "batch_stats": {"mean": BIAS}}, None, "hold 'batch_stats.mean', which is not a part"),
        ({"c.kernel": np.ones((3, 3, 1, 2))}, None, r"matrix \[in, out\], got the shape \[3, 3, 1, 2\]. Pass"),
        ({"a.bias": BIAS}, None, "layer 'a' must have one matrix, got bias. Pass"),
        ({"a.weight": FIRST, "a.kernel": FIRST.T}, None, "layer 'a' must have one matrix, got weight and kernel. Pass"),
        ({"a.weight": FIRST, "a": {"weight": FIRST}}, None, "two tensors of one name among a.weight. Pass"),
        ({"a.kernel": FIRST, "a.bias": BIAS}, None, r"bias of 'a' must have the shape \[4\] of its outputs, got \[3\]"),
        (nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), None, r"got the shape \[3, 3, 1, 2\]"),
        (nnx.BatchNorm(3, use_bias=False, use_scale=False, rngs=nnx.Rngs(0)), None, "hold 'mean', which is not a part"),
        (nnx.state(nnx.LayerNorm(3, rngs=nnx.Rngs(0))), None, "hold 'scale', which is not a part"),
        (SharedLayers(), None, "layer '(first|second)' shares its weights with another one"),
        ({"(a).weight": FIRST}, None, r"must have the tensors weight \[3, 4\], got \(a\).weight"),
        ({"relu1.weight": FIRST, "relu2.weight": SECOND}, None, "must have different names, got .*relu1"),
    ],
)
def test_what_is_no_chain_of_dense_layers_is_refused(weights, biases, words: str) -> None:
    with pytest.raises(InputError, match=words):
        mlp_target(weights, biases)


WEIGHTS, BIASES = [FIRST, SECOND], [BIAS, RANDOM.normal(size=2).astype(np.float32)]


def test_pairs_and_keras_order_are_the_same_network() -> None:
    expected = mlp_target(WEIGHTS, BIASES).digest
    kernels = [np.ascontiguousarray(weight.T) for weight in WEIGHTS]
    forms = {
        "pairs": list(zip(WEIGHTS, BIASES, strict=True)),
        "lists of pairs": [list(pair) for pair in zip(WEIGHTS, BIASES, strict=True)],
        "pairs of kernels": tuple(zip(kernels, BIASES, strict=True)),
        "get_weights": [kernels[0], BIASES[0], kernels[1], BIASES[1]],
        "parameters": [jnp.asarray(WEIGHTS[0]), BIASES[0], WEIGHTS[1], BIASES[1]],
        "nested lists": [(WEIGHTS[0].tolist(), BIASES[0].tolist()), (WEIGHTS[1].tolist(), BIASES[1].tolist())],
    }
    for name, form in forms.items():
        assert mlp_target(form).digest == expected, name
    assert mlp_target(kernels, BIASES, layout="keras").digest == expected
    assert mlp_target(WEIGHTS, BIASES, layout="torch").digest == expected
    some = mlp_target([(FIRST, BIAS), (SECOND, None)])
    assert some.digest == mlp_target([FIRST, BIAS, SECOND]).digest and len(some.network.tensors) == 3


def test_a_layout_is_never_guessed() -> None:
    """Against all sizes: the layout is taken from the shapes if one fits, else it is asked for."""
    asked = 0
    for sizes in itertools.product((1, 2, 3), repeat=3):
        weights = [RANDOM.normal(size=pair).astype(np.float32) for pair in zip(sizes[1:], sizes[:-1], strict=True)]
        biases = [np.ones(len(weight), np.float32) for weight in weights]
        expected = mlp_target(weights, biases).digest
        for layout, axes in (("torch", (0, 1)), ("keras", (1, 0))):
            matrices = [np.ascontiguousarray(weight.transpose(axes)) for weight in weights]
            for form in (list(zip(matrices, biases, strict=True)), [matrices[0], biases[0], matrices[1], biases[1]]):
                assert mlp_target(form, layout=layout).digest == expected
                if len(set(sizes)) == 1:
                    asked += 1
                    with pytest.raises(InputError, match=r"layout must be given .* layout='torch' or layout='keras'"):
                        mlp_target(form)
                else:
                    assert mlp_target(form).digest == expected
    assert asked == 12


@pytest.mark.parametrize(
    ("weights", "options", "words"),
    [
        ([FIRST], {"layout": "jax"}, r"layout must be 'torch' \(\[out, in\]\) or 'keras' .*, got 'jax'\. Choose"),
        (FLAX, {"layout": "keras"}, r"layout must be None if the weights are a dict, got 'keras'\. Name the tensors"),
        ([FIRST.T, SECOND.T], {}, "'fc2' has 2 inputs, but 'fc1' before it has 4 outputs"),
        ([FIRST, SECOND], {"layout": "keras"}, r"has \d inputs, but 'fc1' before it has"),
        ([FIRST, BIAS, BIAS, SECOND], {}, r"weight of 'fc2' must be a matrix \[out, in\], got the shape \[3\]"),
        ([BIAS, FIRST], {}, r"weight of 'fc1' must be a matrix \[out, in\], got the shape \[3\]"),
        ([(FIRST, SECOND)], {}, r"must be a matrix|must be an array"),
        ([(FIRST, np.ones(7, np.float32))], {}, r"bias of 'fc1' must have the shape \[3\] of its outputs, got \[7\]"),
    ],
)
def test_a_wrong_layout_is_refused(weights, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        mlp_target(weights, **options)


class Activated(nnx.Module):
    """Two linear layers with any function between them; dropout is inactive when it is compared."""

    def __init__(self, activation, *, residual: bool = False, swapped: bool = False) -> None:
        self.b = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.a = nnx.Linear(4, 4, rngs=nnx.Rngs(1))
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(2))
        self.activation, self.residual, self.swapped = activation, residual, swapped

    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = (self.a, self.b) if self.swapped else (self.b, self.a)
        hidden = self.drop(self.activation(first(x)))
        return second(hidden) + (x if self.residual else jnp.zeros_like(x))


def test_a_module_is_run_beside_its_target() -> None:
    model = Activated(nnx.relu)
    target = mlp_target(model)
    assert target.notes == () and not model.drop.deterministic
    again = {f"{name}.weight": np.asarray(getattr(model, name).kernel[...]).T for name in "ba"}
    assert mlp_target(again).notes == ("the target is taken as the layers b, a in this order, with ReLU between them",)
    others = {
        "tanh": Activated(jnp.tanh),
        "gelu": Activated(nnx.gelu),
        "leaky": Activated(nnx.leaky_relu),
        "none": Activated(lambda x: x),
        "residual": Activated(nnx.relu, residual=True),
        "order": Activated(nnx.relu, swapped=True),
    }
    for other in others.values():
        for nonnegative in (False, True):
            with pytest.raises(
                InputError,
                match=r"the module must have the outputs of .* the layers b, a in this order, with ReLU .*target_from",
            ):
                mlp_target(other, nonnegative=nonnegative)
    with pytest.raises(InputError, match=r"the module must take inputs \[16, 4\], float32, .* raised TypeError"):
        mlp_target(Images())


class Images(nnx.Module):
    """A module for inputs of another shape."""

    def __init__(self) -> None:
        self.fc = nnx.Linear(4, 2, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array, scale: jax.Array) -> jax.Array:
        return scale * self.fc(x)


def test_the_original_of_a_list_decides() -> None:
    def original(x):
        return jnp.maximum(x @ FIRST.T + BIAS, 0) @ SECOND.T

    target = mlp_target([FIRST, SECOND], [BIAS, np.zeros(2)], same_as=original)
    assert target.notes == ()
    with pytest.raises(InputError, match=r"^same_as must have the outputs of the target"):
        mlp_target([FIRST, SECOND], [BIAS, np.ones(2)], same_as=original)
    with pytest.raises(InputError, match=r"^same_as must have the outputs of the target"):
        mlp_target(FLAX, same_as=lambda x: jnp.tanh(x @ FIRST.T + BIAS) @ SECOND.T)
