"""What all methods of trained tickets share: the target's architecture, options, first weights and tickets."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np
import optax

from lottery_jax.io.checksummed_file import digest
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, child_path
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.sources.trained_layer import PartlyTrainedLayer, TrainedLayer
from lottery_jax.pruning.criteria import MasksByName
from lottery_jax.pruning.retraining import ByName, Retraining, RunResult
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.initialisers import fan_in, fan_out
from lottery_jax.training.learner import Learner, RunSpec, TrainingRequest, settings_of
from lottery_jax.training.losses import DEFAULT_LOSS, TaskLoss
from lottery_jax.training.optimizers import (
    Hyperparameters,
    Kind,
    OptaxOptimizer,
    OptimizerConfig,
    Schedule,
    as_option,
    check_unused,
)
from lottery_jax.training.parallel_runs import parallel_runs


@dataclasses.dataclass(frozen=True)
class PruningLearner(Learner):
    """Trains the target's architecture from random weights under masks; only the target of a source is used.

    Stored tensors of a request are not used, because all tensors begin untrained.
    """

    sources: ClassVar[tuple[str, ...]] = ("gadget",)  # its target is that of the task
    shares: ClassVar[bool] = True

    batch_size: int = 60
    """Batch size of a training step."""
    optimizer: Literal["adam", "sgd"] | optax.GradientTransformation = "adam"
    """Optimiser: adam, or sgd with momentum. In Python also one of optax, which replaces `learning_rate`, `momentum`
    and `weight_decay`; `warmup` and `schedule` multiply its updates."""
    learning_rate: float = 1.2e-3
    """Learning rate after the warm-up."""
    warmup: int = 0
    """Epochs of linear warm-up of the learning rate."""
    schedule: Kind = "constant"
    """Learning rate schedule: constant; cosine, to 0; steps, a tenth at 1/2 and again at 3/4 of the epochs."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """Weight decay of matrices and kernels."""
    augment: str = "none"
    """Data augmentation: none, or crop-flip (shifts of up to four pixels, and mirroring)."""
    runs_per_step: int | None = None
    """Runs that share a training step by vmap. Default: 1 on a CPU, elsewhere as many as fit into memory."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimizer", as_option(self.optimizer))
        if isinstance(self.optimizer, OptaxOptimizer):
            check_unused(self)
        self.hyperparameters.check()
        _ = self.config  # refuses the other options

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The hyperparameters of the optimiser."""
        return Hyperparameters(self.learning_rate, self.momentum, self.weight_decay)

    @property
    def config(self) -> OptimizerConfig:
        """The part of the optimiser that is compiled."""
        optimizer: Any = self.optimizer
        return OptimizerConfig(optimizer, self.batch_size, Schedule(self.warmup, self.schedule), self.augment)

    def training(self, target: Network, runs: int, loss: TaskLoss = DEFAULT_LOSS) -> Retraining:
        """The compiled training of `runs` runs."""
        weights = sum(math.prod(shape) for shape in target.tensors.values())
        return Retraining(target, self.config, parallel_runs(self.runs_per_step, runs, weights), loss)


def random_network(target: Network, *, trained: bool, frozen: bool = False) -> Network:
    """The target's architecture with normal weights of deviation sqrt(2 / (fan-in + fan-out)) (Glorot and Bengio 2010).

    Args:
        target: The architecture; its own weights are not used.
        trained: Whether tickets store trained weights; if not, weights are drawn and masked, and biases are pruned.
        frozen: Whether pruned weights of a trained layer can keep their first values.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import mlp
    >>> random_network(mlp((4, 3, 2), Spec((4,))), trained=True).tensors
    {'fc1.trained_weight': (3, 4), 'fc2.trained_weight': (2, 3)}
    """
    kind = (PartlyTrainedLayer if frozen else TrainedLayer) if trained else RandomLayer

    def leaf(path: str, node: Node) -> Node:
        if not isinstance(node, LinearLayer):
            return node
        return kind(node, Sampler.normal(math.sqrt(2 / (fan_in(node) + fan_out(node)))))

    return target.map_layers(leaf)


def weight_names(random: Network) -> list[str]:
    """The tensors that are pruned, in the order of the network; the last one is that of the output layer."""
    return [child_path(path, "weight") for path in random.sources]


def initial_tensors(random: Network, seed: int) -> ByName:
    """The target's tensors before training, float32 by name: weights drawn from the seed, biases zero."""
    drawn, target = random.draw(seed), random.target
    others = {name: np.asarray(value) for name, value in target.initial(jax.random.key(seed % 2**32)).items()}
    return others | {name: drawn[name] for name in weight_names(random)}


def initial_digest(tensors: ByName, masks: MasksByName) -> str:
    """A digest of the tensors that have masks, stored in the settings of a ticket."""
    return digest("", {name: tensors[name] for name in masks})


def trained_ticket(
    random: Network, seed: int, masks: MasksByName, tensors: ByName, settings: Mapping[str, Any], *, method: str
) -> Ticket:
    """The ticket of tensors that were trained under masks; the masks of frozen weights are among `masks`."""
    stored = {own: np.where(masks[name], tensors[name], np.float32(0)) for name, own in random.trained_tensors.items()}
    stored |= {name: tensors[name] for name in random.tensors if name not in stored}
    return make_ticket(random, seed=seed, masks=masks, method=method, stored=stored, settings=settings)


def ticket_settings(
    run: RunSpec, request: TrainingRequest, masks: MasksByName, result: RunResult | None, first: int = 0
) -> dict[str, Any]:
    """The settings in a ticket: options, kept counts, and the last training, from the weights of epoch `first`.

    The epoch of early stopping is that of the least loss on the validation split.
    """
    settings = {
        **settings_of(run.learner),
        "epochs": request.epochs,
        "data": request.dataset.name,
        **request.loss_settings,
        "keep": float(run.keep),  # type: ignore[arg-type]
        "kept": {name: int(np.count_nonzero(mask)) for name, mask in masks.items()},
    }
    if result is None:
        return settings
    settings |= {
        "rewound_to": first,
        "loss": result.loss,
        "by_epoch": {name: values.tolist() for name, values in result.by_epoch.items()},
        "revived_steps": result.revived,
        "batches_sha256": batches_digest(result.batches),
    }
    if "validation_loss" in result.by_epoch:
        losses = result.by_epoch["validation_loss"]
        settings |= {"validation_loss": float(losses[-1]), "early_stop_epoch": first + 1 + int(np.argmin(losses))}
    return settings


def batches_digest(batches: Sequence[str]) -> str:
    """One digest of the order of examples in some epochs: equal for trainings that see the same batches."""
    return hashlib.sha256(" ".join(batches).encode()).hexdigest()
