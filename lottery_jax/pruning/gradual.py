"""Gradual magnitude pruning (Zhu and Gupta 2017, arXiv 1710.01878) of a target before it is approximated.

The result is a trained network, not a ticket: a construction needs no source weights for its zeros.
"""

import dataclasses
import math

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.networks.node import LinearLayer, child_path
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, no_progress
from lottery_jax.pruning.criteria import Scope, pruned
from lottery_jax.pruning.retraining import InitialState, Retraining
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.training.learner import check_fits
from lottery_jax.training.losses import DEFAULT_LOSS, TaskLoss
from lottery_jax.training.optimizers import Hyperparameters, OptimizerConfig
from lottery_jax.training.parallel_runs import parallel_runs


@dataclasses.dataclass(frozen=True)
class Gradual:
    """Options of gradual pruning, by Adam with a learning rate that falls along a cosine.

    Before each epoch of the first part more of the smallest weights are set to zero and stay zero, along a cubic curve.
    """

    epochs: int = 20
    learning_rate: float = 3e-3
    batch_size: int = 128
    weight_decay: float = 1e-4
    """Weight decay, which shrinks the weights of inputs that are always 0."""
    ramp: float = 0.6
    """Part of the epochs in which weights are pruned, in (0, 1]."""
    scope: Scope = "global"

    def __post_init__(self) -> None:
        if type(self.epochs) is not int or self.epochs < 1:
            raise InputError(f"`epochs` must be a whole number from 1 up, got {self.epochs!r}. The default is 20.")
        if not 0 < self.ramp <= 1:
            raise InputError(f"`ramp` must be in (0, 1], got {self.ramp!r}. Give the part of the epochs that prune.")
        Hyperparameters(self.learning_rate, 0.0, self.weight_decay).check()

    def keep(self, epoch: int, last: float) -> float:
        """The kept fraction in an epoch, counted from 0, if `last` is the final one.

        >>> [round(Gradual(epochs=4, ramp=0.5).keep(epoch, 0.1), 3) for epoch in range(4)]
        [0.213, 0.1, 0.1, 0.1]
        """
        left = max(0.0, 1 - (epoch + 1) / max(round(self.ramp * self.epochs), 1))
        return last + (1 - last) * left**3

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


def sparse_target(
    target: Target,
    dataset: Dataset,
    kept: int,
    options: Gradual | None = None,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    checkpoints: Checkpoints | None = None,
    loss: TaskLoss = DEFAULT_LOSS,
) -> Target:
    """Train a target further until only `kept` weights of its layers are not zero, biases not counted.

    The seed is that of the order of the examples. The loss defaults to that of the labels. Raises `InputError`.
    """
    options, network = options or Gradual(), target.network
    check_fits(network, dataset, "target")
    names = [child_path(path, "weight") for path, leaf in network.weight_nodes.items() if isinstance(leaf, LinearLayer)]
    total = sum(target.array(name).size for name in names)
    if type(kept) is not int or not 1 <= kept <= total:
        raise InputError(f"`kept` must be from 1 to {total:,} weights of the target, got {kept!r}. Change it.")
    training = Retraining(network, OptimizerConfig("adam", options.batch_size), parallel_runs(None, 1, total), loss)
    tensors = {name: np.asarray(value, np.float32) for name, value in target.arrays().items()}
    masks = {name: np.ones(tensors[name].shape, bool) for name in names}
    for epoch in range(options.epochs):
        magnitudes = {name: np.abs(tensors[name].astype(np.float64)) for name in names}
        masks = pruned(magnitudes, masks, options.keep(epoch, kept / total), scope=options.scope)
        tensors |= {name: np.where(mask, tensors[name], np.float32(0)) for name, mask in masks.items()}
        hyperparameters = Hyperparameters(options.rate(epoch), 0.0, options.weight_decay)
        start = InitialState(seed, tensors, masks, hyperparameters, epoch)
        (result,) = training.runs([start], dataset, epoch + 1, checkpoints=checkpoints)
        if result is None:
            raise InputError(
                f"training of the sparse target diverged; lower the learning rate from {options.learning_rate:g}"
            )
        tensors = dict(result.tensors)
        progress(epoch + 1, options.epochs)
    return Target(network, tensors)  # type: ignore[arg-type]
