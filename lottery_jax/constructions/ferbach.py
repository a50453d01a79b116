"""Equivariant networks (Ferbach, Tsirigotis, Gidel and Bose 2022, arXiv 2206.04270, Theorem 1).

A layer that commutes with a group is a sum of basis maps, so only its coefficients are approximated. Two random layers
of the same kind replace it, the first of size 1 x 1, each with coefficients of its own. Each coefficient is a sum of
products, as in Theorem 1 of Pensia et al. 2020. The pruned random network is therefore exactly equivariant. The group
here is that of rotations by 90 degrees.
"""

import dataclasses
from typing import ClassVar

from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.conv import RotationConv
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target


@dataclasses.dataclass(frozen=True)
class Ferbach(Pensia):
    """Ferbach et al. 2022: as pensia, on the coefficients of layers that commute with rotations by 90 degrees."""

    name: ClassVar[str] = "ferbach"

    def source(self, target: Target) -> Network:
        if not any(isinstance(node, RotationConv) for node in target.network.weight_nodes.values()):
            raise InputError(
                "ferbach is for networks with layers that commute with rotations, such as the architecture rotations;"
                " this one has none, use pensia"
            )
        return super().source(target)
