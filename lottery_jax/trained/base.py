"""What all ways to trained tickets share: the target's architecture, how it is trained, what a ticket says."""

import abc
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import numpy as np

from lottery_jax.checkpoints import Checkpoints, name_of
from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.lanes import Shared, Told, in_groups, lanes
from lottery_jax.learned.base import Learner, check_fits, check_runs, part_of, without_numbers
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress, log, unseen
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.trained.pruning import MasksByName
from lottery_jax.trained.retraining import Descent, DescentNumbers, Finish, Retraining
from lottery_jax.trained.schedules import Kind, Schedule


class Wanted(NamedTuple):
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
    together: int | None = None
    """Runs that share a step by vmap; one on a CPU, where each core has its own, and all elsewhere if left out."""

    def check(
        self, target: Network, dataset: Dataset, seeds: Sequence[int], keeps: Sequence[float], epochs: int
    ) -> None:
        """Refuse what cannot be trained, before anything is; raises `InputError`."""
        self.numbers.check()
        check_fits(target, dataset, "target")
        check_runs(seeds, keeps, epochs, self.together)
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
        progress: Progress = unseen,
        checkpoints: Checkpoints | None = None,
    ) -> list[Ticket]:
        """As in `Learner`, but nothing is taken from the source's leaves, nor from `stored`: all begins untrained."""
        self.check(source.target, dataset, seeds, keeps, epochs)
        asked = Wanted(dataset, tuple(seeds), tuple(keeps), epochs, progress, checkpoints)
        return self._learn([self], source.target, asked)

    def sweep(self, source: Network, dataset: Dataset, grid: Mapping[str, Sequence[Any]], **given: Any) -> list[Ticket]:
        """As in `Learner`; points that differ in numbers alone share the programs and the steps."""
        points, found, done = self.points(grid), [], 0
        seeds, keeps, epochs = (given[name] for name in ("seeds", "keeps", "epochs"))
        for point in points:
            point.check(source.target, dataset, seeds, keeps, epochs)
        for _, same in itertools.groupby(points, key=without_numbers):
            own = list(same)
            told = part_of(given.get("progress", unseen), done, len(points), len(own))
            asked = Wanted(dataset, tuple(seeds), tuple(keeps), epochs, told, given.get("checkpoints"))
            found += self._learn(own, source.target, asked)
            done += len(own)
        return found

    @abc.abstractmethod
    def _learn(self, points: Sequence[Self], target: Network, asked: "Wanted") -> list[Ticket]:
        """The tickets of learners that differ in numbers alone, in the order (point, seed, keep)."""

    @property
    def numbers(self) -> DescentNumbers:
        return DescentNumbers(self.learning_rate, self.momentum, self.weight_decay)

    def training(self, target: Network, runs: int) -> Retraining:
        """The compiled training of so many runs."""
        descent = Descent(self.optimizer, self.batch_size, Schedule(self.warmup, self.schedule), self.augment)
        weights = sum(math.prod(shape) for shape in target.tensors.values())
        return Retraining(target, descent, lanes(self.together, runs, weights))

    def in_groups(
        self,
        train: Callable[[Sequence[R], Told | None], list[Ticket | None]],
        runs: Sequence[R],
        width: int,
        target: Network,
        asked: Wanted,
        told: Told,
    ) -> list[Ticket]:
        """The tickets of runs, each group from its beginning to its end; told: of the epochs that all have done.

        One that diverges is said; raises `InputError` where all do.
        """

        def name(group: Sequence[R]) -> str:
            own = [[dataclasses.asdict(run.learner), run.seed, run.keep] for run in group]
            data = [asked.dataset.fingerprint, asked.epochs]
            return name_of({"learner": self.name, "runs": own, "network": target.to_json(), "data": data})

        shared = asked.checkpoints and Shared(asked.checkpoints, name)
        found = in_groups(train, runs, width, None if asked.progress is unseen else told, shared)
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


def after_training(last: Finish, first: int) -> dict[str, Any]:
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
