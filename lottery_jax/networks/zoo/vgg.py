"""VGG networks with batch normalisation and the names of torchvision."""

from lottery_jax.networks.layers.pooling import GlobalPool, MaxPool
from lottery_jax.networks.layers.reshape import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.zoo.build import Building, scaled
from lottery_jax.networks.zoo.resnets import LARGE


def vgg(given: Spec, classes: int, width: float, *, convolutions: tuple[int, ...]) -> Network:
    """Simonyan and Zisserman 2015: groups of 3 x 3 convolutions of 64, 128, 256, 512, 512 channels, each with a
    pooling.

    Small images: the mean over places, then one dense layer (Frankle and Carbin 2019: 20.0 million weights for VGG-19).
    Large ones: torchvision's three dense layers of 4,096 units (224 x 224 images, 7 x 7 places at the end).
    """
    net, place = Building(given), 0
    for group, count in enumerate(convolutions):
        for _ in range(count):
            net.conv(f"features.{place}", scaled(64 << min(group, 3), width), 3, padding=1, bias=True)
            net.norm(f"features.{place + 1}").relu(f"features.{place + 2}")
            place += 3
        net.add(f"features.{place}", MaxPool((2, 2)))
        place += 1
    if given.shape[0] < LARGE:
        return Network(net.add("avgpool", GlobalPool()).dense("classifier", classes, bias=True).chain(), given)
    net.add("flatten", Flatten())
    for number in (0, 3):  # in between lie a ReLU and a dropout
        net.dense(f"classifier.{number}", scaled(4096, width), bias=True).relu(f"classifier.{number + 1}")
    return Network(net.dense("classifier.6", classes, bias=True).chain(), given)
