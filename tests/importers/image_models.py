"""Convolutional networks and transformers of the catalogue, in Flax NNX."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tests.importers.models import Net, model, net, randomised


def conv(rngs: nnx.Rngs, inputs: int, outputs: int, size: int = 3, **options: Any) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (size, size), rngs=rngs, **options)


def pooled(x: jax.Array) -> jax.Array:
    """The mean over the positions of images."""
    return x.mean((1, 2))


IMAGE = (6, 5, 2)

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "same padding": {},
    "same padding, stride 2": {"strides": 2},
    "valid padding, no bias": {"padding": "VALID", "use_bias": False},
    "uneven padding": {"padding": ((0, 2), (1, 0))},
    "dilated": {"kernel_dilation": (1, 2)},
    "dilated input": {"input_dilation": (2, 1), "padding": ((1, 0), (1, 1))},
    "grouped": {"feature_group_count": 2},
    "circular padding": {"padding": "CIRCULAR"},
    "reflecting padding": {"padding": "REFLECT"},
}

for _name, _options in CONVOLUTIONS.items():
    net(
        f"convolution, {_name}",
        IMAGE,
        lambda r, options=_options: {"conv": conv(r, 2, 4, **options), "fc": nnx.Linear(4, 3, rngs=r)},
        lambda o, x: o.fc(pooled(nnx.relu(o.conv(x)))),
        slow=_name not in ("same padding, stride 2", "grouped"),
    )

for _name, _options in {
    "": {},
    ", stride 2": {"strides": (2, 2)},
    ", valid": {"strides": (2, 1), "padding": "VALID"},
}.items():
    net(
        f"transposed convolution{_name}",
        IMAGE,
        lambda r, options=_options: {
            "conv": nnx.ConvTranspose(2, 3, (3, 3), rngs=r, **options),
            "out": nnx.ConvTranspose(3, 2, (2, 2), transpose_kernel=False, rngs=r),
        },
        lambda o, x: o.out(nnx.relu(o.conv(x))),
        slow=_name != ", stride 2",
    )

net(
    "depthwise and pointwise",
    IMAGE,
    lambda r: {"d": conv(r, 2, 4, feature_group_count=2), "p": conv(r, 4, 3, 1)},
    lambda o, x: o.p(nnx.relu(o.d(x))),
)
net(
    "standard lenet",
    (8, 8, 1),
    lambda r: {"conv": conv(r, 1, 3), "fc": nnx.Linear(48, 3, rngs=r)},
    lambda o, x: o.fc(nnx.max_pool(nnx.relu(o.conv(x)), (2, 2), (2, 2)).reshape(len(x), -1)),
)


def averaged(x: jax.Array, *size: Any, **options: Any) -> jax.Array:
    with jax.numpy_dtype_promotion("standard"):  # Flax divides by an integer
        return nnx.avg_pool(x, *size, **options)


POOLINGS = {
    "max, same": lambda x: nnx.max_pool(x, (3, 2), (2, 2), padding="SAME"),
    "average": lambda x: averaged(x, (2, 2), strides=(2, 2)),
    "average, same": lambda x: averaged(x, (3, 3), strides=(2, 1), padding="SAME"),
    "average, without padding": lambda x: nnx.avg_pool(x, (3, 3), (2, 1), padding="SAME", count_include_pad=False),
    "least": lambda x: nnx.min_pool(x, (2, 2), (1, 2)),
    "global max": lambda x: x.max((1, 2)),
}

for _name, _pool in POOLINGS.items():
    net(
        f"pooling, {_name}",
        IMAGE,
        lambda r: {"conv": conv(r, 2, 3)},
        lambda o, x, pool=_pool: pool(o.conv(x)),
        slow=_name != "average, without padding",
    )

net(
    "bilinear resizing",
    IMAGE,
    lambda r: {"conv": conv(r, 2, 3)},
    lambda o, x: jax.image.resize(o.conv(x), (len(x), 12, 10, 3), "bilinear"),
    slow=True,
)
net(
    "channel shuffle and nearest resizing",
    IMAGE,
    lambda r: {"conv": conv(r, 2, 4), "out": conv(r, 4, 2)},
    lambda o, x: o.out(jnp.repeat(o.conv(x).reshape(*x.shape[:3], 2, 2).swapaxes(3, 4).reshape(*x.shape[:3], 4), 2, 1)),
    slow=True,
)
net(
    "one-dimensional convolution",
    (9, 2),
    lambda r: {"conv": nnx.Conv(2, 3, (3,), strides=2, rngs=r), "fc": nnx.Linear(3, 2, rngs=r)},
    lambda o, x: o.fc(nnx.relu(o.conv(x)).max(1)),
)


def _causal(rngs: nnx.Rngs, inputs: int, outputs: int, dilation: int) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (2,), padding="CAUSAL", kernel_dilation=dilation, rngs=rngs)


net(
    "temporal convolutional network",
    (8, 2),
    lambda r: {"a": _causal(r, 2, 4, 1), "b": _causal(r, 4, 4, 2), "c": _causal(r, 4, 4, 4)},
    lambda o, x: (lambda y: y + nnx.relu(o.c(nnx.relu(o.b(y)))))(nnx.relu(o.a(x)))[:, -1],
    slow=True,
)

NORMS = {
    "batch": lambda r: nnx.BatchNorm(4, rngs=r),
    "batch, without scale": lambda r: nnx.BatchNorm(4, use_scale=False, use_bias=False, rngs=r),
    "group": lambda r: nnx.GroupNorm(4, num_groups=2, rngs=r),
    "instance": lambda r: nnx.InstanceNorm(4, rngs=r),
    "layer": lambda r: nnx.LayerNorm(4, rngs=r),
}

for _name, _norm in NORMS.items():
    net(
        f"{_name} norm behind a convolution",
        IMAGE,
        lambda r, norm=_norm: {"conv": conv(r, 2, 4), "norm": norm(r)},
        lambda o, x: nnx.relu(o.norm(o.conv(x))),
        slow=_name not in ("batch", "group"),
    )

net(
    "weight standardisation",
    IMAGE,
    lambda r: {"w": nnx.Param(r.normal((3, 3, 2, 4)))},
    lambda o, x: jax.lax.conv_general_dilated(
        x, jax.nn.standardize(o.w[...], axis=(0, 1, 2)), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
)
net(
    "images NCHW",
    (2, 6, 5),
    lambda r: {"w": nnx.Param(r.normal((4, 2, 3, 3))), "b": nnx.Param(r.normal((4, 1, 1)))},
    lambda o, x: nnx.relu(jax.lax.conv(x, o.w[...], (1, 1), "SAME") + o.b[...]),
)


def block(rngs: nnx.Rngs, inputs: int, outputs: int, stride: int) -> Net:
    """A pre-activation residual block."""

    def call(o: Net, x: jax.Array) -> jax.Array:
        y = nnx.relu(o.n1(x))
        return o.c2(nnx.relu(o.n2(o.c1(y)))) + o.short(y)

    layers = {
        "n1": nnx.BatchNorm(inputs, rngs=rngs),
        "c1": conv(rngs, inputs, outputs, strides=stride, use_bias=False),
        "n2": nnx.BatchNorm(outputs, rngs=rngs),
        "c2": conv(rngs, outputs, outputs),
        "short": conv(rngs, inputs, outputs, 1, strides=stride),
    }
    return Net(layers, call)


def squeeze(rngs: nnx.Rngs, channels: int) -> Net:
    """Squeeze and excitation."""
    layers = {"down": nnx.Linear(channels, 2, rngs=rngs), "up": nnx.Linear(2, channels, rngs=rngs)}
    return Net(layers, lambda o, x: x * jax.nn.hard_sigmoid(o.up(nnx.relu(o.down(pooled(x)))))[:, None, None])


def inverted_residual(rngs: nnx.Rngs, channels: int, outputs: int, stride: int = 1, expand: int = 2) -> Net:
    """A block of MobileNetV3."""
    inner = expand * channels

    def call(o: Net, x: jax.Array) -> jax.Array:
        y = jax.nn.hard_swish(o.n1(o.expand(x)))
        y = o.squeeze(jax.nn.hard_swish(o.n2(o.depth(y))))
        y = o.n3(o.project(y))
        return x + y if y.shape == x.shape else y

    layers = {
        "expand": conv(rngs, channels, inner, 1, use_bias=False),
        "n1": nnx.BatchNorm(inner, rngs=rngs),
        "depth": conv(rngs, inner, inner, strides=stride, feature_group_count=inner, use_bias=False),
        "n2": nnx.BatchNorm(inner, rngs=rngs),
        "squeeze": squeeze(rngs, inner),
        "project": conv(rngs, inner, outputs, 1, use_bias=False),
        "n3": nnx.BatchNorm(outputs, rngs=rngs),
    }
    return Net(layers, call)


def mobilenet(rngs: nnx.Rngs, blocks: int = 2, width: int = 4, stem: int = 1) -> Net:
    """A network of MobileNetV3's kind: three convolutions and two dense layers for each block."""
    sizes = [width * (1 + number // 4) for number in range(blocks + 1)]
    layers = [
        inverted_residual(rngs, *pair, stride=1 + (number % 4 == 3))
        for number, pair in enumerate(itertools.pairwise(sizes))
    ]

    def call(o: Net, x: jax.Array) -> jax.Array:
        x = jax.nn.hard_swish(o.norm(o.stem(x)))
        for layer in o.blocks:
            x = layer(x)
        return o.head(pooled(x))

    own = {"stem": conv(rngs, 3, width, strides=stem, use_bias=False), "norm": nnx.BatchNorm(width, rngs=rngs)}
    return Net({**own, "blocks": layers, "head": nnx.Linear(sizes[-1], 3, rngs=rngs)}, call)


net(
    "pre-activation resnet",
    IMAGE,
    lambda r: {"a": block(r, 2, 3, 1), "b": block(r, 3, 4, 2), "fc": nnx.Linear(4, 2, rngs=r)},
    lambda o, x: o.fc(pooled(o.b(o.a(x)))),
    slow=True,
)
net(
    "squeeze and excitation",
    IMAGE,
    lambda r: {"conv": conv(r, 2, 4), "se": squeeze(r, 4)},
    lambda o, x: o.se(o.conv(x)),
    slow=True,
)
net(
    "inverted residual block",
    (6, 6, 4),
    lambda r: {"block": inverted_residual(r, 4, 4)},
    lambda o, x: o.block(x),
)


@model("mobilenet", slow=True)
def _(seed: int) -> tuple:
    return randomised(mobilenet(nnx.Rngs(seed)), seed), (1, 8, 8, 3)


def _unet(o: Net, x: jax.Array) -> jax.Array:
    skip = nnx.relu(o.down(x))
    low = nnx.relu(o.inner(nnx.max_pool(skip, (2, 2), (2, 2))))
    return o.out(jnp.concatenate([nnx.relu(o.up(low)), skip], -1))


net(
    "u-net",
    (4, 4, 1),
    lambda r: {
        "down": conv(r, 1, 2),
        "inner": conv(r, 2, 3),
        "out": conv(r, 4, 1, 1),
        "up": nnx.ConvTranspose(3, 2, (2, 2), (2, 2), rngs=r),
    },
    _unet,
    slow=True,
)
net(
    "convnext block",
    (5, 5, 3),
    lambda r: {
        "d": conv(r, 3, 3, 3, feature_group_count=3),
        "n": nnx.LayerNorm(3, rngs=r),
        "a": nnx.Linear(3, 6, rngs=r),
        "b": nnx.Linear(6, 3, rngs=r),
        "scale": nnx.Param(r.normal((3,))),
    },
    lambda o, x: x + o.scale[...] * o.b(nnx.gelu(o.a(o.n(o.d(x))))),
    slow=True,
)
net(
    "mlp-mixer",
    (4, 6),
    lambda r: {
        "n1": nnx.LayerNorm(6, rngs=r),
        "t1": nnx.Linear(4, 5, rngs=r),
        "t2": nnx.Linear(5, 4, rngs=r),
        "n2": nnx.LayerNorm(6, rngs=r),
        "c1": nnx.Linear(6, 5, rngs=r),
        "c2": nnx.Linear(5, 6, rngs=r),
    },
    lambda o, x: (lambda y: y + o.c2(nnx.gelu(o.c1(o.n2(y)))))(
        x + o.t2(nnx.gelu(o.t1(o.n1(x).swapaxes(1, 2)))).swapaxes(1, 2)
    ),
    slow=True,
)
