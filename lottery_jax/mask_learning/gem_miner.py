"""Gem-Miner (Sreenivasan et al. 2022, arXiv 2202.12002): scores in [0, 1], the smallest frozen during training.

A weight is kept if its score is at least 1/2, and the gradient passes straight through the rounding. Every few epochs
the least scores are frozen at zero, so that the kept fraction falls geometrically to `keep`. At most
round(keep * size) weights of each tensor are kept.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.score_learner import RunInputs, SGDScoreLearner
from lottery_jax.mask_learning.scores import Arrays, Tensors, draw_scores, straight_through
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.rng.sampler import Sampler

_FROZEN = -1.0


@dataclasses.dataclass(frozen=True)
class GemMiner(SGDScoreLearner):
    """Gem-Miner (Sreenivasan et al. 2022): scores are rounded to 0 or 1, and the least are frozen during training."""

    learn = sweep = train_scores

    name: ClassVar[str] = "gem-miner"

    least_score: ClassVar[float] = _FROZEN
    most_score: ClassVar[float] = 2.0  # above clipped scores
    rescaling: ClassVar[float] = 0.5  # not published: layers keep their scale while weights are frozen

    learning_rate: float = 1.0
    """Learning rate at the start; it falls to zero along a cosine."""
    weight_decay: float = 0.0
    """Weight decay of the scores."""
    freeze_every: int = 2
    """Epochs between two rounds of freezing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.freeze_every) is not int or self.freeze_every < 1:
            raise InputError(f"`freeze_every` must be at least 1, got {self.freeze_every!r}. Give a number of epochs.")

    def initial(self, network: Network, seed: int) -> Arrays:
        uniform = Sampler.uniform(0, 1)
        return {name: draw_scores(drawn, uniform, seed) for name, drawn in network.random_tensors.items()}

    def warm_start_scores(self, scores: Arrays, masks: Arrays) -> Arrays:
        return {name: (score + masks[name]) / 2 for name, score in scores.items()}

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        return {name: straight_through(score >= 0.5, score) for name, score in scores.items()}

    def project_scores(self, old: Tensors, new: Tensors) -> Tensors:
        return {name: jnp.where(old[name] < 0, _FROZEN, jnp.clip(score, 0.0, 1.0)) for name, score in new.items()}

    def on_epoch_end(self, scores: Tensors, run: RunInputs, epoch: jax.Array, epochs: int) -> Tensors:
        every = min(self.freeze_every, epochs)
        rounds = epochs // every
        done = (epoch + 1) // every

        def frozen(name: str) -> jax.Array:
            score, size, count = scores[name], np.float32(scores[name].size), run.counts[name]
            share = done.astype(jnp.float32) / np.float32(rounds)
            kept = jnp.floor(size * (count.astype(jnp.float32) / size) ** share).astype(jnp.int32)
            # Exact in the last round, without rounding errors.
            kept = jnp.where(done == rounds, count, jnp.maximum(kept, count))
            alive = top_k_mask(jnp.where(score < 0, jnp.nan, score), kept) > 0  # NaN ranks below every number
            return jnp.where(alive & (score >= 0), score, _FROZEN)

        due = ((epoch + 1) % every == 0) & (done <= rounds)
        return {name: jnp.where(due, frozen(name), score) for name, score in scores.items()}
