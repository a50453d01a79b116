"""Supermasks learned as probabilities (Zhou et al. 2019, section 5, arXiv 1905.01067).

Each weight is kept with probability sigmoid(m): a mask is drawn in every step, the gradient passes straight through the
draw to the probability. How many are kept follows from the training. The ticket's mask is drawn once, from the seed.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import numpy as np

from lottery_jax.learned.scores import Tensors
from lottery_jax.learned.search import ScoreLearner
from lottery_jax.learned.straight_through import own_key, straight_through
from lottery_jax.learned.trainer import Run
from lottery_jax.networks.network import Network


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
        return {name: np.zeros(drawn.shape, np.float32) for name, drawn in network.drawn.items()}

    def started(self, scores: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.where(masks[name], np.float32(2), np.float32(-2)) for name in scores}

    def masks(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        found = {}
        for place, (name, score) in enumerate(scores.items()):
            likely = jax.nn.sigmoid(score)
            found[name] = straight_through(jax.random.uniform(own_key(key, place), score.shape) < likely, likely)
        return found

    def chosen(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        if self.threshold:
            return {name: score > 0 for name, score in scores.items()}
        return super().chosen(scores, run, key)


@dataclasses.dataclass(frozen=True)
class RescaledSupermask(Supermask):
    """As supermask, with dynamic weight rescaling: what is kept of a layer is multiplied by size / kept."""

    name: ClassVar[str] = "supermask-rescaled"
    rescaling: ClassVar[float] = 1.0
