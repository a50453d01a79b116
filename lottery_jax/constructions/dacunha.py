"""Convolutions (da Cunha, Natale and Viennot 2022): a random 1 x 1 convolution, then a random one of the kernel's size.

The mask of the first isolates each input channel, so that each weight of a kernel is a sum of products u v, as one of a
matrix is in Theorem 1 of Pensia et al. 2020; stride, padding and pooling stay what they are. With batch normalisations
folded and in residual blocks, each body and each projection is one more layer (Burkholz 2022b).
"""

import dataclasses
from typing import ClassVar

from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target


@dataclasses.dataclass(frozen=True)
class DaCunha(Pensia):
    """Convolutional networks (da Cunha et al. 2022): as pensia, a 1 x 1 convolution in front of each convolution."""

    name: ClassVar[str] = "dacunha"

    def source(self, target: Target) -> Network:
        nodes = [node for _, node in target.network.nodes()]
        if not any(isinstance(node, Conv) for node in nodes) or any(isinstance(node, Attention) for node in nodes):
            raise InputError(
                "dacunha is for networks of convolutions, perhaps with dense layers behind them, and not for attention;"
                " use pensia for this one"
            )
        return super().source(target)
