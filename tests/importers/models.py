"""Small models of every kind that people have: the catalogue of `test_target_from`."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from tests.constructions.catalogue import random_target

Layers = Callable[[nnx.Rngs], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the catalogue.

    Args:
        build: From a seed to the arguments of `target_from`.
        slow: Whether only the slow tests import it.
    """

    build: Callable[[int], tuple]
    slow: bool = False


MODELS: dict[str, Model] = {}


def model(name: str, **options: Any) -> Callable[[Callable[[int], tuple]], Callable[[int], tuple]]:
    """Put a function from a seed to the arguments of `target_from` into the catalogue."""

    def register(build: Callable[[int], tuple]) -> Callable[[int], tuple]:
        assert name not in MODELS
        MODELS[name] = Model(build, **options)
        return build

    return register


class Net(nnx.Module):
    """Layers by name, and a function of them and x."""

    def __init__(self, layers: dict[str, Any], function: Callable[..., jax.Array]) -> None:
        for name, layer in layers.items():
            setattr(self, name, nnx.List(layer) if isinstance(layer, list) else layer)
        self.function = function

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(self, x)


def randomised(module: nnx.Module, seed: int) -> nnx.Module:
    """The module in evaluation mode with nontrivial biases, scales and running statistics."""
    random = np.random.default_rng(seed)

    def changed(path: tuple, value: Any) -> Any:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        noise = random.uniform(-0.3, 0.3, value.shape).astype(np.float32)
        return jnp.abs(value + noise) + 0.1 if "var" in map(str, path) else value + noise

    state = nnx.to_flat_state(nnx.state(module))
    rows = []
    for path, variable in state:
        raw = variable.get_raw_value()
        keep = jnp.issubdtype(raw.dtype, jax.dtypes.extended)
        rows.append((path, variable if keep else variable.replace(changed(path, raw))))
    nnx.update(module, nnx.from_flat_state(rows))
    module.eval()
    return module


def net(name: str, shape: tuple[int, ...], layers: Layers, function: Callable[..., jax.Array], **options: Any) -> None:
    """Put a module of Flax NNX into the catalogue."""

    @model(name, **options)
    def build(seed: int) -> tuple:
        return randomised(Net(layers(nnx.Rngs(seed)), function), seed), (1, *shape)


def dense(*sizes: int) -> Layers:
    """Dense layers fc0, fc1, ..."""
    return lambda rngs: {
        f"fc{number}": nnx.Linear(*pair, rngs=rngs) for number, pair in enumerate(itertools.pairwise(sizes))
    }


# Multi-layer perceptrons: one for each activation

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nnx.relu,
    "leaky relu": functools.partial(nnx.leaky_relu, negative_slope=0.2),
    "relu6": nnx.relu6,
    "clip": lambda x: jnp.clip(x, -0.5, 1.5),
    "tanh": jnp.tanh,
    "sigmoid": nnx.sigmoid,
    "hard sigmoid": jax.nn.hard_sigmoid,
    "hard swish": jax.nn.hard_swish,
    "silu": nnx.silu,
    "gelu, tanh": functools.partial(nnx.gelu, approximate=True),
    "gelu, erf": functools.partial(nnx.gelu, approximate=False),
    "elu": nnx.elu,
    "selu": nnx.selu,
    "celu": nnx.celu,
    "softplus": nnx.softplus,
    "log sigmoid": nnx.log_sigmoid,
    "mish": jax.nn.mish,
    "soft sign": nnx.soft_sign,
    "squareplus": jax.nn.squareplus,
    "glu": lambda x: nnx.glu(jnp.concatenate([x, -2 * x], -1)),
    "maxout": lambda x: jnp.maximum(x, -0.5 * x[:, ::1] + 1),
    "sine": lambda x: jnp.sin(3 * x),
    "cube": lambda x: x**3 / (1 + jnp.abs(x) ** 3),
    "soft shrink": lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.3, 0),
    "quantised": lambda x: jnp.round(4 * x) / 4 + lax_round(x),
}


def lax_round(x: jax.Array) -> jax.Array:
    """Rounds half away from zero."""
    return jax.lax.round(2 * x) / 2


for _name, _activation in ACTIVATIONS.items():
    net(
        f"mlp with {_name}",
        (6,),
        dense(6, 5, 3),
        lambda own, x, activation=_activation: own.fc1(activation(own.fc0(x))),
        slow=_name not in ("tanh", "relu6", "leaky relu", "gelu, erf", "softplus", "quantised"),
    )

net("softmax output", (6,), dense(6, 5, 3), lambda own, x: nnx.softmax(own.fc1(nnx.relu(own.fc0(x)))))
net("log softmax output", (6,), dense(6, 3), lambda own, x: nnx.log_softmax(own.fc0(x)), slow=True)
net("logsumexp", (6,), dense(6, 3), lambda own, x: jax.nn.logsumexp(own.fc0(x), -1, keepdims=True) - x[:, :1])
net("standardize", (6,), dense(6, 3), lambda own, x: jax.nn.standardize(own.fc0(x)), slow=True)
net("normalised inputs", (6,), dense(6, 3), lambda own, x: own.fc0((x - 0.13) / 0.31))
net(
    "parametric relu", (6,), lambda r: {"fc": nnx.Linear(6, 4, rngs=r), "act": nnx.PReLU()}, lambda o, x: o.act(o.fc(x))
)
net(
    "highway network",
    (6,),
    lambda r: {"h": nnx.Linear(6, 6, rngs=r), "t": nnx.Linear(6, 6, rngs=r), "out": nnx.Linear(6, 2, rngs=r)},
    lambda o, x: o.out(nnx.sigmoid(o.t(x)) * nnx.relu(o.h(x)) + (1 - nnx.sigmoid(o.t(x))) * x),
)
net(
    "residual with dropout and layer norm",
    (6,),
    lambda r: {"fc": nnx.Linear(6, 6, rngs=r), "norm": nnx.LayerNorm(6, rngs=r), "drop": nnx.Dropout(0.5, rngs=r)},
    lambda o, x: x + o.drop(o.fc(o.norm(x))),
)
net(
    "rms norm", (6,), lambda r: {"fc": nnx.Linear(6, 4, rngs=r), "n": nnx.RMSNorm(4, rngs=r)}, lambda o, x: o.n(o.fc(x))
)
net(
    "batch norm around a dense layer",
    (6,),
    lambda r: {"a": nnx.BatchNorm(6, rngs=r), "fc": nnx.Linear(6, 4, rngs=r), "b": nnx.BatchNorm(4, rngs=r)},
    lambda o, x: nnx.relu(o.b(o.fc(o.a(x)))),
)
net(
    "lora",
    (6,),
    lambda r: {
        "fc": nnx.Linear(6, 4, use_bias=False, rngs=r),
        "a": nnx.Param(r.normal((6, 2))),
        "b": nnx.Param(r.normal((2, 4))),
    },
    lambda o, x: x @ (o.fc.kernel[...] + o.a[...] @ o.b[...]),
)
net("lora layer", (6,), lambda r: {"fc": nnx.LoRALinear(6, 4, lora_rank=2, rngs=r)}, lambda o, x: o.fc(x))
net(
    "tied weights",
    (6,),
    lambda r: {"w": nnx.Param(r.normal((6, 4))), "b": nnx.Param(r.normal((6,)))},
    lambda o, x: jnp.tanh(x @ o.w[...]) @ o.w[...].T + o.b[...],
)
net(
    "weight norm",
    (6,),
    lambda r: {"v": nnx.Param(r.normal((6, 4))), "g": nnx.Param(r.normal((4,)))},
    lambda o, x: x @ (o.g[...] * o.v[...] / jnp.linalg.norm(o.v[...], axis=0)),
)
net(
    "spectral norm",
    (6,),
    lambda r: {"w": nnx.Param(r.normal((6, 4))), "u": nnx.Param(r.normal((4,)))},
    lambda o, x: x @ (o.w[...] / jnp.linalg.norm(o.w[...] @ (o.u[...] / jnp.linalg.norm(o.u[...])))),
)
net(
    "bilinear layer",
    (6,),
    lambda r: {"w": nnx.Param(r.normal((3, 6, 6)) / 4)},
    lambda o, x: jnp.einsum("bi,oij,bj->bo", x, o.w[...], x),
)
net(
    "bilinear layer of flax",
    (6,),
    lambda r: {"fc": nnx.Einsum("bi,ij->bj", (6, 4), (4,), rngs=r), "out": nnx.Linear(2, 3, rngs=r)},
    lambda o, x: o.out(jnp.split(o.fc(x), 2, axis=-1)[1] - o.fc(x)[:, :2]),
)
net(
    "general linear layers",
    (4, 6),
    lambda r: {"a": nnx.LinearGeneral(6, (2, 3), rngs=r), "b": nnx.LinearGeneral((4, 2), 5, axis=(1, 2), rngs=r)},
    lambda o, x: o.b(nnx.relu(o.a(x))),
)
net(
    "matrices for each position",
    (4, 3),
    lambda r: {"w": nnx.Param(r.normal((4, 3, 5))), "b": nnx.Param(r.normal((4, 5)))},
    lambda o, x: jnp.einsum("bti,tio->bto", x, o.w[...]) + o.b[...],
    slow=True,
)
net(
    "mixture of experts, all active",
    (6,),
    lambda r: {"gate": nnx.Linear(6, 3, rngs=r), "w": nnx.Param(r.normal((3, 6, 4)))},
    lambda o, x: jnp.einsum("be,bi,eio->bo", nnx.softmax(o.gate(x)), x, o.w[...]),
    slow=True,
)
net(
    "layers in a scan",
    (5,),
    lambda r: {"w": nnx.Param(r.normal((3, 5, 5))), "b": nnx.Param(r.normal((3, 5)))},
    lambda o, x: jax.lax.scan(lambda h, wb: (jnp.tanh(h @ wb[0] + wb[1]), None), x, (o.w[...], o.b[...]))[0],
)
net(
    "recurrent network",
    (4, 3),
    lambda r: {"a": nnx.Linear(3, 4, rngs=r), "h": nnx.Linear(4, 4, rngs=r)},
    lambda o, x: jnp.moveaxis(
        jax.lax.scan(
            lambda h, row: (jnp.tanh(o.a(row) + o.h(h)),) * 2,
            jnp.zeros((len(x), 4)),
            jnp.moveaxis(x, 1, 0),
            reverse=True,
        )[1],
        0,
        1,
    ),
    slow=True,
)
net(
    "checkpoint, jit and vmap inside",
    (4, 6),
    dense(6, 6, 3),
    lambda o, x: jax.vmap(jax.vmap(jax.jit(o.fc1)))(jax.checkpoint(lambda y: nnx.relu(o.fc0(y)))(x)),
)
net("constant mask", (6,), dense(6, 4), lambda o, x: jnp.where(jnp.arange(4) % 2 == 0, o.fc0(x), 0.25))
net("mask by sign", (6,), dense(6, 6), lambda o, x: jnp.where((x > 0) & ~(x > 1), o.fc0(x), -x))
net("mean of a set", (5, 4), dense(4, 6, 3), lambda o, x: o.fc1(nnx.relu(o.fc0(x)).mean(1)))
net(
    "distances",
    (5, 3),
    dense(5, 2),
    lambda o, x: o.fc0(((x[:, :, None] - x[:, None]) ** 2).sum((2, 3)) ** 0.5),
    slow=True,
)
net("variance", (6,), dense(6, 4), lambda o, x: o.fc0(x) / (1 + x.var(1, keepdims=True)), slow=True)


class _Scanned(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        @nnx.vmap(in_axes=0)
        def layers(rngs: nnx.Rngs) -> nnx.Linear:
            return nnx.Linear(5, 5, rngs=rngs)

        self.layers, self.out = layers(rngs.split(3)), nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def step(h: jax.Array, layer: nnx.Linear) -> jax.Array:
            return nnx.gelu(layer(h))

        return self.out(step(x, self.layers))


@model("nnx.scan", slow=True)
def _(seed: int) -> tuple:
    return randomised(_Scanned(nnx.Rngs(seed)), seed), (2, 5)


@model("nnx.Sequential")
def _(seed: int) -> tuple:
    rngs = nnx.Rngs(seed)
    layers = nnx.Linear(6, 5, rngs=rngs), nnx.relu, nnx.Dropout(0.3, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)
    return randomised(nnx.Sequential(*layers), seed), np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)


_SMALL = ("fc2", "fc4", "lenet-300-100", "vit", "rotations")
_WIDTH = {"fc2": 0.01, "fc4": 0.01, "lenet-300-100": 0.02, "lenet5": 0.2, "rotations": 0.1, "vit": 1 / 16}


def zoo_target(name: str) -> Target:
    """A small network of an architecture with random tensors."""
    spec = Spec((8, 8, 1) if name in _SMALL else (28, 28, 1) if name == "lenet5" else (32, 32, 3))
    return random_target(architecture(name, spec, 10, width=_WIDTH.get(name, 1 / 32)))
