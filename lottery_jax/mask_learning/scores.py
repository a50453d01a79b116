"""Scores of random weights: their first values, their kept counts, and mask entries that the seed forces.

Absent weights are in no mask and locked weights in every mask, whatever their scores are.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.networks.network import NO_REDRAWS, Network, Redraws
from lottery_jax.networks.node import child_path
from lottery_jax.networks.top_k import kept_count
from lottery_jax.rng.forced_entries import forced_mask, has_forced_entries
from lottery_jax.rng.random_tensor import ContiguousLayout, MatrixLayout, RandomTensor
from lottery_jax.rng.sampler import Sampler

Tensors = dict[str, jax.Array]
"""One array per random tensor, by its name."""

Arrays = dict[str, np.ndarray]
"""The same on the host."""

SCORE_STREAM = 1 << 31  # streams of the sampler that no source tensor uses


def straight_through(hard: jax.Array, soft: jax.Array) -> jax.Array:
    """The exact values of `hard` with the gradient of `soft` (Bengio et al. 2013, section 4).

    >>> value, gradient = jax.value_and_grad(lambda x: straight_through(jnp.float32(1), 3 * x))(jnp.float32(0.2))
    >>> float(value), float(gradient)
    (1.0, 3.0)
    """
    return jax.lax.stop_gradient(hard).astype(soft.dtype) + (soft - jax.lax.stop_gradient(soft))


def keep_counts(network: Network, keep: float) -> Arrays:
    """Kept entries of each tensor, int32 by name; raises `InputError` for a kept fraction outside [0, 1]."""
    counts = {}
    for name, drawn in network.random_tensors.items():
        counts[name] = np.asarray(kept_count(keep, drawn.size), np.int32)
    return counts


def initial_scores(network: Network, seed: int) -> Arrays:
    """Kaiming-uniform scores (Ramanujan et al. 2020): U[-b, b] with b = 1 / sqrt(fan-in of the tensor)."""
    edges, scores = edge_tensors(network), {}
    for name, drawn in network.random_tensors.items():
        bound = float(drawn.shape[0] if name in edges else drawn.size / drawn.shape[0]) ** -0.5
        scores[name] = draw_scores(drawn, Sampler.uniform(-bound, bound), seed)
    return scores


def draw_scores(drawn: RandomTensor, sampler: Sampler, seed: int) -> np.ndarray:
    """Scores of one tensor from a sampler, in a stream of their own."""
    own = dataclasses.replace(
        drawn,
        sampler=sampler,
        stream=SCORE_STREAM + drawn.stream,
        layout=drawn.layout if isinstance(drawn.layout, MatrixLayout) else ContiguousLayout(drawn.width),
        rows_per_block=1,
    )
    return own.draw_all(seed, NO_REDRAWS)


def edge_tensors(network: Network) -> set[str]:
    """Names of the random tensors between the inputs of a source layer and its weights."""
    return {child_path(path, name) for path, leaf in network.sources.items() for name in leaf.hidden_tensors}


def forced_weights(network: Network, seed: int, redraws: Redraws | None = None) -> Arrays:
    """Forced mask entries, int8 by tensor (-1 absent, 1 locked, 0 free), of the tensors that have any."""
    forced = {}
    for name, drawn in network.random_tensors.items():
        if has_forced_entries(drawn):
            forced[name] = forced_mask(drawn, seed, (redraws or {}).get(name, NO_REDRAWS))
    return forced


def apply_forced(masks: Tensors, forced: Tensors) -> Tensors:
    """Masks, bool or float32, without absent weights and with locked ones.

    >>> own = jnp.array([-1, 0, 1, 1], jnp.int8)
    >>> apply_forced({"fc": jnp.array([1.0, 0.0, 0.0, 0.5])}, {"fc": own})["fc"].tolist()
    [0.0, 0.0, 1.0, 0.5]
    """
    found = dict(masks)
    for name, own in forced.items():
        zero = jnp.zeros_like(masks[name])
        present = jnp.where(own < 0, zero, masks[name])
        # A locked weight that the learner keeps has the factor that the learner gives to kept weights.
        found[name] = jnp.where((own > 0) & (present == zero), jnp.ones_like(zero), present)
    return found


def forced_scores(scores: Tensors, forced: Tensors, least: float, most: float) -> Tensors:
    """Scores with `least` for absent weights and `most` for locked ones.

    >>> own = jnp.array([-1, 0, 1], jnp.int8)
    >>> forced_scores({"fc": jnp.ones(3)}, {"fc": own}, 0.0, 9.0)["fc"].tolist()
    [0.0, 1.0, 9.0]
    """
    found = dict(scores)
    for name, own in forced.items():
        found[name] = jnp.where(own < 0, np.float32(least), jnp.where(own > 0, np.float32(most), scores[name]))
    return found
