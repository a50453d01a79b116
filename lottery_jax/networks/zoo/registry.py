"""Every architecture by its name; a new one is a function of its own and one line here."""

import functools
import math
import re
from collections.abc import Callable

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.normalize import Normalize
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.zoo.build import scaled
from lottery_jax.networks.zoo.convnets import conv_network, lenet5
from lottery_jax.networks.zoo.mlp import mlp
from lottery_jax.networks.zoo.resnets import resnet
from lottery_jax.networks.zoo.rotations import rotation_network
from lottery_jax.networks.zoo.transformers import vit
from lottery_jax.networks.zoo.vgg import vgg

Build = Callable[[Spec, int, float], Network]
"""From what is given, the number of classes and a multiplier of all hidden widths to a network."""


def dense(given: Spec, classes: int, width: float, *, hidden: tuple[int, ...], bias: bool) -> Network:
    """An MLP with hidden layers of these sizes."""
    units = [scaled(size, width) for size in hidden]
    return mlp((math.prod(given.shape), *units, classes), given, bias=bias)


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
    name: str, given: Spec, classes: int, *, width: float = 1.0, normalize: Normalize | None = None
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
        network = build(given, classes, width)
    except InputError as error:
        raise InputError(
            f"{name} does not fit examples of shape {list(given.shape)} ({error}); choose another architecture"
        ) from None
    if normalize is None or name not in NORMALIZED:
        return network
    assert isinstance(network.root, Chain)
    return Network(Chain((("normalize", normalize), *network.root.nodes)), given)
