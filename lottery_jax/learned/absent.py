"""Absent weights of thinned sources, in a training: no score makes one of them kept, and none is counted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from lottery_jax.learned.scores import Tensors
from lottery_jax.networks.network import Network

if TYPE_CHECKING:
    from lottery_jax.learned.trainer import Run


def present_weights(network: Network, source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which random weights are there, bool in the masks' shapes: of thinned tensors alone, by name."""
    thinned = {name: drawn for name, drawn in network.drawn.items() if drawn.sampler.density < 1}
    return {name: np.broadcast_to(source[name] != 0, drawn.shape) for name, drawn in thinned.items()}


def only_present(masks: Tensors, present: Tensors) -> Tensors:
    """Masks, bool or float32, without what is absent."""
    return {
        name: jnp.where(present[name], mask, jnp.zeros_like(mask)) if name in present else mask
        for name, mask in masks.items()
    }


def fewer_counts(run: "Run", network: Network, present: Tensors) -> "Run":
    """The run with kept counts of at most what is there."""
    if not present:
        return run
    there = {name: own.sum(dtype=jnp.int32) for name, own in present.items()}
    whole = jnp.int32(sum(drawn.size for name, drawn in network.drawn.items() if name not in there))
    whole = sum(there.values(), whole)
    counts = {name: jnp.minimum(count, there[name]) if name in there else count for name, count in run.counts.items()}
    return run._replace(counts=counts, total=jnp.minimum(run.total, whole))
