"""LeNet-5, and the convolutional networks Conv-2, 4, 6 and 8 of the lottery ticket papers."""

from lottery_jax.networks.layers.pooling import MaxPool
from lottery_jax.networks.layers.reshape import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.zoo.build import Building, scaled


def lenet5(given: Spec, classes: int, width: float = 1.0) -> Network:
    """LeCun et al. 1998 as it is built today: ReLU, maxima, 28 x 28 images padded to 32; 61,706 parameters.

    >>> sorted(lenet5(Spec((28, 28, 1)), 10).tensors)[:3]
    ['conv1.bias', 'conv1.weight', 'conv2.bias']
    """
    net = Building(given)
    for number, (channels, padding) in enumerate(((6, 2), (16, 0)), start=1):
        net.conv(f"conv{number}", scaled(channels, width), 5, padding=padding, bias=True)
        net.relu(f"relu{number}").add(f"pool{number}", MaxPool((2, 2)))
    net.add("flatten", Flatten())
    for number, units in enumerate((120, 84), start=1):
        net.dense(f"fc{number}", scaled(units, width), bias=True).relu(f"relu{number + 2}")
    return Network(net.dense("fc3", classes, bias=True).chain(), given)


def conv_network(given: Spec, classes: int, width: float, *, blocks: int) -> Network:
    """Blocks of two 3 x 3 convolutions and a pooling, 64, 128, 256, 512 channels, then 256, 256, classes; no biases.

    Frankle and Carbin 2019 (Conv-2, 4, 6), Ramanujan et al. 2020 (Conv-8, and widths).
    """
    net = Building(given)
    for block in range(blocks):
        for number in (2 * block + 1, 2 * block + 2):
            net.conv(f"conv{number}", scaled(64 << block, width), 3, padding=1).relu(f"relu{number}")
        net.add(f"pool{block + 1}", MaxPool((2, 2)))
    net.add("flatten", Flatten())
    for number in (1, 2):
        net.dense(f"fc{number}", scaled(256, width)).relu(f"relu{2 * blocks + number}")
    return Network(net.dense("fc3", classes).chain(), given)
