"""Convolutional networks (da Cunha, Natale and Viennot 2022, "Proving the strong lottery ticket hypothesis for CNNs").

A random 1 x 1 convolution, then a random convolution of the kernel's size replace each convolution. `Pensia` builds the
same source for all architectures; use `DaCunha` to stay within the setting of the paper.
"""

import dataclasses
from typing import ClassVar

from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.operations import DotGeneral
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target


@dataclasses.dataclass(frozen=True)
class DaCunha(Pensia):
    """Convolutional networks (da Cunha et al. 2022): as pensia, a 1 x 1 convolution in front of each convolution."""

    name: ClassVar[str] = "dacunha"

    def source(self, target: Target) -> Network:
        nodes = [node for _, node in target.network.nodes()]
        if not any(isinstance(node, Conv) for node in nodes) or any(
            isinstance(node, Attention | DotGeneral) for node in nodes
        ):
            raise InputError(
                "dacunha is for networks of convolutions, optionally with dense layers behind them, and not for"
                " attention; use pensia for this one"
            )
        return super().source(target)
