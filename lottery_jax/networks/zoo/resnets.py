"""Residual networks with the names of torchvision."""

from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.pooling import GlobalPool, MaxPool
from lottery_jax.networks.layers.residual import Residual
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.zoo.build import Building, scaled

LARGE = 64
"""Images of this size and more get the stem of ImageNet networks: 7 x 7 every 2, then a pooling."""


def resnet(
    given: Spec, classes: int, width: float, *, channels: tuple[int, ...], blocks: tuple[int, ...], bottleneck: bool
) -> Network:
    """He et al. 2016: groups of blocks, each group but the first at half the size; projections where sizes change.

    bottleneck: blocks of 1 x 1, 3 x 3 and 1 x 1 convolutions (the stride in the second, as in torchvision), the last
    four times as wide; otherwise of two 3 x 3.
    """
    net = Building(given)
    large = given.shape[0] >= LARGE
    stem = (7, 2, 3) if large else (3, 1, 1)
    size, stride, padding = stem
    net.conv("conv1", scaled(channels[0], width), size, stride=stride, padding=padding).norm("bn1").relu("relu")
    if large:
        net.add("maxpool", MaxPool((3, 3), (2, 2), (1, 1)))
    for group, (units, count) in enumerate(zip(channels, blocks, strict=True)):
        units = scaled(units, width)

        def layer(chain: Building, group: int = group, units: int = units, count: int = count) -> Node:
            for place in range(count):
                step = 2 if group and not place else 1
                chain.inner(str(place), lambda inner, step=step: _block(inner, units, step, bottleneck))
            return chain.chain()

        net.inner(f"layer{group + 1}", layer)
    return Network(net.add("avgpool", GlobalPool()).dense("fc", classes, bias=True).chain(), given)


def _block(chain: Building, units: int, stride: int, bottleneck: bool) -> Chain:
    given = chain.spec
    body, outputs = Building(given), units
    if bottleneck:
        outputs = 4 * units
        body.conv("conv1", units, 1).norm("bn1").relu("relu1")
        body.conv("conv2", units, 3, stride=stride, padding=1).norm("bn2").relu("relu2")
        body.conv("conv3", outputs, 1).norm("bn3")
    else:
        body.conv("conv1", units, 3, stride=stride, padding=1).norm("bn1").relu("relu1")
        body.conv("conv2", units, 3, padding=1).norm("bn2")
    shortcut = Building(given)
    if stride > 1 or given.shape[-1] != outputs:
        shortcut.conv("0", outputs, 1, stride=stride).norm("1")
    return chain.add("(block)", Residual(body.chain(), shortcut.chain())).relu("relu").chain()
