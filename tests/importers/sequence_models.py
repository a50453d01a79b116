"""Attention and transformers of the catalogue, in Flax NNX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.importers.image_models import conv
from tests.importers.models import Net, model, net, randomised


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: Any = None, low: float = -jnp.inf) -> jax.Array:
    """Attention [N, T, H, D] by hand."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(jnp.float32(q.shape[-1]))
    scores = scores if mask is None else jnp.where(mask, scores, low)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, -1), v)


def heads(rngs: nnx.Rngs, size: int = 4) -> dict[str, Any]:
    """The projections of attention with two heads."""
    layers = {name: nnx.LinearGeneral(size, (2, size // 2), rngs=rngs) for name in "qkv"}
    return layers | {"out": nnx.LinearGeneral((2, size // 2), size, axis=(-2, -1), rngs=rngs)}


def triangle(x: jax.Array) -> jax.Array:
    return jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))


net("attention by hand", (5, 4), heads, lambda o, x: o.out(attend(o.q(x), o.k(x), o.v(x))))
net("causal attention, -inf", (5, 4), heads, lambda o, x: o.out(attend(o.q(x), o.k(x), o.v(x), triangle(x))))
net(
    "causal attention, large",
    (5, 4),
    heads,
    lambda o, x: o.out(attend(o.q(x), o.k(x), o.v(x), triangle(x), -1e9)),
    slow=True,
)
net(
    "attention of jax.nn",
    (5, 4),
    heads,
    lambda o, x: o.out(jax.nn.dot_product_attention(o.q(x), o.k(x), o.v(x), is_causal=True)),
    slow=True,
)
net(
    "attention of one fused projection",
    (5, 4),
    lambda r: {"qkv": nnx.Linear(4, 12, rngs=r), "out": nnx.Linear(4, 4, rngs=r)},
    lambda o, x: o.out(attend(*jnp.split(o.qkv(x).reshape(len(x), 5, 2, 6), 3, -1)).reshape(len(x), 5, 4)),
    slow=True,
)
net(
    "attention of flax",
    (5, 4),
    lambda r: {"attention": nnx.MultiHeadAttention(2, 4, rngs=r, decode=False)},
    lambda o, x: o.attention(x),
    slow=True,
)
net(
    "causal attention of flax",
    (5, 4),
    lambda r: {"attention": nnx.MultiHeadAttention(2, 4, rngs=r, decode=False)},
    lambda o, x: o.attention(x, mask=nnx.make_causal_mask(x[..., 0])),
    slow=True,
)
net(
    "linear attention",
    (5, 4),
    heads,
    lambda o, x: o.out(jnp.einsum("bthd,bshd,bshe->bthe", nnx.elu(o.q(x)) + 1, nnx.elu(o.k(x)) + 1, o.v(x)) / 5),
    slow=True,
)


def layer(rngs: nnx.Rngs, size: int) -> Net:
    """A pre-norm layer of a transformer."""
    layers = heads(rngs, size) | {
        "n1": nnx.LayerNorm(size, rngs=rngs),
        "n2": nnx.LayerNorm(size, rngs=rngs),
        "up": nnx.Linear(size, 2 * size, rngs=rngs),
        "down": nnx.Linear(2 * size, size, rngs=rngs),
    }

    def call(o: Net, x: jax.Array) -> jax.Array:
        y = o.n1(x)
        x = x + o.out(attend(o.q(y), o.k(y), o.v(y), triangle(x)))
        return x + o.down(nnx.gelu(o.up(o.n2(x))))

    return Net(layers, call)


def language_model(rngs: nnx.Rngs, words: int = 11, length: int = 6, size: int = 4, layers: int = 2) -> Net:
    """A transformer on tokens, with positions, whose last layer is its embedding."""

    def call(o: Net, x: jax.Array) -> jax.Array:
        y = o.embed(x) + o.positions[...]
        for one in o.layers:
            y = one(y)
        return o.embed.attend(o.norm(y))

    own = {"embed": nnx.Embed(words, size, rngs=rngs), "positions": nnx.Param(rngs.normal((length, size)))}
    return Net(
        {**own, "layers": [layer(rngs, size) for _ in range(layers)], "norm": nnx.LayerNorm(size, rngs=rngs)}, call
    )


@model("transformer on tokens", slow=True)
def _(seed: int) -> tuple:
    tokens = np.random.default_rng(1).integers(0, 11, (3, 6))
    return randomised(language_model(nnx.Rngs(seed)), seed), tokens


net(
    "vision transformer",
    (4, 4, 1),
    lambda r: {
        "patch": conv(r, 1, 4, 2, strides=2, padding="VALID"),
        "cls": nnx.Param(r.normal((1, 1, 4))),
        "pos": nnx.Param(r.normal((1, 5, 4))),
        "layer": layer(r, 4),
        "head": nnx.Linear(4, 3, rngs=r),
    },
    lambda o, x: o.head(
        o.layer(
            jnp.concatenate([jnp.broadcast_to(o.cls[...], (len(x), 1, 4)), o.patch(x).reshape(len(x), 4, 4)], 1)
            + o.pos[...]
        )[:, 0]
    ),
    slow=True,
)
