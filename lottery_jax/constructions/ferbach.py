"""Equivariant networks (Ferbach, Tsirigotis, Gidel and Bose 2022, arXiv 2206.04270, Theorem 1).

A layer that commutes with rotations by 90 degrees is a sum of basis maps, so only its coefficients are approximated, by
two random layers of the same kind: the pruned random network is exactly equivariant.
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
