"""Scores of random weights: where they begin, and how many are kept."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import numpy as np

from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.node import child_path
from lottery_jax.networks.sources.drawn import Drawn, Matrix, Neighbours
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
    edges = edge_tensors(network)

    def sampler(name: str, drawn: Drawn) -> Sampler:
        fan = drawn.shape[0] if name in edges else drawn.size / drawn.shape[0]
        return Sampler.uniform(-(float(fan) ** -0.5), float(fan) ** -0.5)

    return _drawn_scores(network, seed, sampler)


def unit_scores(network: Network, seed: int) -> dict[str, np.ndarray]:
    """Scores from U[0, 1]."""
    return _drawn_scores(network, seed, lambda name, drawn: Sampler.uniform(0, 1))


def _drawn_scores(network: Network, seed: int, sampler: Callable[[str, Drawn], Sampler]) -> dict[str, np.ndarray]:
    scores = {}
    for name, drawn in network.drawn.items():
        own = dataclasses.replace(
            drawn,
            sampler=sampler(name, drawn),
            stream=SCORE_STREAM + drawn.stream,
            layout=drawn.layout if isinstance(drawn.layout, Matrix) else Neighbours(drawn.width),
            shared=1,
        )
        scores[name] = own.draw_all(seed, NO_REDRAWS)
    return scores


def edge_tensors(network: Network) -> set[str]:
    """The random tensors between a leaf's inputs and its weights, by name."""
    return {child_path(path, name) for path, leaf in network.sources.items() for name in leaf.edges}


def kept_factors(network: Network, masks: Mapping[str, np.ndarray], power: float) -> dict[str, float]:
    """(size / kept) ** power of each random leaf's tensors, multiplied, by the name of its gain."""
    factors = {}
    for path, source in network.sources.items():
        own = [masks[child_path(path, name)] for name in source.drawn()]
        factors[child_path(path, "gain")] = math.prod((mask.size / max(int(mask.sum()), 1)) ** power for mask in own)
    return factors
