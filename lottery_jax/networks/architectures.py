"""Chains made node by node: each is told how many inputs it has by what the nodes before it give.

Multi-layer perceptrons.
LeNet-5, and the convolutional networks Conv-2, 4, 6 and 8 of the lottery ticket papers.
VGG networks with batch normalisation and the names of torchvision.
Residual networks with the names of torchvision.
A network whose answer does not change when its square image is turned by 90 degrees.
A small vision transformer with the names of timm.
Every architecture by its name; a new one is a function of its own and one line here.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.layers.activations import Gelu, Relu
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import ROTATIONS, Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense, PositionEmbedding
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm, Normalize
from lottery_jax.networks.layers.pooling import Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec


class NetworkBuilder:
    """A chain under construction: `add` puts a node at its end, `spec` is what it gives so far."""

    def __init__(self, input_spec: Spec) -> None:
        self.spec = input_spec
        self._nodes: list[tuple[str, Node]] = []

    def add(self, name: str, node: Node) -> "NetworkBuilder":
        """Put a node at the end."""
        self.spec = node.trace_specs(self.spec, name, {})
        self._nodes.append((name, node))
        return self

    def relu(self, name: str) -> "NetworkBuilder":
        return self.add(name, Relu())

    def dense(self, name: str, outputs: int, *, bias: bool = False) -> "NetworkBuilder":
        return self.add(name, Dense(self.spec.shape[-1], outputs, bias))

    def conv(
        self, name: str, outputs: int, size: int, *, stride: int = 1, padding: int = 0, bias: bool = False
    ) -> "NetworkBuilder":
        both = (stride, stride), (padding, padding)
        return self.add(name, Conv(self.spec.shape[-1], outputs, (size, size), *both, bias=bias))

    def norm(self, name: str) -> "NetworkBuilder":
        return self.add(name, BatchNorm(self.spec.shape[-1]))

    def inner(self, name: str, build: Callable[["NetworkBuilder"], Node]) -> "NetworkBuilder":
        """Put a node at the end that is built from what the chain gives so far."""
        return self.add(name, build(NetworkBuilder(self.spec)))

    def chain(self) -> Chain:
        """The nodes so far."""
        return Chain(tuple(self._nodes))


def scaled(units: int, width: float) -> int:
    """Hidden units at a width multiplier.

    >>> scaled(64, 0.5), scaled(3, 0.01)
    (32, 1)
    """
    return max(1, round(units * width))


def mlp(
    sizes: Sequence[int], input_spec: Spec, *, bias: bool | Sequence[bool] = False, names: Sequence[str] | None = None
) -> Network:
    """Dense layers with ReLU between them, behind what flattens an image: sizes are inputs, hidden units, outputs.

    bias: whether the layers have biases, all or each. names: of the layers; fc1, fc2, ... if left out.

    >>> mlp((784, 500, 10), Spec((28, 28, 1))).tensors
    {'fc1.weight': (500, 784), 'fc2.weight': (10, 500)}
    """
    if len(sizes) < 2:
        raise InputError(f"an MLP needs inputs and outputs, not the sizes {tuple(sizes)}")
    pairs = list(itertools.pairwise(sizes))
    names = names or [f"fc{number}" for number in range(1, len(pairs) + 1)]
    biases = [bias] * len(pairs) if isinstance(bias, bool) else bias
    nodes: list[tuple[str, Node]] = [("flatten", Flatten())] if len(input_spec.shape) > 1 else []
    for place, (name, biased, (inputs, outputs)) in enumerate(zip(names, biases, pairs, strict=True)):
        nodes += [(f"relu{place}", Relu())] if place else []
        nodes.append((name, Dense(inputs, outputs, biased)))
    return Network(Chain(tuple(nodes)), input_spec)


def lenet5(input_spec: Spec, classes: int, width: float = 1.0) -> Network:
    """LeCun et al. 1998 as it is built today: ReLU, maxima, 28 x 28 images padded to 32; 61,706 parameters.

    >>> sorted(lenet5(Spec((28, 28, 1)), 10).tensors)[:3]
    ['conv1.bias', 'conv1.weight', 'conv2.bias']
    """
    net = NetworkBuilder(input_spec)
    for number, (channels, padding) in enumerate(((6, 2), (16, 0)), start=1):
        net.conv(f"conv{number}", scaled(channels, width), 5, padding=padding, bias=True)
        net.relu(f"relu{number}").add(f"pool{number}", MaxPool((2, 2)))
    net.add("flatten", Flatten())
    for number, units in enumerate((120, 84), start=1):
        net.dense(f"fc{number}", scaled(units, width), bias=True).relu(f"relu{number + 2}")
    return Network(net.dense("fc3", classes, bias=True).chain(), input_spec)


def conv_network(input_spec: Spec, classes: int, width: float, *, blocks: int) -> Network:
    """Blocks of two 3 x 3 convolutions and a pooling, 64, 128, 256, 512 channels, then 256, 256, classes; no biases.

    Frankle and Carbin 2019 (Conv-2, 4, 6), Ramanujan et al. 2020 (Conv-8, and widths).
    """
    net = NetworkBuilder(input_spec)
    for block in range(blocks):
        for number in (2 * block + 1, 2 * block + 2):
            net.conv(f"conv{number}", scaled(64 << block, width), 3, padding=1).relu(f"relu{number}")
        net.add(f"pool{block + 1}", MaxPool((2, 2)))
    net.add("flatten", Flatten())
    for number in (1, 2):
        net.dense(f"fc{number}", scaled(256, width)).relu(f"relu{2 * blocks + number}")
    return Network(net.dense("fc3", classes).chain(), input_spec)


def vgg(input_spec: Spec, classes: int, width: float, *, convolutions: tuple[int, ...]) -> Network:
    """Simonyan and Zisserman 2015: groups of 3 x 3 convolutions of 64, 128, 256, 512, 512 channels, each with a
    pooling.

    Small images: the mean over places, then one dense layer (Frankle and Carbin 2019: 20.0 million weights for VGG-19).
    Large ones: torchvision's three dense layers of 4,096 units (224 x 224 images, 7 x 7 places at the end).
    """
    net, place = NetworkBuilder(input_spec), 0
    for group, count in enumerate(convolutions):
        for _ in range(count):
            net.conv(f"features.{place}", scaled(64 << min(group, 3), width), 3, padding=1, bias=True)
            net.norm(f"features.{place + 1}").relu(f"features.{place + 2}")
            place += 3
        net.add(f"features.{place}", MaxPool((2, 2)))
        place += 1
    if input_spec.shape[0] < LARGE:
        return Network(net.add("avgpool", GlobalPool()).dense("classifier", classes, bias=True).chain(), input_spec)
    net.add("flatten", Flatten())
    for number in (0, 3):  # in between lie a ReLU and a dropout
        net.dense(f"classifier.{number}", scaled(4096, width), bias=True).relu(f"classifier.{number + 1}")
    return Network(net.dense("classifier.6", classes, bias=True).chain(), input_spec)


LARGE = 64
"""Images of this size and more get the stem of ImageNet networks: 7 x 7 every 2, then a pooling."""


def resnet(
    input_spec: Spec,
    classes: int,
    width: float,
    *,
    channels: tuple[int, ...],
    blocks: tuple[int, ...],
    bottleneck: bool,
) -> Network:
    """He et al. 2016: groups of blocks, each group but the first at half the size; projections where sizes change.

    bottleneck: blocks of 1 x 1, 3 x 3 and 1 x 1 convolutions (the stride in the second, as in torchvision), the last
    four times as wide; otherwise of two 3 x 3.
    """
    net = NetworkBuilder(input_spec)
    large = input_spec.shape[0] >= LARGE
    stem = (7, 2, 3) if large else (3, 1, 1)
    size, stride, padding = stem
    net.conv("conv1", scaled(channels[0], width), size, stride=stride, padding=padding).norm("bn1").relu("relu")
    if large:
        net.add("maxpool", MaxPool((3, 3), (2, 2), (1, 1)))
    for group, (units, count) in enumerate(zip(channels, blocks, strict=True)):
        units = scaled(units, width)

        def layer(chain: NetworkBuilder, group: int = group, units: int = units, count: int = count) -> Node:
            for place in range(count):
                step = 2 if group and not place else 1
                chain.inner(str(place), lambda inner, step=step: _block(inner, units, step, bottleneck))
            return chain.chain()

        net.inner(f"layer{group + 1}", layer)
    return Network(net.add("avgpool", GlobalPool()).dense("fc", classes, bias=True).chain(), input_spec)


def _block(chain: NetworkBuilder, units: int, stride: int, bottleneck: bool) -> Chain:
    input_spec = chain.spec
    body, outputs = NetworkBuilder(input_spec), units
    if bottleneck:
        outputs = 4 * units
        body.conv("conv1", units, 1).norm("bn1").relu("relu1")
        body.conv("conv2", units, 3, stride=stride, padding=1).norm("bn2").relu("relu2")
        body.conv("conv3", outputs, 1).norm("bn3")
    else:
        body.conv("conv1", units, 3, stride=stride, padding=1).norm("bn1").relu("relu1")
        body.conv("conv2", units, 3, padding=1).norm("bn2")
    shortcut = NetworkBuilder(input_spec)
    if stride > 1 or input_spec.shape[-1] != outputs:
        shortcut.conv("0", outputs, 1, stride=stride).norm("1")
    return chain.add("(block)", Residual(body.chain(), shortcut.chain())).relu("relu").chain()


def rotation_network(input_spec: Spec, classes: int, width: float = 1.0) -> Network:
    """Three 3 x 3 convolutions with rotations, 16, 16, 32 channels, the mean over all, and a dense layer; biases.

    >>> rotation_network(Spec((8, 8, 1)), 10).tensors["conv2.weight"]
    (16, 16, 4, 3, 3)
    """
    net = NetworkBuilder(input_spec)
    for number, channels in enumerate((16, 16, 32), start=1):
        of, rotations = net.spec.shape[-1], 1 if number == 1 else ROTATIONS
        net.add(f"conv{number}", RotationConv(of, scaled(channels, width), 3, 1, rotations, bias=True))
        net.relu(f"relu{number}")
    return Network(net.add("pool", GlobalPool()).dense("fc", classes, bias=True).chain(), input_spec)


HEADS, HEAD = 4, 32


def vit(input_spec: Spec, classes: int, width: float = 1.0, *, patch: int = 4, depth: int = 4) -> Network:
    """Dosovitskiy et al. 2021, small: patches of 4 x 4, four layers of 128 features with 4 heads, mean of all tokens.

    A layer is x + attention(norm(x)), then x + mlp(norm(x)) with twice as many hidden units.
    """
    size = HEADS * scaled(HEAD, width)
    net = NetworkBuilder(input_spec)
    net.inner("patch_embed", lambda chain: chain.conv("proj", size, patch, stride=patch, bias=True).chain())
    net.add("tokens", Tokens())
    net.add("pos_embed", PositionEmbedding(*net.spec.shape))
    for layer in range(depth):
        net.inner(f"blocks.{layer}", _layer)
    net.add("norm", LayerNorm(size)).add("pool", GlobalPool())
    return Network(net.dense("head", classes, bias=True).chain(), input_spec)


def _layer(chain: NetworkBuilder) -> Chain:
    size = chain.spec.shape[-1]
    norm, attention = LayerNorm(size), Attention(HEADS, Dense(size, 3 * size, True), Dense(size, size, True))
    chain.add("(attention)", _residual(("norm1", norm), ("attn", attention)))
    mlp = Chain((("fc1", Dense(size, 2 * size, True)), ("act", Gelu()), ("fc2", Dense(2 * size, size, True))))
    return chain.add("(mlp)", _residual(("norm2", norm), ("mlp", mlp))).chain()


def _residual(*nodes) -> Residual:
    return Residual(Chain(nodes))


Build = Callable[[Spec, int, float], Network]
"""From what is given, the number of classes and a multiplier of all hidden widths to a network."""


def dense(input_spec: Spec, classes: int, width: float, *, hidden: tuple[int, ...], bias: bool) -> Network:
    """An MLP with hidden layers of these sizes."""
    units = [scaled(size, width) for size in hidden]
    return mlp((math.prod(input_spec.shape), *units, classes), input_spec, bias=bias)


ARCHITECTURES: dict[str, Build] = {
    "fc2": functools.partial(dense, hidden=(500,), bias=False),
    "fc4": functools.partial(dense, hidden=(500, 500, 500), bias=False),
    "lenet-300-100": functools.partial(dense, hidden=(300, 100), bias=True),
    "lenet5": lenet5,
    "conv2": functools.partial(conv_network, blocks=1),
    "conv4": functools.partial(conv_network, blocks=2),
    "conv6": functools.partial(conv_network, blocks=3),
    "conv8": functools.partial(conv_network, blocks=4),
    "resnet20": functools.partial(resnet, channels=(16, 32, 64), blocks=(3, 3, 3), bottleneck=False),
    "resnet18": functools.partial(resnet, channels=(64, 128, 256, 512), blocks=(2, 2, 2, 2), bottleneck=False),
    "resnet50": functools.partial(resnet, channels=(64, 128, 256, 512), blocks=(3, 4, 6, 3), bottleneck=True),
    "vgg16": functools.partial(vgg, convolutions=(2, 2, 3, 3, 3)),
    "vgg19": functools.partial(vgg, convolutions=(2, 2, 4, 4, 4)),
    "vit": vit,
    "rotations": rotation_network,
}

NORMALIZED = ("resnet18", "resnet20", "resnet50", "vgg16", "vgg19", "vit")
"""Architectures whose inputs are normalised inside the network, where the data set has constants for it."""

_MLP = re.compile(r"mlp((?:-[1-9][0-9]{0,5})*)")


def architecture(
    name: str, input_spec: Spec, classes: int, *, width: float = 1.0, normalize: Normalize | None = None
) -> Network:
    """The network of a name: one of `ARCHITECTURES`, or mlp-A-B-... with hidden layers of A, B, ... units, no biases.

    width: multiplies all hidden widths. normalize: put in front of those in `NORMALIZED`. Raises `InputError`.

    >>> architecture("mlp-64", Spec((8, 8, 1)), 10).tensors
    {'fc1.weight': (64, 64), 'fc2.weight': (10, 64)}
    """
    if not 0 < width < math.inf:
        raise InputError(f"width {width} must be a positive number; it multiplies all hidden widths")
    hidden = _MLP.fullmatch(name)
    build = ARCHITECTURES.get(name)
    if hidden:
        sizes = tuple(int(size) for size in hidden[1].split("-")[1:])
        build = functools.partial(dense, hidden=sizes, bias=False)
    if build is None:
        raise InputError(
            f"architecture {name!r} is unknown; {suggest(name, ARCHITECTURES)} or mlp-A-B-... with hidden layers of"
            " A, B, ... units"
        )
    try:
        network = build(input_spec, classes, width)
    except InputError as error:
        raise InputError(
            f"{name} does not fit examples of shape {list(input_spec.shape)} ({error}); choose another architecture"
        ) from None
    if normalize is None or name not in NORMALIZED:
        return network
    assert isinstance(network.root, Chain)
    return Network(Chain((("normalize", normalize), *network.root.nodes)), input_spec)
