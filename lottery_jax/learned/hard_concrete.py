"""Hard-concrete gates (Louizos et al. 2018, arXiv 1712.01312) on frozen random weights: no straight-through gradient.

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
from lottery_jax.learned.scores import Tensors
from lottery_jax.learned.search import ScoreLearner
from lottery_jax.learned.straight_through import own_key
from lottery_jax.learned.trainer import Run
from lottery_jax.networks.network import Network
from lottery_jax.training import steps_per_epoch

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
        return {name: np.zeros(drawn.shape, np.float32) for name, drawn in network.drawn.items()}

    def started(self, scores: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.where(masks[name], np.float32(2), np.float32(-2)) for name in scores}

    def masks(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        found = {}
        for place, (name, score) in enumerate(scores.items()):
            noise = jax.random.logistic(own_key(key, place), score.shape, score.dtype)
            found[name] = _stretched((noise + score) / _TEMPERATURE)
        return found

    def chosen(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        return {name: _stretched(score) >= 0.5 for name, score in scores.items()}

    def penalty(self, scores: Tensors, run: Run) -> jax.Array:
        likely = [jax.nn.sigmoid(score - _TEMPERATURE * np.log(-_LOW / _HIGH)) for score in scores.values()]
        size = sum(part.size for part in likely)
        return self.penalty_factor * sum((part.sum() for part in likely), jnp.float32(0)) / size


def _stretched(score: jax.Array) -> jax.Array:
    return jnp.clip(jax.nn.sigmoid(score) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)
