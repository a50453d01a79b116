"""A traced function: names of parameters, refused operations, and rules that random inputs would not find wrong."""

import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lottery_jax import target_from
from lottery_jax.errors import InputError
from lottery_jax.importers import jax_trace
from lottery_jax.importers.target_from import import_model
from lottery_jax.networks.layers.operations import Elementwise

W = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 4)).astype(np.float32)
ADVICE = r"Replace it in the model, or approximate the weights alone \(load_model, or --model on the command line\)\."


class Pair(nnx.Module):
    """Two dense layers with batch normalisation and dropout, in training mode."""

    def __init__(self, norm: bool = False, rate: float = 0.0) -> None:
        rngs = nnx.Rngs(0)
        self.fc = nnx.Linear(6, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs) if norm else None
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.fc(x)
        return self.drop(x if self.norm is None else self.norm(x))


def operation(function: Callable[[jax.Array], Any], found: str, shape: tuple[int, ...] = (1, 6)) -> tuple:
    """A model whose hidden values [1, 4] a function takes, and the operation in the refusal."""

    def model(p: Any, x: jax.Array) -> Any:
        return function(x @ p["hidden"]["kernel"] if x.ndim == 2 else x)

    words = (
        rf"^the operations of a model must be those of \S+, got {found}{'' if len(shape) > 2 else ' behind hidden'}\. "
    )
    return model, shape, words + ADVICE, {"hidden": {"kernel": W}}


def double(x: Any) -> np.ndarray:
    return 2 * np.asarray(x)


OPERATIONS = {
    "sort": operation(lambda y: jnp.sort(y, -1), "'sort'"),
    "argmax": operation(lambda y: jax.nn.one_hot(y.argmax(-1), 4), "'argmax'"),
    "top k": operation(lambda y: jax.lax.top_k(y, 2)[0], "'top_k'"),
    "while loop": operation(lambda y: jax.lax.while_loop(lambda z: z.sum() < 9, lambda z: z * z + 1, y), "'while'"),
    "branch on data": operation(lambda y: jax.lax.cond(y.sum() > 0, jnp.tanh, jnp.sin, y), "'cond'"),
    "cumulative sum": operation(lambda y: jnp.cumsum(y, 1), "'cumsum'"),
    "Fourier transform": operation(lambda y: jnp.abs(jnp.fft.rfft(y)), "'fft' of complex64"),
    "complex numbers": operation(lambda y: jnp.abs(jax.lax.complex(y, y)), "'complex' of complex64"),
    "solve": operation(lambda y: jnp.linalg.solve(jnp.eye(4) + y.T @ y, y.T).T, r"'lu'"),
    "float16": operation(
        lambda y: (y.astype(jnp.float16) * jnp.float16(2)).astype(jnp.float32), r"'convert_element_type' of float16"
    ),
    "bfloat16": operation(lambda y: y.astype(jnp.bfloat16).astype(jnp.float32), r"'convert_element_type' of bfloat16"),
    "reduced precision": operation(lambda y: jax.lax.reduce_precision(y, 8, 7), "'reduce_precision'"),
    "float to integer": operation(
        lambda y: y.astype(jnp.int32).astype(jnp.float32), "'convert_element_type' of float32 to int32"
    ),
    "remainder": operation(lambda y: jax.lax.rem(y, jnp.ones_like(y)), "'rem'"),
    "inverse of erf": operation(lambda y: jax.lax.erf_inv(y), "'erf_inv'"),
    "callback": operation(
        lambda y: jax.pure_callback(double, jax.ShapeDtypeStruct((1, 4), np.float32), y), "'pure_callback'"
    ),
    "print": operation(lambda y: jax.debug.print("{}", y) or y, "'(debug_callback|debug_print)'"),
    "long loop": operation(
        lambda y: jax.lax.scan(lambda h, _: (jnp.tanh(h), None), y, None, length=65)[0],
        "'scan' of 65 steps, more than 64",
    ),
    "long flip": operation(lambda y: y[:, ::-1], "'rev' of 70 numbers, more than 64, at the input", (1, 70, 1)),
    "convolution of volumes": operation(
        lambda x: jax.lax.conv(x, jnp.ones((1, 1, 2, 2, 2)), (1, 1, 1), "SAME"),
        "'conv_general_dilated' along 3 axes at the input",
        (1, 1, 4, 4, 4),
    ),
    "kernel from data": operation(
        lambda x: jax.lax.conv(x, x, (1, 1), "VALID"),
        "'conv_general_dilated' with a kernel that depends on the input at the input",
        (1, 1, 4, 4),
    ),
    "rows by data": operation(lambda y: y[jnp.argsort(y[:, 0])], "'(sort|squeeze)'"),
    "update by index": operation(lambda y: y.at[:, 1].set(0.0), "'scatter'"),
    "padding with infinity": operation(
        lambda y: jnp.pad(y, ((0, 0), (1, 0)), constant_values=-jnp.inf), "'pad' with -inf"
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_outside_the_list_is_refused_by_name(name: str) -> None:
    model, shape, words, parameters = OPERATIONS[name]
    with pytest.raises(InputError, match=words):
        target_from(model, shape, parameters)


def tokens(function: Callable[[jax.Array], jax.Array], found: str) -> tuple:
    """A model of tokens."""
    words = rf"^the operations of a model must be those of \S+, got {found} at the input\. " + ADVICE
    return lambda p, x: function(x) @ p["w"], np.arange(12).reshape(2, 6), words, {"w": W}


def tree(function: Callable[..., Any], example: Any, words: str, value: Any = W) -> tuple:
    return function, example, words, {"w": value}


def alone(model: Any, example: Any, words: str) -> tuple:
    return model, example, words


def linear(p: Any, x: jax.Array) -> jax.Array:
    return x @ p["w"]


RUN = (
    r"^model must run on a batch \[1, 6\] of float32 and be a pure function of JAX, but it raised {}.* Pass a function "
)
SHAPE = r"^a model must map a batch .* got outputs of the shapes {} for a batch of one example\. Wrap it"
EVAL = r"^model must be in evaluation mode, got one that {}.* Call model\.eval\(\) first\.$"

REFUSED = {
    "integer division": tokens(lambda x: jax.lax.div(x, jnp.full_like(x, 2)).astype(jnp.float32), "'div' of int32"),
    "large integers": tokens(lambda x: (x + jnp.int32(2**25)).astype(jnp.float32), "'add' of int32"),
    "bits": tokens(lambda x: (x & 1).astype(jnp.float32), "'and' of int32"),
    "wrapping integers": tokens(
        lambda x: x.astype(jnp.int8).astype(jnp.float32), "'convert_element_type' of int32 to int8"
    ),
    "batch norm in training mode": alone(Pair(norm=True), (1, 6), EVAL.format("updates its state at 'norm")),
    "active dropout": alone(Pair(rate=0.5), (1, 6), EVAL.format("draws random numbers")),
    "active dropout of equinox": alone(
        eqx.nn.Dropout(0.5), (1, 6), r"^parameters must hold arrays, got Dropout without"
    ),
    "equinox with a key": alone(
        eqx.nn.Sequential([eqx.nn.Linear(6, 4, key=jax.random.key(0)), eqx.nn.Dropout(0.5)]),
        (1, 6),
        RUN.format("RuntimeError"),
    ),
    "statistics of the batch": tree(
        lambda p, x: (lambda y: y - y.mean(0))(x @ p["w"] + x[:, :4]), (1, 6), "depend on other examples of the batch"
    ),
    "first example": tree(lambda p, x: x @ p["w"] + x[:1, :4], (1, 6), "depend on other examples of the batch"),
    "size of the batch": tree(lambda p, x: x @ p["w"] / len(x), (1, 6), "depend on other examples of the batch"),
    "random numbers": tree(
        lambda p, x: x @ p["w"] + jax.random.normal(jax.random.key(0), (len(x), 4)), (1, 6), "depend on other examples"
    ),
    "two outputs": tree(lambda p, x: (x @ p["w"], x), (1, 6), SHAPE.format(r"\[\[1, 4\], \[1, 6\]\]")),
    "one output in a tuple": tree(lambda p, x: (x @ p["w"],), (1, 6), SHAPE.format(r"\[\[1, 4\]\]")),
    "dictionary": tree(lambda p, x: {"logits": x @ p["w"]}, (1, 6), SHAPE.format(r"\[\[1, 4\]\]")),
    "numbers without their axis": tree(lambda p, x: (x @ p["w"]).sum(1), (1, 6), SHAPE.format(r"\[\[1\]\]")),
    "mean over the batch": tree(lambda p, x: (x @ p["w"]).mean(0), (1, 6), SHAPE.format(r"\[\[4\]\]")),
    "constants": tree(lambda p, x: p["w"][:1], (1, 6), "outputs of a model must depend on its input, got constants"),
    "two inputs": alone(lambda x, y: x + y, (1, 6), RUN.format("TypeError")),
    "wrong shape": tree(linear, (1, 5), r"^model must run on a batch \[1, 5\] of float32 .* raised TypeError"),
    "branch of Python": tree(
        lambda p, x: x @ p["w"] if x.sum() > 0 else -x @ p["w"], (1, 6), RUN.format("TracerBoolConversionError")
    ),
    "NumPy inside": tree(
        lambda p, x: jnp.asarray(np.tanh(np.asarray(x)) @ p["w"]), (1, 6), RUN.format("TracerArrayConversionError")
    ),
    "NaN": tree(linear, (1, 6), r"^parameters must be numbers, got NaN in w\. ", np.full((6, 4), np.nan, np.float32)),
    "NaN in a bias": tree(
        lambda p, x: jax.nn.relu(x @ W) @ W.T + p["w"],
        (1, 6),
        "^parameters must be numbers, got NaN in w",
        np.float32([np.nan] * 6),
    ),
    "infinite outputs": tree(lambda p, x: jnp.log(-1 - jnp.abs(x @ p["w"])), (1, 6), "^model must have finite outputs"),
    "no parameters": tree(linear, (1, 6), "^parameters must hold arrays, got dict without", 3.0),
    "no batch axis": tree(
        linear, (6,), r"^example must be a batch \[N, \.\.\.\] or its shape, got \[6\]\. Pass one with"
    ),
    "strings": tree(linear, np.array([["a", "b"]]), "^example must hold floats or integers, got <U1. Convert it"),
    "complex example": tree(linear, np.ones((1, 6), complex), "^example must hold floats or integers, got complex128"),
    "example with NaN": tree(linear, np.full((2, 6), np.nan), "^example must be finite, got nan"),
    "linen without variables": alone(
        nn.Dense(3), (1, 6), "^parameters must be the variables of a Linen module, got none"
    ),
    "a number": alone(3, (1, 6), "^model must be a Flax module, .* got a int"),
    "a long name": (
        lambda p, x: x @ p["w" * 500],
        (1, 6),
        "^the names of parameters must have at most 480 characters",
        {"w" * 500: W},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_not_a_function_of_one_example_is_refused(name: str) -> None:
    model, example, words, *parameters = REFUSED[name]
    with pytest.raises(InputError, match=words) as refusal:
        target_from(model, example, *parameters)
    assert re.search(r"\. [A-Z][^.]*(\.[^.]+)*\.$", str(refusal.value)), "no advice"


STRANGE = [
    *("input", "a b", "a/b", "a.b", "(a)", "(a", "a)", "", "weight", "ä ö", "reshape_1", "dense_1", "x" * 300, "items"),
    *("keys", "__class__", "_pytree__state", "graph", "stored", "layers", "update", "0", "\n", "fc.gain", "{}"),
]


@pytest.mark.parametrize("kind", ["layer", "stored"])
@pytest.mark.parametrize("name", STRANGE)
def test_parameters_may_have_any_name(name: str, kind: str) -> None:
    """In a module, a file and a ticket."""
    scale = np.linspace(0.5, 2, 6, dtype=np.float32)
    parameters: dict[str, Any] = (
        {name: W, "other": {"weight": W.T}} if kind == "layer" else {name: scale, "fc": {"kernel": W}}
    )

    def model(p: Any, x: jax.Array) -> jax.Array:
        return (
            jnp.tanh(x @ p[name]) @ p["other"]["weight"]
            if kind == "layer"
            else jnp.tanh(x * p[name]) @ p["fc"]["kernel"]
        )

    one = import_model(model, (1, 6), parameters)
    x = np.random.default_rng(1).normal(size=(16, 6)).astype(np.float32)
    np.testing.assert_allclose(one.target.module()(jnp.asarray(x)), model(parameters, x), rtol=0, atol=1e-5)
    (own,) = [path for path in one.model.parameters if path not in ("other.weight", "fc.kernel")]
    tensors = [tensor for tensor, place in one.placements.items() if place.parameter == own]
    assert len(tensors) == 1 and tensors[0] in one.target.network.tensors
    if name not in ("input", "(a)", "(a", "", "weight", "fc.gain", "reshape_1"):
        assert tensors[0] == (name + ".weight" if kind == "layer" else name)


def test_two_parameters_of_one_path_stay_apart() -> None:
    parameters = {"a.b": 2 * W, "a": {"b": W}}
    target = target_from(lambda p, x: x @ p["a.b"] - jnp.tanh(x @ p["a"]["b"]), (1, 6), parameters)
    found = [target.array(name) for name in target.network.approximated]
    np.testing.assert_array_equal(sorted(map(np.ptp, found)), sorted(map(np.ptp, (W, 2 * W))))


def computes_the_same(function: Callable[[jax.Array], jax.Array], x: Any) -> None:
    """On these inputs, which random ones are not."""
    x = np.asarray(x)
    batch = np.tile(x.reshape(1, -1), (2, 1))
    model = lambda p, x: function(x) + 0 * (x.astype(jnp.float32) @ p["w"]).sum(1, keepdims=True)  # noqa: E731
    target = target_from(model, batch, {"w": np.ones((x.size, 2), np.float32)})
    np.testing.assert_array_equal(target.module()(jnp.asarray(batch, jnp.float32))[0], function(jnp.asarray(batch))[0])


@pytest.mark.parametrize("method", [jax.lax.RoundingMethod.AWAY_FROM_ZERO, jax.lax.RoundingMethod.TO_NEAREST_EVEN])
def test_halves_are_rounded_as_jax_does(method: Any) -> None:
    halves = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, -0.49999997, 8388607.5, 0, 3])
    computes_the_same(lambda x: jax.lax.round(x, method), halves)


def test_comparisons_are_exact_at_equal_numbers() -> None:
    numbers = np.float32([0, 1, -1, 1, 0, 2])
    for compare in (jnp.greater, jnp.greater_equal, jnp.less, jnp.less_equal, jnp.equal, jnp.not_equal):
        computes_the_same(lambda x, compare=compare: compare(x, 1).astype(jnp.float32), numbers)
    computes_the_same(lambda x: jnp.where(~(x > 0) | (x == 2), x, 7) + jnp.sign(x), numbers)


def test_infinity_and_nan_inside_are_seen() -> None:
    numbers = np.float32([0, 1, -1, 200, 0, 2])
    computes_the_same(lambda x: jnp.where(jnp.isfinite(jnp.exp(x)), x, -3), numbers)
    computes_the_same(lambda x: jnp.where(jnp.isnan(x / x), 5, x), numbers)
    computes_the_same(lambda x: jnp.where(jnp.exp(x) == jnp.inf, 1, x), numbers)
    computes_the_same(lambda x: jnp.where(1 / x != jnp.inf, x, 9), numbers)
    computes_the_same(lambda x: jnp.nan_to_num(x / x), numbers)


def test_tokens_are_clipped_to_their_table_and_counted_exactly() -> None:
    table = jnp.asarray(np.random.default_rng(0).normal(size=(5,)).astype(np.float32))
    computes_the_same(lambda x: table[x] + table[jnp.clip(2 * x - 3, 0, 4)], np.arange(5))
    computes_the_same(lambda x: jnp.where(x == x.max(1, keepdims=True), 1.0, 0.0), np.arange(5))
    computes_the_same(lambda x: x.astype(jnp.float32) / 255, np.arange(250, 256).astype(np.uint8))


def test_a_wrong_rule_is_found_and_its_layer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.conv, self.fc = nnx.Conv(1, 2, (2, 2), rngs=rngs), nnx.Linear(32, 3, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = jnp.moveaxis(nnx.relu(self.conv(x)), -1, 1).reshape(len(x), -1)
            return self.fc(jnp.tanh(x)) * 2

    assert target_from(Net(), (1, 4, 4, 1)).network.approximated
    wrong = lambda at, x: jax_trace.Traced(at.build.add(Elementwise("sin"), x.name))  # noqa: E731
    monkeypatch.setitem(jax_trace.RULES, "tanh", wrong)
    with pytest.raises(InputError, match=r"that differs is 'sin_\d+' \(elementwise behind 'conv'\)\. Please report"):
        target_from(Net(), (1, 4, 4, 1))
    monkeypatch.undo()
    convolution = jax_trace.RULES["conv_general_dilated"]

    def flipped(at: Any, x: Any, weight: Any) -> Any:
        return convolution(at, x, weight.moved(np.flip))

    monkeypatch.setitem(jax_trace.RULES, "conv_general_dilated", flipped)
    with pytest.raises(InputError, match=r"The first layer that differs is 'conv'\. Please report it\.$"):
        target_from(Net(), (1, 4, 4, 1))
