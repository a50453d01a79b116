"""What the seed decides of masks, in a training: absent weights are in none, locked ones in every one.

No score changes that, and kept counts are of what is possible: all that is locked at least, all that is there at most.
"""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from lottery_jax.learned.scores import Tensors
from lottery_jax.networks.network import NO_REDRAWS, Network, Redraws
from lottery_jax.networks.sources.decided import decided_mask, decides

if TYPE_CHECKING:
    from lottery_jax.learned.trainer import Run


def decided_weights(network: Network, seed: int, redraws: Redraws | None = None) -> dict[str, np.ndarray]:
    """-1 absent, 1 locked, 0 neither, int8 in the masks' shapes, of tensors of which the seed decides anything."""
    return {
        name: decided_mask(drawn, seed, (redraws or {}).get(name, NO_REDRAWS))
        for name, drawn in network.drawn.items()
        if decides(drawn)
    }


def as_decided(masks: Tensors, decided: Tensors) -> Tensors:
    """Masks, bool or float32, without what is absent and with what is locked.

    >>> own = jnp.array([-1, 0, 1, 1], jnp.int8)
    >>> as_decided({"fc": jnp.array([1.0, 0.0, 0.0, 0.5])}, {"fc": own})["fc"].tolist()
    [0.0, 0.0, 1.0, 0.5]
    """
    found = dict(masks)
    for name, own in decided.items():
        none = jnp.zeros_like(masks[name])
        there = jnp.where(own < 0, none, masks[name])
        # What a learner multiplies its kept weights by, it multiplies locked ones by, too.
        found[name] = jnp.where((own > 0) & (there == none), jnp.ones_like(none), there)
    return found


def scores_as_decided(scores: Tensors, decided: Tensors, least: float, most: float) -> Tensors:
    """Scores, `least` where weights are absent and `most` where they are locked.

    >>> own = jnp.array([-1, 0, 1], jnp.int8)
    >>> scores_as_decided({"fc": jnp.ones(3)}, {"fc": own}, 0.0, 9.0)["fc"].tolist()
    [0.0, 1.0, 9.0]
    """
    found = dict(scores)
    for name, own in decided.items():
        found[name] = jnp.where(own < 0, np.float32(least), jnp.where(own > 0, np.float32(most), scores[name]))
    return found


def possible_counts(run: "Run", network: Network, decided: Tensors) -> "Run":
    """The run with kept counts of at least what is locked, and at most what is there."""
    if not decided:
        return run
    locked = {name: (own > 0).sum(dtype=jnp.int32) for name, own in decided.items()}
    there = {name: (own >= 0).sum(dtype=jnp.int32) for name, own in decided.items()}
    counts = {
        name: jnp.clip(count, locked[name], there[name]) if name in there else count
        for name, count in run.counts.items()
    }
    whole = jnp.int32(sum(drawn.size for name, drawn in network.drawn.items() if name not in there))
    least, most = sum(locked.values(), jnp.int32(0)), sum(there.values(), whole)
    return run._replace(counts=counts, total=jnp.clip(run.total, least, most))
