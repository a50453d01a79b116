"""Masks learned as probabilities: supermasks (Zhou et al. 2019) and hard-concrete gates (Louizos et al. 2018).

Supermask (arXiv 1905.01067, section 5): a weight is kept with probability sigmoid(score). Each step samples a mask, and
the gradient passes straight through to the probability. The seed samples the mask of the ticket.

Hard-concrete gates (arXiv 1712.01312): a gate is a stretched and clipped logistic variable, often exactly 0 or 1, and
differentiable in between. The penalty is the expected number of kept weights. The ticket keeps a weight if its gate,
without noise, is at least a half.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.mask_learning.score_learner import RunInputs, ScoreLearner, SGDScoreLearner
from lottery_jax.mask_learning.scores import Arrays, Tensors, straight_through
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.networks.network import Network


@dataclasses.dataclass(frozen=True)
class _ProbabilityLearner(ScoreLearner):
    """Scores are log-odds that a weight is kept, a half at first; there is no kept fraction."""

    sweeps: ClassVar[bool] = False
    least_score: ClassVar[float] = -100.0
    most_score: ClassVar[float] = 100.0

    def initial(self, network: Network, seed: int) -> Arrays:
        return {name: np.zeros(drawn.shape, np.float32) for name, drawn in network.random_tensors.items()}

    def warm_start_scores(self, scores: Arrays, masks: Arrays) -> Arrays:
        return {name: np.where(mask, np.float32(2), np.float32(-2)) for name, mask in masks.items()}


@dataclasses.dataclass(frozen=True)
class Supermask(_ProbabilityLearner, SGDScoreLearner):
    """Bernoulli supermask (Zhou et al. 2019): each frozen random weight is kept with a probability that is trained."""

    learn = sweep = train_scores

    name: ClassVar[str] = "supermask"

    learning_rate: float = 100.0
    """Learning rate of the scores at the start; it falls to zero along a cosine."""
    weight_decay: float = 0.0
    """Weight decay of the scores, which pulls probabilities to a half."""
    threshold: bool = False
    """Keep in the ticket the weights with probability above a half, instead of a sampled mask."""

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        found = {}
        for index, (name, score) in enumerate(scores.items()):
            likely = jax.nn.sigmoid(score)
            found[name] = straight_through(jax.random.uniform(_tensor_key(key, index), score.shape) < likely, likely)
        return found

    def final_masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        if self.threshold:
            return {name: score > 0 for name, score in scores.items()}
        return super().final_masks(scores, run, key)


@dataclasses.dataclass(frozen=True)
class RescaledSupermask(Supermask):
    """Supermask with dynamic weight rescaling (Zhou et al. 2019): kept weights of a layer times size / kept."""

    name: ClassVar[str] = "supermask-rescaled"
    rescaling: ClassVar[float] = 1.0


_LOW, _HIGH, _TEMPERATURE = -0.1, 1.1, 2 / 3  # as published


@dataclasses.dataclass(frozen=True)
class HardConcrete(_ProbabilityLearner):
    """Hard-concrete gates (Louizos et al. 2018): random gates in [0, 1] on frozen random weights, trained by Adam."""

    learn = sweep = train_scores

    name: ClassVar[str] = "hard-concrete"

    learning_rate: float = 0.05
    """Learning rate of Adam at the start; it falls to zero along a cosine."""
    penalty_factor: float = 0.1
    """Factor of the expected kept fraction in the loss; a larger factor keeps fewer weights."""

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        found = {}
        for index, (name, score) in enumerate(scores.items()):
            noise = jax.random.logistic(_tensor_key(key, index), score.shape, score.dtype)
            found[name] = _stretched((noise + score) / _TEMPERATURE)
        return found

    def final_masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        return {name: _stretched(score) >= 0.5 for name, score in scores.items()}

    def penalty(self, scores: Tensors, run: RunInputs) -> jax.Array:
        likely = [jax.nn.sigmoid(score - _TEMPERATURE * np.log(-_LOW / _HIGH)) for score in scores.values()]
        size = sum(part.size for part in likely)
        return self.penalty_factor * sum((part.sum() for part in likely), jnp.float32(0)) / size


def _stretched(score: jax.Array) -> jax.Array:
    return jnp.clip(jax.nn.sigmoid(score) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)


def _tensor_key(key: jax.Array, index: int) -> jax.Array:
    return jax.random.fold_in(key, jnp.uint32(index))
