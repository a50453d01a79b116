"""Attention by the products of its projections (Otsuka et al. 2025, arXiv 2511.04217).

Two masked random matrices without a ReLU approximate W_K^T W_Q / sqrt(d), and two W_O W_V (`networks.rewrites`), so
that one subset of n products serves inputs of both signs. All other layers are approximated as by `Pensia`. Unlike the
paper's, all samplers are U[-1, 1], and the heads share the first matrix of `qk`.
"""

import dataclasses
from typing import ClassVar

from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.attention import MergedAttention
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import WeightNode, child_path
from lottery_jax.networks.rewrites import fold_batch_norm, merge_attention
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target


@dataclasses.dataclass(frozen=True)
class Otsuka(Pensia):
    """Attention of Otsuka et al. 2025: merged products of queries with keys, and of values with the projection.

    Two random layers without a ReLU, with n hidden units for each input, approximate each product; all else as pensia.
    """

    name: ClassVar[str] = "otsuka"

    def prepare(self, target: Target) -> Target:
        return merge_attention(fold_batch_norm(target))

    def source(self, target: Target) -> Network:
        if not _products(target.network):
            raise InputError(
                f"{self.name} is for attention between dense layers, and the target has none; use pensia, or scalar"
            )
        return super().source(target)

    def random_layer(self, target: Target, path: str, of: WeightNode) -> Gadget:
        gadget = super().random_layer(target, path, of)
        if path not in _products(target.network):
            return gadget
        return dataclasses.replace(gadget, units=self.candidates, relu=False)


def _products(network: Network) -> set[str]:
    """The paths of the merged projections."""
    layers = {path: node for path, node in network.nodes() if isinstance(node, MergedAttention)}
    return {child_path(path, name) for path, node in layers.items() for name in node.children()}
