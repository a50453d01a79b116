"""Gates: small modules whose call gives the mask of one tensor. A new mask learner is a gate and a loss."""

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.networks.top_k import kept_count, top_k_mask
from lottery_jax.networks.variables import Mask, Score


class FixedGate(nnx.Module):
    """A mask that is given: what a construction or a finished learner leaves behind."""

    def __init__(self, mask: jax.Array) -> None:
        self.mask = Mask(jnp.asarray(mask))

    def __call__(self) -> jax.Array:
        return self.mask[...]


class TopKGate(nnx.Module):
    """Keep the `keep` fraction of largest |score| (edge-popup, Ramanujan et al. 2020).

    `keep` may be traced; as an integer array it is the kept count itself, see `kept_count`.
    """

    def __init__(self, score: jax.Array, keep: float | jax.Array) -> None:
        self.score = Score(score)
        self.count = Mask(jnp.asarray(kept_count(keep, score.size), jnp.int32))

    def __call__(self) -> jax.Array:
        return top_k_mask(self.score[...], self.count[...])
