"""Biprop (Diffenderfer and Kailkhura 2021, arXiv 2103.09377): edge-popup on the signs of random weights.

A layer's weight is alpha sign(W) M: M keeps the top scores, and alpha is the mean |W| of the kept weights. The gradient
of a score is that of the binary weight times W, straight through. The ticket draws the signs as signed constants and
has alpha in the gain of the layer.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.score_learner import RunInputs, SGDScoreLearner
from lottery_jax.mask_learning.scores import Arrays, Tensors, straight_through
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.node import Node, child_path
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.rng.sampler import Sampler

_SIZES = ": sizes"  # suffix of the names of |W|, which are constants among the scores


@dataclasses.dataclass(frozen=True)
class Biprop(SGDScoreLearner):
    """Biprop (Diffenderfer and Kailkhura 2021): edge-popup on random signs with one scale for each layer.

    Exactly round(keep * size) weights are kept of each tensor. For plain layers of normal weights without biases.
    """

    learn = sweep = train_scores

    name: ClassVar[str] = "biprop"
    sources: ClassVar[tuple[str, ...]] = ("plain",)

    def prepare(self, source: Network) -> Network:
        return super().prepare(source).map_layers(self._binary)

    def _binary(self, path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        if not isinstance(node, RandomLayer) or node.sampler.kind != "normal" or len(node.random_tensors()) > 1:
            what = node.sampler.in_words() if isinstance(node, RandomLayer) else node.kind
            raise InputError(
                "biprop must have a source of plain random layers with normal weights without biases, and"
                f" {path!r} is {what} with {len(node.random_tensors())} random tensors. Learn on the plain source,"
                " without `init` or with a normal one."
            )
        constant = dataclasses.replace(node.sampler, kind="signed_constant")
        return dataclasses.replace(node, sampler=constant)

    def initial(self, network: Network, seed: int) -> Arrays:
        return super().initial(network, seed) | {name + _SIZES: size for name, size in _sizes(network, seed).items()}

    def warm_start_scores(self, scores: Arrays, masks: Arrays) -> Arrays:
        own, sizes = {name: scores[name] for name in masks}, {name + _SIZES: scores[name + _SIZES] for name in masks}
        return super().warm_start_scores(own, masks) | sizes

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        found = {}
        for name in _names(scores):
            kept, size = top_k_mask(scores[name], run.counts[name]), scores[name + _SIZES]
            alpha = (kept * size).sum() / jnp.maximum(kept.sum(), 1)
            found[name] = straight_through(alpha * kept, jax.lax.stop_gradient(size) * kept)
        return found

    def final_masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        return {name: top_k_mask(scores[name], run.counts[name]) > 0 for name in _names(scores)}

    def project_scores(self, old: Tensors, new: Tensors) -> Tensors:
        return {name: old[name] if name.endswith(_SIZES) else score for name, score in new.items()}

    def gain_factors(self, network: Network, seed: int, masks: Arrays) -> dict[str, float]:
        sizes, found = _sizes(network, seed), {}
        for path in network.sources:
            name = child_path(path, "weight")
            kept = sizes[name][masks[name]].astype(np.float64)
            found[child_path(path, "gain")] = float(kept.mean()) if kept.size else 1.0
        return found


def _names(scores: Tensors) -> list[str]:
    return [name for name in scores if not name.endswith(_SIZES)]


def _sizes(network: Network, seed: int) -> Arrays:
    """|W| over the constant that replaces it, float32 by tensor."""
    return {
        name: np.abs(dataclasses.replace(drawn, sampler=Sampler.normal(1.0)).draw_all(seed, NO_REDRAWS))
        for name, drawn in network.random_tensors.items()
    }
