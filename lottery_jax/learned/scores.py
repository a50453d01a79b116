"""Scores of random weights: where they begin, how many are kept, and the gates whose masks follow them."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from lottery_jax.networks.gates import TopKGate
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.node import Gate, child_path
from lottery_jax.networks.sources.drawn import Matrix, Neighbours
from lottery_jax.networks.top_k import kept_count
from lottery_jax.sampler import Sampler

Tensors = dict[str, jax.Array]
"""One array per random tensor, by its name."""

SCORE_STREAM = 1 << 31  # scores are drawn from the seed in streams that no source tensor uses


def keep_counts(network: Network, keep: float) -> dict[str, np.ndarray]:
    """Kept entries of each tensor, exact; raises `InputError` for a keep outside [0, 1]."""
    return {name: np.asarray(kept_count(keep, drawn.size), np.int32) for name, drawn in network.drawn.items()}


def initial_scores(network: Network, seed: int) -> dict[str, np.ndarray]:
    """Kaiming-uniform scores, as published: U[-b, b] with b = 1 / sqrt(fan-in of the tensor)."""
    scores, edges = {}, edge_tensors(network)
    for name, drawn in network.drawn.items():
        matrix = isinstance(drawn.layout, Matrix)
        fan = drawn.shape[0] if name in edges else drawn.size / drawn.shape[0]
        bound = float(fan) ** -0.5
        own = dataclasses.replace(
            drawn,
            sampler=Sampler.uniform(-bound, bound),
            stream=SCORE_STREAM + drawn.stream,
            layout=drawn.layout if matrix else Neighbours(drawn.width),
            shared=1,
        )
        scores[name] = own.draw_all(seed, NO_REDRAWS)
    return scores


def edge_tensors(network: Network) -> set[str]:
    """The random tensors between a leaf's inputs and its weights, by name."""
    return {child_path(path, name) for path, leaf in network.sources.items() for name in leaf.edges}


def gates(scores: Tensors, counts: Tensors) -> Callable[[str], Gate]:
    """The gates whose masks follow the scores."""
    return lambda name: TopKGate(scores[name], counts[name])
