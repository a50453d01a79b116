"""Hard choices whose gradient is a soft one's.

Scores of random weights: where they begin, and how many are kept.
What the seed decides of masks, in a training: absent weights are in none, locked ones in every one.

No score changes that, and kept counts are of what is possible: all that is locked at least, all that is there at most.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.networks.network import NO_REDRAWS, Network, Redraws
from lottery_jax.networks.node import child_path
from lottery_jax.networks.top_k import kept_count
from lottery_jax.rng.forced_entries import forced_mask, has_forced_entries
from lottery_jax.rng.random_tensor import ContiguousLayout, MatrixLayout, RandomTensor
from lottery_jax.rng.sampler import Sampler

if TYPE_CHECKING:
    pass


def straight_through(hard: jax.Array, soft: jax.Array) -> jax.Array:
    """The values of `hard`, exactly, with the gradient of `soft` (Bengio et al. 2013, section 4).

    >>> value, gradient = jax.value_and_grad(lambda x: straight_through(jnp.float32(1), 3 * x))(jnp.float32(0.2))
    >>> float(value), float(gradient)
    (1.0, 3.0)
    """
    return jax.lax.stop_gradient(hard).astype(soft.dtype) + (soft - jax.lax.stop_gradient(soft))


def own_key(key: jax.Array, place: int) -> jax.Array:
    """A key for one of several tensors."""
    return jax.random.fold_in(key, jnp.uint32(place))


Tensors = dict[str, jax.Array]
"""One array per random tensor, by its name."""

SCORE_STREAM = 1 << 31  # scores are drawn from the seed in streams that no source tensor uses


def keep_counts(network: Network, keep: float) -> dict[str, np.ndarray]:
    """Kept entries of each tensor, exact; raises `InputError` for a keep outside [0, 1]."""
    return {name: np.asarray(kept_count(keep, drawn.size), np.int32) for name, drawn in network.random_tensors.items()}


def initial_scores(network: Network, seed: int) -> dict[str, np.ndarray]:
    """Kaiming-uniform scores, as published: U[-b, b] with b = 1 / sqrt(fan-in of the tensor)."""
    edges = edge_tensors(network)

    def sampler(name: str, drawn: RandomTensor) -> Sampler:
        fan = drawn.shape[0] if name in edges else drawn.size / drawn.shape[0]
        return Sampler.uniform(-(float(fan) ** -0.5), float(fan) ** -0.5)

    return _drawn_scores(network, seed, sampler)


def unit_scores(network: Network, seed: int) -> dict[str, np.ndarray]:
    """Scores from U[0, 1]."""
    return _drawn_scores(network, seed, lambda name, drawn: Sampler.uniform(0, 1))


def _drawn_scores(
    network: Network, seed: int, sampler: Callable[[str, RandomTensor], Sampler]
) -> dict[str, np.ndarray]:
    scores = {}
    for name, drawn in network.random_tensors.items():
        own = dataclasses.replace(
            drawn,
            sampler=sampler(name, drawn),
            stream=SCORE_STREAM + drawn.stream,
            layout=drawn.layout if isinstance(drawn.layout, MatrixLayout) else ContiguousLayout(drawn.width),
            rows_per_block=1,
        )
        scores[name] = own.draw_all(seed, NO_REDRAWS)
    return scores


def edge_tensors(network: Network) -> set[str]:
    """The random tensors between a leaf's inputs and its weights, by name."""
    return {child_path(path, name) for path, leaf in network.sources.items() for name in leaf.hidden_tensors}


def kept_factors(network: Network, masks: Mapping[str, np.ndarray], power: float) -> dict[str, float]:
    """(size / kept) ** power of each random leaf's tensors, multiplied, by the name of its gain."""
    factors = {}
    for path, source in network.sources.items():
        own = [masks[child_path(path, name)] for name in source.random_tensors()]
        factors[child_path(path, "gain")] = math.prod((mask.size / max(int(mask.sum()), 1)) ** power for mask in own)
    return factors


def forced_weights(network: Network, seed: int, redraws: Redraws | None = None) -> dict[str, np.ndarray]:
    """-1 absent, 1 locked, 0 neither, int8 in the masks' shapes, of tensors of which the seed decides anything."""
    return {
        name: forced_mask(drawn, seed, (redraws or {}).get(name, NO_REDRAWS))
        for name, drawn in network.random_tensors.items()
        if has_forced_entries(drawn)
    }


def apply_forced(masks: Tensors, forced: Tensors) -> Tensors:
    """Masks, bool or float32, without what is absent and with what is locked.

    >>> own = jnp.array([-1, 0, 1, 1], jnp.int8)
    >>> apply_forced({"fc": jnp.array([1.0, 0.0, 0.0, 0.5])}, {"fc": own})["fc"].tolist()
    [0.0, 0.0, 1.0, 0.5]
    """
    found = dict(masks)
    for name, own in forced.items():
        none = jnp.zeros_like(masks[name])
        there = jnp.where(own < 0, none, masks[name])
        # What a learner multiplies its kept weights by, it multiplies locked ones by, too.
        found[name] = jnp.where((own > 0) & (there == none), jnp.ones_like(none), there)
    return found


def forced_scores(scores: Tensors, forced: Tensors, least: float, most: float) -> Tensors:
    """Scores, `least` where weights are absent and `most` where they are locked.

    >>> own = jnp.array([-1, 0, 1], jnp.int8)
    >>> forced_scores({"fc": jnp.ones(3)}, {"fc": own}, 0.0, 9.0)["fc"].tolist()
    [0.0, 1.0, 9.0]
    """
    found = dict(scores)
    for name, own in forced.items():
        found[name] = jnp.where(own < 0, np.float32(least), jnp.where(own > 0, np.float32(most), scores[name]))
    return found
