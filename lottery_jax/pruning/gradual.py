"""Gradual magnitude pruning (Zhu and Gupta 2017, arXiv 1710.01878): a target that is sparse before it is approximated.

The network is trained on, and before each epoch of the first part some more of its smallest weights are set to zero and
stay there: few at first, fewer still at the end, as the cube of what is left of that part. What comes out is a trained
network, and no ticket: its zeros cost a construction nothing, and that is what it is for.
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
from lottery_jax.pruning.retraining import Hyperparameters, InitialState, OptimizerConfig, Retraining
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.training.learner import check_fits
from lottery_jax.training.parallel_runs import parallel_runs


@dataclasses.dataclass(frozen=True)
class Gradual:
    """How a target is pruned while it is trained on, by Adam with a learning rate that falls along a cosine.

    ramp: the part of the epochs in which weights are pruned. scope: whether all weights are ranked together. Without
    weight decay, weights of inputs that are always 0 stay as large as they began, and are kept for it.
    """

    epochs: int = 20
    learning_rate: float = 3e-3
    batch_size: int = 128
    weight_decay: float = 1e-4
    ramp: float = 0.6
    scope: Scope = "global"

    def __post_init__(self) -> None:
        if type(self.epochs) is not int or self.epochs < 1:
            raise InputError(f"pruning takes epochs from 1 up, not {self.epochs!r}; 20 are usual")
        if not 0 < self.ramp <= 1:
            raise InputError(f"the ramp is {self.ramp!r}; it is the part of the epochs that prune, in (0, 1]")
        Hyperparameters(self.learning_rate, 0.0, self.weight_decay).check()

    def keep(self, epoch: int, last: float) -> float:
        """The kept fraction in an epoch, counted from 0, where `last` is left in the end.

        >>> [round(Gradual(epochs=4, ramp=0.5).keep(epoch, 0.1), 3) for epoch in range(4)]
        [0.213, 0.1, 0.1, 0.1]
        """
        left = max(0.0, 1 - (epoch + 1) / max(round(self.ramp * self.epochs), 1))
        return last + (1 - last) * left**3

    def rate(self, epoch: int) -> float:
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


def sparse_target(
    target: Target,
    dataset: Dataset,
    kept: int,
    how: Gradual | None = None,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    checkpoints: Checkpoints | None = None,
) -> Target:
    """A target trained on until only `kept` weights of its layers are not zero; biases are trained and not counted.

    seed: of the order of the examples. progress: called with (epochs done, epochs). checkpoints: where the epoch
    under way is kept; whole ones are made again. Raises `InputError`, also where training diverges.
    """
    how, network = how or Gradual(), target.network
    check_fits(network, dataset, "target")
    names = [child_path(path, "weight") for path, leaf in network.weight_nodes.items() if isinstance(leaf, LinearLayer)]
    total = sum(target.array(name).size for name in names)
    if type(kept) is not int or not 1 <= kept <= total:
        raise InputError(f"a sparse target keeps from 1 to {total:,} weights, not {kept!r}")
    training = Retraining(network, OptimizerConfig("adam", how.batch_size), parallel_runs(None, 1, total))
    tensors = {name: np.asarray(value, np.float32) for name, value in target.arrays().items()}
    masks = {name: np.ones(tensors[name].shape, bool) for name in names}
    for epoch in range(how.epochs):
        sizes = {name: np.abs(tensors[name].astype(np.float64)) for name in names}
        masks = pruned(sizes, masks, how.keep(epoch, kept / total), scope=how.scope)
        tensors |= {name: np.where(mask, tensors[name], np.float32(0)) for name, mask in masks.items()}
        numbers = Hyperparameters(how.rate(epoch), 0.0, how.weight_decay)
        start = InitialState(seed, tensors, masks, numbers, epoch)
        (found,) = training.runs([start], dataset, epoch + 1, checkpoints=checkpoints)
        if found is None:
            raise InputError(f"training diverged at the learning rate {how.learning_rate:g}; lower it")
        tensors = dict(found.tensors)
        progress(epoch + 1, how.epochs)
    return Target(network, tensors)  # type: ignore[arg-type]
