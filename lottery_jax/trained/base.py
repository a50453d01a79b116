"""What all ways to trained tickets share: the target's architecture, how it is trained, what a ticket says."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.lanes import lanes
from lottery_jax.learned.base import Learner, check_fits, check_runs
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import log
from lottery_jax.trained.pruning import MasksByName
from lottery_jax.trained.retraining import Descent, Finish, Retraining
from lottery_jax.trained.schedules import Kind, Schedule


@dataclasses.dataclass(frozen=True)
class TrainedLearner(Learner):
    """Trains the target's architecture from random weights, under masks. Of the source only its target is used."""

    sources: ClassVar[tuple[str, ...]] = ("gadget",)  # its target is the task's own

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
    together: int | None = None
    """Runs that share a step by vmap; one on a CPU, where each core has its own, and all elsewhere if left out."""

    def check(
        self, target: Network, dataset: Dataset, seeds: Sequence[int], keeps: Sequence[float], epochs: int
    ) -> None:
        """Refuse what cannot be trained, before anything is; raises `InputError`."""
        check_fits(target, dataset, "target")
        check_runs(seeds, keeps, epochs, self.together)
        for keep in keeps:
            kept_count(keep, 1)

    def training(self, target: Network, runs: int) -> Retraining:
        """The compiled training of so many runs."""
        schedule = Schedule(self.warmup, self.schedule)
        numbers = self.learning_rate, self.momentum, self.weight_decay, self.batch_size
        weights = sum(math.prod(shape) for shape in target.tensors.values())
        return Retraining(target, Descent(self.optimizer, *numbers, schedule), lanes(self.together, runs, weights))

    def survivors(
        self, runs: Sequence[tuple[int, float | None]], found: Sequence[Finish | None]
    ) -> list[tuple[int, Finish]]:
        """The places of the runs (seed, keep) that did not diverge, and what they end with; the others are said.

        Raises `InputError` where all diverged.
        """
        for (seed, keep), finish in zip(runs, found, strict=True):
            if finish is None:
                kept = "" if keep is None else f", keep {keep:g}"
                log.warning("%s, seed %d%s diverged: no ticket; lower the learning rate", self.name, seed, kept)
        left = [(at, finish) for at, finish in enumerate(found) if finish is not None]
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
        "loss": float(last.loss[-1]),
        "revived_steps": last.revived,
        "batches_sha256": batches_digest(last.batches),
    }
    if last.validation_loss.size:
        found["validation_loss"] = float(last.validation_loss[-1])
        found["early_stop_epoch"] = first + 1 + int(np.argmin(last.validation_loss))
    return found


def batches_digest(epochs: Sequence[str]) -> str:
    """One digest of the order of examples in some epochs: equal for trainings that see the same batches.

    It is of what the program was given for each epoch: key, epoch, sizes and data; its order depends on nothing else.
    """
    return hashlib.sha256(" ".join(epochs).encode()).hexdigest()
