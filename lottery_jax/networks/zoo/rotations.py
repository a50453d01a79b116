"""A network whose answer does not change when its square image is turned by 90 degrees."""

from lottery_jax.networks.layers.pooling import GlobalPool
from lottery_jax.networks.layers.rotation_conv import ROTATIONS, RotationConv
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.zoo.build import Building, scaled


def rotation_network(given: Spec, classes: int, width: float = 1.0) -> Network:
    """Three 3 x 3 convolutions with rotations, 16, 16, 32 channels, the mean over all, and a dense layer; biases.

    >>> rotation_network(Spec((8, 8, 1)), 10).tensors["conv2.weight"]
    (16, 16, 4, 3, 3)
    """
    net = Building(given)
    for number, channels in enumerate((16, 16, 32), start=1):
        of, rotations = net.spec.shape[-1], 1 if number == 1 else ROTATIONS
        net.add(f"conv{number}", RotationConv(of, scaled(channels, width), 3, 1, rotations, bias=True))
        net.relu(f"relu{number}")
    return Network(net.add("pool", GlobalPool()).dense("fc", classes, bias=True).chain(), given)
