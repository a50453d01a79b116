"""The base of learners that train scores of frozen random weights: options and pure hooks, driven by `train_scores`."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data.augment import augment
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.scores import Arrays, Tensors, forced_scores, initial_scores
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.node import child_path
from lottery_jax.training.initialisers import reinitialised
from lottery_jax.training.learner import Learner
from lottery_jax.training.optimizers import OptaxOptimizer, as_option, check_learning_rate, check_unused


class RunInputs(NamedTuple):
    """Traced inputs of one run; arrays of several runs have a leading axis [R]."""

    source_index: jax.Array
    """Index of its source among the sources of all runs."""
    counts: Tensors
    """Kept weights of each tensor, int32."""
    total: jax.Array
    """Kept weights in all, int32."""
    gains: Tensors
    """Factor of each source layer, float32 by the name of its gain."""
    hyperparameters: Tensors
    """Options of type float, by name."""


@dataclasses.dataclass(frozen=True)
class ScoreLearner(Learner):
    """A score for each frozen random weight, trained by gradient descent.

    A concrete learner defines `masks`, overrides other hooks if needed, and sets `learn = sweep = train_scores`.

    A bias-free ReLU network is positively homogeneous, so that the gains of its layers act as one factor of the logits.
    It determines how fast scores learn; `scale="unit"` makes it independent of sampler and kept fraction.
    """

    batch_size: int = 64
    """Batch size of a training step."""
    learning_rate: float = 0.1
    """Learning rate at the start; it falls to zero along a cosine."""
    scale: Literal["unit", "keep", "drawn"] = "unit"
    """Scale of the weights: unit, root mean square 1 of each layer's output at the start; keep, the drawn weights times
    sqrt(1 / kept fraction) (Ramanujan et al. 2020); drawn, unchanged."""
    init: str | None = None
    """Initialiser of a plain source: kaiming-normal, kaiming-uniform, xavier-normal, xavier-uniform or signed-constant.
    Default: that of the source."""
    augment: str = "none"
    """Data augmentation: none, or crop-flip (shifts of up to four pixels, and mirroring)."""
    runs_per_step: int | None = None
    """Runs that share a training step by vmap. Default: 1 on a CPU, elsewhere as many as fit into memory."""

    optimizer: optax.GradientTransformation | None = None
    """Optimiser of optax, which replaces `learning_rate`, `momentum` and `weight_decay`. Default: the learner's own."""

    shares: ClassVar[bool] = True
    rescaling: ClassVar[float] = 0.0
    """Kept weights of a tensor are multiplied by (size / kept) to this power, in a step and in the ticket."""
    least_score: ClassVar[float] = 0.0
    """Score of absent weights."""
    most_score: ClassVar[float] = 1e30
    """Score of locked weights."""
    resamples: ClassVar[bool] = False
    """Whether `resample` redraws pruned weights before each epoch but the first."""

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        object.__setattr__(self, "optimizer", as_option(self.optimizer))
        if isinstance(self.optimizer, OptaxOptimizer):
            check_unused(self)
        elif self.optimizer is not None or type(self).optimizer is not None:
            raise InputError(
                f"`optimizer` must be of optax, got {self.optimizer!r}. A method of the learner is `default_optimizer`."
            )
        scales = get_args(get_type_hints(ScoreLearner)["scale"])
        if self.scale not in scales:
            raise InputError(f"`scale` must be one of {', '.join(scales)}, got {self.scale!r}. Choose one.")
        augment(self.augment)

    def prepare(self, source: Network) -> Network:
        """The network whose masks are learned, from the source that the user gives."""
        return source if self.init is None else reinitialised(source, self.init)

    def initial(self, network: Network, seed: int) -> Arrays:
        """Scores before training, float32 by tensor."""
        return initial_scores(network, seed)

    @abc.abstractmethod
    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        """The masks of a step, float32 by tensor, through which gradients reach the scores; `key` is for sampling."""

    def final_masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        """The masks of the ticket, bool by tensor."""
        masks = self.masks(scores, run, key)
        for name, mask in masks.items():
            masks[name] = mask > 0
        return masks

    def penalty(self, scores: Tensors, run: RunInputs) -> jax.Array:
        """A term of the loss, a scalar."""
        return jnp.float32(0)

    def project_scores(self, old: Tensors, new: Tensors) -> Tensors:
        """The scores after a step, from those before the step and those of the optimiser."""
        return new

    def on_epoch_end(self, scores: Tensors, run: RunInputs, epoch: jax.Array, epochs: int) -> Tensors:
        """The scores after an epoch, counted from 0."""
        return scores

    def default_optimizer(self, steps: int) -> optax.GradientTransformation:
        """The optimiser of a training of so many steps: Adam, with the learning rate along a cosine."""
        return optax.adam(optax.cosine_decay_schedule(self.learning_rate, steps))

    def warm_start_scores(self, scores: Arrays, masks: Arrays) -> Arrays:
        """First scores that rank the kept weights of these masks first."""
        return {
            name: np.copysign(np.abs(score) + np.abs(score).max() * masks[name], score)
            for name, score in scores.items()
        }

    def force_scores(self, scores: Tensors, forced: Tensors) -> Tensors:
        """The scores with `least_score` for absent weights and `most_score` for locked ones."""
        return forced_scores(scores, forced, self.least_score, self.most_score)

    def initial_counts(self, network: Network, counts: Tensors) -> dict[str, Any]:
        """The kept counts under which gains are measured before training."""
        return counts

    def resample(self, network: Network, seed: int, epoch: int, masks: Arrays, redraws: Redraws) -> Redraws:
        """The redraws of an epoch, from the redraws and masks of the epoch before."""
        return redraws

    def gain_factors(self, network: Network, seed: int, masks: Arrays) -> dict[str, float]:
        """Factors of the gains in the ticket of these masks, by the name of the gain."""
        factors = {}
        for path, source in network.sources.items():
            factor = 1.0
            for name in source.random_tensors():
                mask = masks[child_path(path, name)]
                factor *= (mask.size / max(int(mask.sum()), 1)) ** self.rescaling
            factors[child_path(path, "gain")] = factor
        return factors


@dataclasses.dataclass(frozen=True)
class SGDScoreLearner(ScoreLearner):
    """A score for each frozen random weight, trained by SGD with momentum and weight decay."""

    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay of the scores."""

    def default_optimizer(self, steps: int) -> optax.GradientTransformation:
        rate = optax.cosine_decay_schedule(self.learning_rate, steps)
        return optax.chain(optax.add_decayed_weights(self.weight_decay), optax.sgd(rate, momentum=self.momentum))
