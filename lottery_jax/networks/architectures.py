"""Architectures by name: MLPs, LeNet-5, Conv-2 to Conv-8, VGG and residual networks, a vision transformer.

A new architecture is a function and one line in `ARCHITECTURES`.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence

from lottery_jax.errors import InputError, shown, suggest
from lottery_jax.io.user_file import USER_OBJECT, user_object
from lottery_jax.networks.layers.activations import Gelu, Relu
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import ROTATIONS, Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense, PositionEmbedding
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm, Normalize
from lottery_jax.networks.layers.pooling import Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec, checked_spec


class NetworkBuilder:
    """Builds a chain node by node; `spec` is its output so far."""

    def __init__(self, input_spec: Spec) -> None:
        self.spec = input_spec
        self._nodes: list[tuple[str, Node]] = []

    def add(self, name: str, node: Node) -> "NetworkBuilder":
        """Append a node."""
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
        """Append a node that `build` makes with a builder for the current output."""
        return self.add(name, build(NetworkBuilder(self.spec)))

    def chain(self) -> Chain:
        """The nodes so far."""
        return Chain(tuple(self._nodes))


def scaled(units: int, width: float) -> int:
    """Hidden units times the width multiplier, at least 1.

    >>> scaled(64, 0.5), scaled(3, 0.01)
    (32, 1)
    """
    return max(1, round(units * width))


def mlp(
    sizes: Sequence[int], input_spec: Spec, *, bias: bool | Sequence[bool] = False, names: Sequence[str] | None = None
) -> Network:
    """A multi-layer perceptron with ReLU; images are flattened first.

    Args:
        sizes: Inputs, hidden units of each layer, outputs.
        bias: Whether the layers have biases, for all or for each.
        names: Names of the layers. Defaults to fc1, fc2, ...

    >>> mlp((784, 500, 10), Spec((28, 28, 1))).tensors
    {'fc1.weight': (500, 784), 'fc2.weight': (10, 500)}
    """
    if len(sizes) < 2:
        raise InputError(f"the sizes of an MLP must have at least inputs and outputs, got {tuple(sizes)}")
    checked_spec(input_spec)
    pairs = list(itertools.pairwise(sizes))
    names = names or [f"fc{number}" for number in range(1, len(pairs) + 1)]
    biases = [bias] * len(pairs) if isinstance(bias, bool) else bias
    nodes: list[tuple[str, Node]] = [("flatten", Flatten())] if len(input_spec.shape) > 1 else []
    for index, (name, biased, (inputs, outputs)) in enumerate(zip(names, biases, pairs, strict=True)):
        nodes += [(f"relu{index}", Relu())] if index else []
        nodes.append((name, Dense(inputs, outputs, biased)))
    return Network(Chain(tuple(nodes)), input_spec)


def lenet5(input_spec: Spec, classes: int, width: float = 1.0) -> Network:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; 28 x 28 images are padded to 32. 61,706 parameters.

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
    """Conv-2, 4, 6 (Frankle and Carbin 2019) and Conv-8 (Ramanujan et al. 2020), without biases.

    Each block has two 3 x 3 convolutions of 64, 128, 256 or 512 channels and a pooling; dense layers of 256, 256 and
    `classes` units follow.
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
    """VGG with batch normalisation (Simonyan and Zisserman 2015) and torchvision's names.

    Groups of 3 x 3 convolutions of 64, 128, 256, 512, 512 channels, each with a pooling. Small images: the mean over
    positions and one dense layer (Frankle and Carbin 2019: 20.0 million weights for VGG-19). Large images:
    torchvision's three dense layers.
    """
    net, index = NetworkBuilder(input_spec), 0
    for group, count in enumerate(convolutions):
        for _ in range(count):
            net.conv(f"features.{index}", scaled(64 << min(group, 3), width), 3, padding=1, bias=True)
            net.norm(f"features.{index + 1}").relu(f"features.{index + 2}")
            index += 3
        net.add(f"features.{index}", MaxPool((2, 2)))
        index += 1
    if input_spec.shape[0] < LARGE:
        return Network(net.add("avgpool", GlobalPool()).dense("classifier", classes, bias=True).chain(), input_spec)
    net.add("flatten", Flatten())
    for number in (0, 3):  # torchvision has a ReLU and a dropout between
        net.dense(f"classifier.{number}", scaled(4096, width), bias=True).relu(f"classifier.{number + 1}")
    return Network(net.dense("classifier.6", classes, bias=True).chain(), input_spec)


LARGE = 64
"""Images of at least this size get the stem of ImageNet networks: a 7 x 7 convolution of stride 2 and a pooling."""


def resnet(
    input_spec: Spec,
    classes: int,
    width: float,
    *,
    channels: tuple[int, ...],
    blocks: tuple[int, ...],
    bottleneck: bool,
) -> Network:
    """Residual networks (He et al. 2016) with torchvision's names; projections if shapes change.

    Args:
        width: Multiplier of the channels.
        channels: Channels of each group of blocks; each group but the first halves the image.
        blocks: Blocks of each group.
        bottleneck: Blocks of 1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions instead of two 3 x 3.
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
            for index in range(count):
                stride = 2 if group and not index else 1
                chain.inner(str(index), lambda inner, stride=stride: _block(inner, units, stride, bottleneck))
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
    """Three 3 x 3 `RotationConv` of 16, 16, 32 channels, the global mean and a dense layer, with biases.

    The output is invariant to rotations of square images by 90 degrees.

    >>> rotation_network(Spec((8, 8, 1)), 10).tensors["conv2.weight"]
    (16, 16, 4, 3, 3)
    """
    net = NetworkBuilder(input_spec)
    for number, channels in enumerate((16, 16, 32), start=1):
        inputs, rotations = net.spec.shape[-1], 1 if number == 1 else ROTATIONS
        net.add(f"conv{number}", RotationConv(inputs, scaled(channels, width), 3, 1, rotations, bias=True))
        net.relu(f"relu{number}")
    return Network(net.add("pool", GlobalPool()).dense("fc", classes, bias=True).chain(), input_spec)


_HEADS, _HEAD_SIZE = 4, 32


def vit(input_spec: Spec, classes: int, width: float = 1.0, *, patch: int = 4, depth: int = 4) -> Network:
    """A small vision transformer (Dosovitskiy et al. 2021) with timm's names.

    Patches of 4 x 4, four pre-norm layers of 128 features with 4 heads and MLPs of 256 units, mean over tokens.
    """
    size = _HEADS * scaled(_HEAD_SIZE, width)
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
    norm, attention = LayerNorm(size), Attention(_HEADS, Dense(size, 3 * size, True), Dense(size, size, True))
    chain.add("(attention)", _residual(("norm1", norm), ("attn", attention)))
    mlp = Chain((("fc1", Dense(size, 2 * size, True)), ("act", Gelu()), ("fc2", Dense(2 * size, size, True))))
    return chain.add("(mlp)", _residual(("norm2", norm), ("mlp", mlp))).chain()


def _residual(*nodes) -> Residual:
    return Residual(Chain(nodes))


Build = Callable[[Spec, int, float], Network]
"""From the input, the number of classes and a multiplier of all hidden widths to a network."""


def _mlp_of(input_spec: Spec, classes: int, width: float, *, hidden: tuple[int, ...], bias: bool) -> Network:
    """An MLP with ReLU."""
    units = [scaled(size, width) for size in hidden]
    return mlp((math.prod(input_spec.shape), *units, classes), input_spec, bias=bias)


ARCHITECTURES: dict[str, Build] = {
    "fc2": functools.partial(_mlp_of, hidden=(500,), bias=False),
    "fc4": functools.partial(_mlp_of, hidden=(500, 500, 500), bias=False),
    "lenet-300-100": functools.partial(_mlp_of, hidden=(300, 100), bias=True),
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
"""Architectures that normalise their inputs, if the data set has constants for it."""

_MLP_NAME = re.compile(r"mlp((?:-[1-9][0-9]{0,5})*)")


def architecture(
    name: str, input_spec: Spec, classes: int, *, width: float = 1.0, normalize: Normalize | None = None
) -> Network:
    """The network of an architecture.

    Args:
        name: One of `ARCHITECTURES`; mlp-A-B-... with hidden layers of A, B, ... units and without biases; or
            FILE.py:FUNCTION, a function (input_spec, classes) -> `Network` of the user.
        normalize: First node of the architectures in `NORMALIZED`.

    Raises:
        InputError: If the name is unknown, or the architecture does not fit the input.

    >>> architecture("mlp-64", Spec((8, 8, 1)), 10).tensors
    {'fc1.weight': (64, 64), 'fc2.weight': (10, 64)}
    """
    checked_spec(input_spec)
    if not 0 < width < math.inf:
        raise InputError(f"width must be a positive number, got {width}. It multiplies all hidden widths.")
    if USER_OBJECT.fullmatch(name):
        return _user_architecture(name, input_spec, classes, width)
    hidden = _MLP_NAME.fullmatch(name)
    build = ARCHITECTURES.get(name)
    if hidden:
        sizes = tuple(int(size) for size in hidden[1].split("-")[1:])
        build = functools.partial(_mlp_of, hidden=sizes, bias=False)
    if build is None:
        raise InputError(
            f"architecture {name!r} is unknown; {suggest(name, ARCHITECTURES)} or mlp-A-B-... with hidden layers of"
            " A, B, ... units, or name a function of your own, FILE.py:FUNCTION"
        )
    try:
        network = build(input_spec, classes, width)
    except InputError as error:
        raise InputError(
            f"{name} does not fit examples of shape {list(input_spec.shape)} ({error}). Choose another architecture."
        ) from None
    if normalize is None or name not in NORMALIZED:
        return network
    assert isinstance(network.root, Chain)
    return Network(Chain((("normalize", normalize), *network.root.nodes)), input_spec)


def _user_architecture(word: str, input_spec: Spec, classes: int, width: float) -> Network:
    """The network of a function in a file of the user."""
    if width != 1:
        raise InputError(f"width must be 1 for your own architecture, got {width}. Set the widths in its function.")
    _, function = user_object(word, "architecture")
    if not callable(function):
        raise InputError(
            f"architecture {word!r} must name a function (input_spec, classes) -> Network. Define it there."
        )
    try:
        network = function(input_spec, classes)
    except Exception as error:
        raise InputError(
            f"architecture {word!r} must take (input_spec, classes), here ({input_spec}, {classes}), got"
            f" {type(error).__name__}: {error}. Correct it."
        ) from error
    if not isinstance(network, Network) or network.input_spec != input_spec or network.sources:
        raise InputError(
            f"architecture {word!r} must return a Network without random layers for {input_spec}, got {shown(network)}."
            " Pass it the input_spec."
        )
    return network
