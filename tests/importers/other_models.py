"""Models of the catalogue that are not of Flax NNX: functions, Linen and Equinox."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from tests.importers.models import model


def weights(seed: int, *shapes: Sequence[int]) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in shapes]


# Functions


@model("function of a list of pairs")
def _(seed: int) -> tuple:
    def function(pairs: Any, x: jax.Array) -> jax.Array:
        for number, (weight, bias) in enumerate(pairs):
            x = (jax.nn.relu(x) if number else x) @ weight + bias
        return x

    w1, b1, w2, b2 = weights(seed, (6, 5), (5,), (5, 3), (3,))
    return function, (1, 6), [(w1, b1), (w2, b2)]


@model("function over its own weights")
def _(seed: int) -> tuple:
    w1, b1, w2 = map(jnp.asarray, weights(seed, (5, 6), (5,), (3, 5)))
    return lambda x: jax.nn.relu(x @ w1.T + b1) @ w2.T, (1, 6)


@model("jitted function over its own weights")
def _(seed: int) -> tuple:
    w1, w2 = map(jnp.asarray, weights(seed, (5, 6), (3, 5)))
    inner = jax.jit(lambda x: jnp.tanh(x @ w1.T))
    return jax.jit(lambda x: inner(x) @ w2.T), (1, 6)


@model("function of NumPy's weights")
def _(seed: int) -> tuple:
    w1, w2 = weights(seed, (6, 5), (5, 3))
    return lambda x: jnp.tanh(x @ w1) @ w2, (1, 6)


@model("function with names like others")
def _(seed: int) -> tuple:
    w1, w2, w3, w4 = weights(seed, (6, 5), (5, 3), (3, 2), (2,))

    def function(p: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ p["a.b"]) @ p["a"]["b"] @ p["params"]["a"]["b"]["kernel"] + p["params"]["a"]["b"]["bias"]

    return function, (1, 6), {"a.b": w1, "a": {"b": w2}, "params": {"a": {"b": {"kernel": w3, "bias": w4}}}}


class _Half:
    def __call__(self, x: jax.Array) -> jax.Array:
        return x / 2


@jax.custom_jvp
def _smooth(x: jax.Array) -> jax.Array:
    return jnp.sqrt(x * x + 1)


_smooth.defjvp(lambda x, t: (_smooth(*x), x[0] / _smooth(*x) * t[0]))


@jax.custom_vjp
def _straight(x: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(jnp.clip(x, -1, 1))


_straight.defvjp(lambda x: (_straight(x), None), lambda _, g: (g,))


@model("function with derivative rules")
def _(seed: int) -> tuple:
    (w,) = weights(seed, (6, 4))
    return lambda p, x: _straight(_Half()(_smooth(x)) @ p["w"]), (1, 6), {"w": w}


@model("function that updates parts of its input", slow=True)
def _(seed: int) -> tuple:
    w, v = weights(seed, (6, 4), (4, 2, 2))

    def function(p: Any, x: jax.Array) -> jax.Array:
        x = jnp.concatenate([x[:, 3:], x[:, :3]], 1)
        x = jnp.pad(x @ p["w"], ((0, 0), (1, 2)))[:, 1:-2] + jnp.roll(x, 2, 1)[:, ::2].sum(1, keepdims=True)
        return jnp.einsum("bi,ijk->bkj", x, p["v"])[..., ::-1]

    return function, (1, 6), {"w": w, "v": v}


@model("function of tokens, one-hot")
def _(seed: int) -> tuple:
    w, v = weights(seed, (7, 4), (20, 3))
    function = lambda p, x: jax.nn.relu(jax.nn.one_hot(x, 7) @ p["w"]).reshape(len(x), -1) @ p["v"]  # noqa: E731
    return function, np.random.default_rng(0).integers(0, 7, (4, 5)), {"w": w, "v": v}


@model("bag of words with padding")
def _(seed: int) -> tuple:
    w, v = weights(seed, (7, 4), (4, 3))

    def function(p: Any, x: jax.Array) -> jax.Array:
        present = (x != 0).astype(jnp.float32)[..., None]
        return (p["table"][x] * present).sum(1) / jnp.maximum(present.sum(1), 1) @ p["w"]

    return function, np.random.default_rng(0).integers(0, 7, (4, 5)), {"table": w, "w": v}


# Flax Linen


class Linen(nn.Module):
    """A residual network with batch normalisation."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x)))
        y = nn.Dropout(0.5, deterministic=True)(nn.Conv(4, (3, 3), name="inner")(x))
        return nn.Dense(3)((x + nn.GroupNorm(2)(y)).mean((1, 2)))


def _variables(module: nn.Module, seed: int, shape: tuple[int, ...]) -> Any:
    random = np.random.default_rng(seed)
    variables = module.init(jax.random.key(seed), jnp.zeros((1, *shape)))
    return jax.tree.map(lambda leaf: np.abs(leaf + random.uniform(-0.2, 0.2, leaf.shape).astype(np.float32)), variables)


@model("linen, residual network")
def _(seed: int) -> tuple:
    return Linen(), (1, 5, 5, 2), _variables(Linen(), seed, (5, 5, 2))


@model("linen, bound", slow=True)
def _(seed: int) -> tuple:
    module = nn.Sequential([nn.Dense(5), nn.tanh, nn.Dense(3)])
    return module.bind(_variables(module, seed, (6,))), (1, 6)


@model("linen, attention and embedding", slow=True)
def _(seed: int) -> tuple:
    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            mask = nn.make_causal_mask(x)
            y = nn.Embed(7, 4)(x)
            y = y + nn.MultiHeadDotProductAttention(2, deterministic=True)(nn.RMSNorm()(y), mask=mask)
            return nn.Dense(3)(y)

    tokens = np.random.default_rng(0).integers(0, 7, (3, 5))
    module = Transformer()
    return module, tokens, module.init(jax.random.key(seed), jnp.asarray(tokens))


@model("linen, recurrent", slow=True)
def _(seed: int) -> tuple:
    module = linen.RNN(linen.GRUCell(3))
    return module, (1, 4, 2), _variables(module, seed, (4, 2))


# Equinox


@model("equinox, mlp")
def _(seed: int) -> tuple:
    return eqx.nn.MLP(6, 3, 5, 2, key=jax.random.key(seed)), (1, 6)


@model("equinox, convolutions", slow=True)
def _(seed: int) -> tuple:
    one, two, three, four = jax.random.split(jax.random.key(seed), 4)
    layers = [
        eqx.nn.Conv2d(2, 4, 3, padding=1, key=one),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.GroupNorm(2, 4),
        eqx.nn.Conv2d(4, 4, 3, groups=2, dilation=2, padding=2, key=two),
        eqx.nn.AvgPool2d(2, 2),
        eqx.nn.ConvTranspose2d(4, 2, 3, stride=2, key=three),
        eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(2 * 7 * 7, 3, key=four),
        eqx.nn.Dropout(0.5, inference=True),
    ]
    return eqx.nn.Sequential(layers), (1, 2, 6, 6)


@model("equinox, attention", slow=True)
def _(seed: int) -> tuple:
    one, two = jax.random.split(jax.random.key(seed))

    class Layer(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        norm: eqx.nn.LayerNorm
        out: eqx.nn.Linear

        def __call__(self, x: jax.Array) -> jax.Array:
            y = jax.vmap(self.norm)(x)
            mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
            return jax.vmap(self.out)(x + self.attention(y, y, y, mask=mask))

    layer = Layer(eqx.nn.MultiheadAttention(2, 4, key=one), eqx.nn.LayerNorm(4), eqx.nn.Linear(4, 3, key=two))
    return layer, (1, 5, 4)


@model("equinox, recurrent", slow=True)
def _(seed: int) -> tuple:
    class Recurrent(eqx.Module):
        cell: eqx.nn.LSTMCell

        def __call__(self, x: jax.Array) -> jax.Array:
            return jax.lax.scan(lambda state, row: (self.cell(row, state), None), (jnp.zeros(3), jnp.zeros(3)), x)[0][0]

    return Recurrent(eqx.nn.LSTMCell(2, 3, key=jax.random.key(seed))), (1, 4, 2)
