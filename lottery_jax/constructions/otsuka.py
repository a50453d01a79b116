"""Attention by the products of its projections (Otsuka et al. 2025, arXiv 2511.04217).

W_K^T W_Q / sqrt(d) of a head is what its scores are made of, W_O W_V what it adds (`networks.merge`). Each is met by
the product of two masked random matrices with nothing between them: no ReLU, so that one subset of n products serves
inputs of both signs and an input has n units, where `pensia` needs two subsets and 2 n units. Their widths for a head:
n_K = n_V = n D, D the size of a token. All other layers, which their theorem leaves alone, are met as by `pensia`.

They draw the factors of W_Q W_K^T from U[-n_K^(1/4), n_K^(1/4)]. Here all are U[-1, 1]: a factor of both bounds is a
scale of the product, and a leaf's gain gives back any scale. The heads share the first matrix of `qk`, whose inputs are
the same tokens: theirs have one each. Biases, which they leave out, are columns for the constant 1.
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

    Each is met by two random layers without a ReLU, with n hidden units for each input; all else as by pensia.
    """

    name: ClassVar[str] = "otsuka"

    def prepared(self, target: Target) -> Target:
        return merge_attention(fold_batch_norm(target))

    def source(self, target: Target) -> Network:
        if not _products(target.network):
            raise InputError(
                f"{self.name} is for attention between dense layers, and the target has none; use pensia, or scalar"
            )
        return super().source(target)

    def leaf(self, target: Target, path: str, of: WeightNode) -> Gadget:
        gadget = super().leaf(target, path, of)
        if path not in _products(target.network):
            return gadget
        return dataclasses.replace(gadget, units=self.candidates, relu=False)


def _products(network: Network) -> set[str]:
    """The paths of what merged attention multiplies by."""
    found = {path: node for path, node in network.nodes() if isinstance(node, MergedAttention)}
    return {child_path(path, name) for path, node in found.items() for name in node.children()}
