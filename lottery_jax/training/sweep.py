"""The driver of all trainings: runs in groups, shared between processes, resumed, and reported if they diverge."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from lottery_jax.errors import InputError
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.learner import Learner, RunSpec, TrainingRequest, part_of, without_hyperparameters
from lottery_jax.training.parallel_runs import Shared, in_groups


@dataclasses.dataclass(frozen=True)
class SweepProgram:
    """How to train runs that differ in hyperparameters, seed and kept fraction alone.

    Args:
        train: From a group of runs and a progress callback to their tickets, None for each run that diverged.
        configuration: Everything that the training of a group depends on, as JSON.
        width: Runs of a group.
        epochs: Epochs in all; `train` reports those after the first `epochs_before`.
        epochs_before: Epochs that are over when `train` is called.
    """

    train: Callable[[Sequence[RunSpec], Progress], list[Ticket | None]]
    configuration: Callable[[Sequence[RunSpec]], dict[str, Any]]
    width: int
    epochs: int
    epochs_before: int = 0


def train_sweep(
    points: Sequence[Learner],
    request: TrainingRequest,
    program_for: Callable[[Sequence[RunSpec], Progress], SweepProgram],
) -> list[Ticket]:
    """Train all points of a sweep; points that differ in hyperparameters alone share a program.

    Args:
        points: One learner with different options.
        request: As in `Learner.learn`.
        program_for: From the runs of one program and their progress callback to the program.

    Returns:
        Tickets in the order (point, seed, keep), without runs that diverged.

    Raises:
        InputError: The kept fractions are wrong, or all runs diverged.
        Pending: Other processes train what is missing.
    """
    name, keeps, checkpoints = points[0].name, _keeps(points[0], request), request.checkpoints
    runs, tickets, done = list[RunSpec](), list[Ticket | None](), 0
    for _, group in itertools.groupby(points, key=without_hyperparameters):
        same = list(group)
        own = list(itertools.starmap(RunSpec, itertools.product(same, request.seeds, keeps)))
        progress = part_of(request.progress, done, len(points), len(same))
        program = program_for(own, progress)
        tickets += in_groups(
            program.train,
            own,
            program.width,
            progress=shifted(progress, program.epochs_before, program.epochs),
            shared=checkpoints and Shared(checkpoints, program.configuration),
        )
        runs += own
        done += len(same)
    for run, ticket in zip(runs, tickets, strict=True):
        if ticket is None:
            keep = "" if run.keep is None else f", keep {run.keep:g}"
            rate = f", learning rate {run.learner.learning_rate:g}" if len(points) > 1 else ""
            log.warning("%s, seed %d%s%s diverged: no ticket; lower the learning rate", name, run.seed, keep, rate)
    survivors = list(filter(None, tickets))
    if not survivors:
        raise InputError(f"training of {name} diverged in every run; lower the learning rate")
    return survivors


def shifted(progress: Progress, before: int, total: int) -> Progress:
    """The progress of a training after `before` of `total` epochs."""
    return no_progress if progress is no_progress else lambda done, _: progress(before + done, total)


def _keeps(learner: Learner, request: TrainingRequest) -> Sequence[float | None]:
    """The kept fractions of the runs, [None] for a learner that finds its own."""
    if not learner.sweeps:
        if len(request.keeps):
            raise InputError(f"`keeps` of {learner.name} must be empty, got {tuple(request.keeps)}. Omit them.")
        return [None]
    if not len(request.keeps):
        raise InputError("`keeps` must not be empty, got none. Give at least one kept fraction.")
    for keep in request.keeps:
        kept_count(keep, 1)
    return request.keeps
