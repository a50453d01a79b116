"""Supermasks learned as probabilities (Zhou et al. 2019, section 5, arXiv 1905.01067).

Each weight is kept with probability sigmoid(m): a mask is drawn in every step, the gradient passes straight through the
draw to the probability. How many are kept follows from the training. The ticket's mask is drawn once, from the seed.

Hard-concrete gates (Louizos et al. 2018, arXiv 1712.01312) on frozen random weights: no straight-through gradient.

A gate is a stretched and clipped logistic variable: often exactly 0 or 1, and differentiable in between. The penalty is
the expected number of kept weights; its factor decides how many are kept. The ticket keeps a weight where its gate,
without noise, is at least a half.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.score_learner import ScoreLearner
from lottery_jax.mask_learning.scores import Tensors, own_key, straight_through
from lottery_jax.mask_learning.train_scores import RunInputs
from lottery_jax.networks.network import Network
from lottery_jax.training.loop import steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Supermask(ScoreLearner):
    """Bernoulli supermask (Zhou et al. 2019): each frozen random weight is kept with a probability that is trained."""

    name: ClassVar[str] = "supermask"
    sweeps: ClassVar[bool] = False
    least_score: ClassVar[float] = -100.0
    most_score: ClassVar[float] = 100.0

    learning_rate: float = 100.0
    """Learning rate of the scores at the start; it falls to zero along a cosine."""
    weight_decay: float = 0.0
    """Weight decay of the scores; it would draw probabilities to a half."""
    threshold: bool = False
    """Leave behind the weights that are more likely kept than not, in place of a mask that is drawn."""

    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        return {name: np.zeros(drawn.shape, np.float32) for name, drawn in network.random_tensors.items()}

    def warm_start_scores(
        self, scores: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        return {name: np.where(masks[name], np.float32(2), np.float32(-2)) for name in scores}

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        found = {}
        for place, (name, score) in enumerate(scores.items()):
            likely = jax.nn.sigmoid(score)
            found[name] = straight_through(jax.random.uniform(own_key(key, place), score.shape) < likely, likely)
        return found

    def final_masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        if self.threshold:
            return {name: score > 0 for name, score in scores.items()}
        return super().final_masks(scores, run, key)


@dataclasses.dataclass(frozen=True)
class RescaledSupermask(Supermask):
    """As supermask, with dynamic weight rescaling: what is kept of a layer is multiplied by size / kept."""

    name: ClassVar[str] = "supermask-rescaled"
    rescaling: ClassVar[float] = 1.0


_LOW, _HIGH, _TEMPERATURE = -0.1, 1.1, 2 / 3  # as published


@dataclasses.dataclass(frozen=True)
class HardConcrete(ScoreLearner):
    """Hard-concrete gates (Louizos et al. 2018): random gates in [0, 1] on frozen random weights, trained by Adam."""

    name: ClassVar[str] = "hard-concrete"
    sweeps: ClassVar[bool] = False
    least_score: ClassVar[float] = -100.0
    most_score: ClassVar[float] = 100.0

    learning_rate: float = 0.05
    """Learning rate of Adam at the start; it falls to zero along a cosine."""
    weight_decay: float = 0.0
    """Must be 0, because the penalty replaces weight decay."""
    penalty_factor: float = 0.1
    """What the expected kept fraction counts in the loss; more keeps fewer."""

    def check(self) -> None:
        super().check()
        for name in ("momentum", "weight_decay"):
            value, default = getattr(self, name), getattr(HardConcrete, name)
            if value != default:
                raise InputError(
                    f"{name} of {self.name} must be {default}, because its Adam uses none, got {value}. Omit it."
                )

    def optimizer(self, epochs: int, examples: int) -> optax.GradientTransformation:
        steps = epochs * steps_per_epoch(examples, self.batch_size)
        return optax.adam(optax.cosine_decay_schedule(self.learning_rate, steps))

    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        return {name: np.zeros(drawn.shape, np.float32) for name, drawn in network.random_tensors.items()}

    def warm_start_scores(
        self, scores: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        return {name: np.where(masks[name], np.float32(2), np.float32(-2)) for name in scores}

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        found = {}
        for place, (name, score) in enumerate(scores.items()):
            noise = jax.random.logistic(own_key(key, place), score.shape, score.dtype)
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
