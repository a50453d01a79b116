"""A target's architecture with random leaves: where its weights begin, and the ticket of what became of them.

What all ways to trained tickets share: the target's architecture, how it is trained, what a ticket says.
"""

import abc
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import jax
import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import digest
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, child_path
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.sources.trained_layer import PartlyTrainedLayer, TrainedLayer
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.pruning.criteria import MasksByName
from lottery_jax.pruning.retraining import ByName, Hyperparameters, OptimizerConfig, Retraining, RunResult
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.checkpoints import Checkpoints, name_of
from lottery_jax.training.initialisers import fan_in, fan_out
from lottery_jax.training.learner import Learner, check_fits, check_runs, part_of, without_numbers
from lottery_jax.training.optimizers import Kind, Schedule
from lottery_jax.training.parallel_runs import OnEpochs, Shared, in_groups, parallel_runs


def glorot(operation: LinearLayer) -> float:
    """The standard deviation of a layer's initial weights (Glorot & Bengio 2010): sqrt(2 / (fan-in + fan-out)).

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> glorot(Dense(6, 2))
    0.5
    """
    return math.sqrt(2 / (fan_in(operation) + fan_out(operation)))


def random_network(target: Network, *, trained: bool, frozen: bool = False) -> Network:
    """The target's layers with normal weights of Glorot's deviation; its own weights are not used.

    trained: whether what becomes of the weights is stored; else they are drawn and masked, and biases all pruned.
    frozen: whether pruned weights of what is trained may stay as they were drawn.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import mlp
    >>> random_network(mlp((4, 3, 2), Spec((4,))), trained=True).tensors
    {'fc1.trained_weight': (3, 4), 'fc2.trained_weight': (2, 3)}
    """
    kind = (PartlyTrainedLayer if frozen else TrainedLayer) if trained else RandomLayer

    def leaf(path: str, node: Node) -> Node:
        return kind(node, Sampler.normal(glorot(node))) if isinstance(node, LinearLayer) else node

    return target.map_layers(leaf)


def weight_names(random: Network) -> list[str]:
    """The tensors that are pruned, in the order of the tree; the last one is the output layer's."""
    return [child_path(path, "weight") for path in random.sources]


def initial_tensors(random: Network, seed: int) -> ByName:
    """The target's tensors before training, float32 by name: weights drawn from the seed, biases zero."""
    drawn, target = random.draw(seed), random.target
    others = {name: np.asarray(value) for name, value in target.initial(jax.random.key(seed % 2**32)).items()}
    return others | {name: drawn[name] for name in weight_names(random)}


def initial_digest(tensors: ByName, masks: MasksByName) -> str:
    """A digest of the weights that have masks, as a ticket says from where it was trained."""
    return digest("", {name: tensors[name] for name in masks})


def frozen_names(random: Network, frozen: MasksByName) -> MasksByName:
    """Masks of frozen weights, by the names that these have in the network; of one without them, none."""
    return {own: frozen[name] for name, own in random.frozen_tensors.items()}


def trained_ticket(
    random: Network, seed: int, masks: MasksByName, tensors: ByName, settings: Mapping[str, Any], *, method: str
) -> Ticket:
    """The ticket of tensors that were trained under masks; those of frozen weights are among the masks."""
    stored = {own: np.where(masks[name], tensors[name], np.float32(0)) for name, own in random.trained_tensors.items()}
    stored |= {name: tensors[name] for name in random.tensors if name not in stored}
    return make_ticket(random, seed=seed, masks=masks, method=method, stored=stored, settings=settings)


def untrained_ticket(
    random: Network,
    seed: int,
    masks: MasksByName,
    tensors: ByName,
    settings: Mapping[str, Any],
    *,
    method: str,
    constant: bool,
) -> Ticket:
    """The ticket of a mask on weights that were never trained, from seed and bits alone; biases are pruned.

    constant: weights of one size in each layer, its deviation, with the signs that they are drawn with.
    """

    def leaf(path: str, node: Node) -> Node:
        if not (constant and isinstance(node, RandomLayer)):
            return node
        # The sign of a drawn weight is one bit, the same under both samplers.
        return dataclasses.replace(node, sampler=Sampler.signed_constant(node.sampler.scale))

    whole = {name: masks.get(name, np.zeros(drawn.shape, bool)) for name, drawn in random.random_tensors.items()}
    stored = {name: tensors[name] for name in random.tensors}
    network = random.map_layers(leaf)
    return make_ticket(network, seed=seed, masks=whole, method=method, stored=stored, settings=settings)


class SweepRequest(NamedTuple):
    """What tickets are asked for."""

    dataset: Dataset
    seeds: tuple[int, ...]
    keeps: tuple[float, ...]
    epochs: int
    progress: Progress
    checkpoints: Checkpoints | None


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A training that is asked for: the learner with its numbers, a seed, and the kept fraction where there is one."""

    learner: "TrainedLearner"
    seed: int
    keep: float | None


R = TypeVar("R", bound=TrainedRun)

F = TypeVar("F")


@dataclasses.dataclass(frozen=True)
class TrainedLearner(Learner):
    """Trains the target's architecture from random weights, under masks. Of the source only its target is used."""

    sources: ClassVar[tuple[str, ...]] = ("gadget",)  # its target is the task's own
    shares: ClassVar[bool] = True

    batch_size: int = 60
    """Examples of a step."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with momentum."""
    learning_rate: float = 1.2e-3
    """Learning rate, after the warm-up."""
    warmup: int = 0
    """Epochs in which the learning rate grows from 0."""
    schedule: Kind = "constant"
    """What the learning rate does: constant; cosine, to 0; steps, a tenth at 1/2 and again at 3/4 of the epochs."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """Weight decay of the weights."""
    augment: str = "none"
    """What is made of training images: none, or crop-flip (shifted by up to four pixels, and mirrored)."""
    runs_per_step: int | None = None
    """Runs that share a step by vmap; one on a CPU, where each core has its own, and all elsewhere if left out."""

    def check(
        self, target: Network, dataset: Dataset, seeds: Sequence[int], keeps: Sequence[float], epochs: int
    ) -> None:
        """Refuse what cannot be trained, before anything is; raises `InputError`."""
        self.numbers.check()
        check_fits(target, dataset, "target")
        check_runs(seeds, keeps, epochs, self.runs_per_step)
        for keep in keeps:
            kept_count(keep, 1)

    def learn(
        self,
        source: Network,
        dataset: Dataset,
        *,
        seeds: Sequence[int],
        keeps: Sequence[float],
        epochs: int,
        stored: Mapping[str, np.ndarray] | None = None,
        progress: Progress = no_progress,
        checkpoints: Checkpoints | None = None,
    ) -> list[Ticket]:
        """As in `Learner`, but nothing is taken from the source's leaves, nor from `stored`: all begins untrained."""
        self.check(source.target, dataset, seeds, keeps, epochs)
        asked = SweepRequest(dataset, tuple(seeds), tuple(keeps), epochs, progress, checkpoints)
        return self._learn([self], source.target, asked)

    def sweep(self, source: Network, dataset: Dataset, grid: Mapping[str, Sequence[Any]], **given: Any) -> list[Ticket]:
        """As in `Learner`; points that differ in numbers alone share the programs and the steps."""
        points, found, done = self.points(grid), [], 0
        seeds, keeps, epochs = (given[name] for name in ("seeds", "keeps", "epochs"))
        for point in points:
            point.check(source.target, dataset, seeds, keeps, epochs)
        for _, same in itertools.groupby(points, key=without_numbers):
            own = list(same)
            told = part_of(given.get("progress", no_progress), done, len(points), len(own))
            asked = SweepRequest(dataset, tuple(seeds), tuple(keeps), epochs, told, given.get("checkpoints"))
            found += self._learn(own, source.target, asked)
            done += len(own)
        return found

    @abc.abstractmethod
    def _learn(self, points: Sequence[Self], target: Network, asked: "SweepRequest") -> list[Ticket]:
        """The tickets of learners that differ in numbers alone, in the order (point, seed, keep)."""

    @property
    def numbers(self) -> Hyperparameters:
        return Hyperparameters(self.learning_rate, self.momentum, self.weight_decay)

    def training(self, target: Network, runs: int) -> Retraining:
        """The compiled training of so many runs."""
        descent = OptimizerConfig(self.optimizer, self.batch_size, Schedule(self.warmup, self.schedule), self.augment)
        weights = sum(math.prod(shape) for shape in target.tensors.values())
        return Retraining(target, descent, parallel_runs(self.runs_per_step, runs, weights))

    def in_groups(
        self,
        train: Callable[[Sequence[R], OnEpochs | None], list[Ticket | None]],
        runs: Sequence[R],
        width: int,
        target: Network,
        asked: SweepRequest,
        told: OnEpochs,
    ) -> list[Ticket]:
        """The tickets of runs, each group from its beginning to its end; told: of the epochs that all have done.

        One that diverges is said; raises `InputError` where all do.
        """

        def name(group: Sequence[R]) -> str:
            own = [[dataclasses.asdict(run.learner), run.seed, run.keep] for run in group]
            data = [asked.dataset.fingerprint, asked.epochs]
            return name_of({"learner": self.name, "runs": own, "network": target.to_json(), "data": data})

        shared = asked.checkpoints and Shared(asked.checkpoints, name)
        found = in_groups(train, runs, width, None if asked.progress is no_progress else told, shared)
        return [ticket for _, ticket in self.survivors(runs, found)]

    def survivors(self, runs: Sequence[R], found: Sequence[F | None]) -> list[tuple[R, F]]:
        """The runs that did not diverge, and what they end with; the others are said.

        Raises `InputError` where all diverged.
        """
        several = len({run.learner for run in runs}) > 1
        left = []
        for run, end in zip(runs, found, strict=True):
            if end is not None:
                left.append((run, end))
                continue
            kept = "" if run.keep is None else f", keep {run.keep:g}"
            rate = f", learning rate {run.learner.learning_rate:g}" if several else ""
            log.warning("%s, seed %d%s%s diverged: no ticket; lower the learning rate", self.name, run.seed, kept, rate)
        if not left:
            raise InputError(f"training of {self.name} diverged in every run; lower the learning rate")
        return left

    def settings(self, dataset: Dataset, epochs: int, keep: float, masks: MasksByName) -> dict[str, Any]:
        """What a ticket says of how it was made."""
        kept = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
        return {
            **dataclasses.asdict(self),
            "epochs": epochs,
            "data": dataset.name,
            "keep": float(keep),
            "kept": kept,
        }


def after_training(last: RunResult, first: int) -> dict[str, Any]:
    """What a ticket says of its last training, from the weights of epoch `first`.

    The epoch of early stopping is the one of least loss on the validation split.
    """
    found: dict[str, Any] = {
        "rewound_to": first,
        "loss": last.loss,
        "by_epoch": {name: values.tolist() for name, values in last.by_epoch.items()},
        "revived_steps": last.revived,
        "batches_sha256": batches_digest(last.batches),
    }
    if "validation_loss" in last.by_epoch:
        losses = last.by_epoch["validation_loss"]
        found["validation_loss"] = float(losses[-1])
        found["early_stop_epoch"] = first + 1 + int(np.argmin(losses))
    return found


def batches_digest(epochs: Sequence[str]) -> str:
    """One digest of the order of examples in some epochs: equal for trainings that see the same batches.

    It is of what the program was given for each epoch: key, epoch, sizes and data; its order depends on nothing else.
    """
    return hashlib.sha256(" ".join(epochs).encode()).hexdigest()
