"""Runs of one program in parallel: by vmap, on several devices, in threads, in several processes; and whole sweeps."""

import concurrent.futures
import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lottery_jax.environment import cores
from lottery_jax.errors import InputError
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.checkpoints import Checkpoints, Pending, name_of
from lottery_jax.training.learner import Learner, RunSpec, TrainingRequest, part_of, without_hyperparameters

_T = TypeVar("_T")

_AXIS = "runs"

_MAX_WEIGHTS = 1 << 28  # of all runs that share a step by default


@dataclasses.dataclass(frozen=True)
class ParallelRuns:
    """A layout of runs: each of several devices trains `runs_per_step` of them in one step, by vmap."""

    runs_per_step: int = 1
    devices: int = 1

    @property
    def width(self) -> int:
        """Runs of one call of a program."""
        return self.runs_per_step * self.devices

    def map(self, one: Callable, runs: Any, shared: Any) -> Any:
        """`one(run, shared)` for each run of `runs`, whose arrays have a leading axis of `width` runs."""

        def on_device(runs: Any, shared: Any) -> Any:
            # A vmap of width 1 would make matrix products twice as slow on a CPU as a loop does.
            batch_size = self.runs_per_step if self.runs_per_step > 1 else None
            return jax.lax.map(functools.partial(one, shared=shared), runs, batch_size=batch_size)

        if self.devices == 1:
            return on_device(runs, shared)
        split, replicated = PartitionSpec(_AXIS), PartitionSpec()
        return jax.shard_map(
            on_device, mesh=self._mesh(), in_specs=(split, replicated), out_specs=split, check_vma=False
        )(runs, shared)

    def replicate(self, tree: Any) -> Any:
        """Arrays that all runs share, on every device."""
        if self.devices == 1:
            return jax.tree.map(jnp.asarray, tree)
        return jax.device_put(tree, NamedSharding(self._mesh(), PartitionSpec()))

    def _mesh(self) -> jax.sharding.Mesh:
        return jax.sharding.Mesh(np.array(jax.local_devices()[: self.devices]), (_AXIS,))


def parallel_runs(runs_per_step: int | None, runs: int, weights: int) -> ParallelRuns:
    """The layout of `runs` runs of networks with `weights` weights on all local devices; raises `InputError`.

    By default one run takes a step on a CPU, elsewhere as many as fit into memory.
    """
    if runs_per_step is not None and runs_per_step < 1:
        raise InputError(f"`runs_per_step` must be at least 1, got {runs_per_step}. Give a positive number.")
    devices = min(jax.local_device_count(), runs)
    default = 1 if jax.default_backend() == "cpu" else max(1, _MAX_WEIGHTS // max(weights, 1))
    return ParallelRuns(min(runs_per_step or default, -(-runs // devices)), devices)


def stacked(trees: Iterable[Any]) -> Any:
    """Trees of arrays as one tree, with a leading axis of runs.

    >>> stacked([{"w": np.zeros(3)}, {"w": np.ones(3)}])["w"].shape
    (2, 3)
    """
    # On the host: on a device each shape would be compiled.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def padded_group(group: Sequence[_T], width: int) -> list[_T]:
    """A group padded with copies of its last run, because groups of one size share a program.

    >>> padded_group([1, 2], 4)
    [1, 2, 2, 2]
    """
    return [*group, *[group[-1]] * (width - len(group))]


class Shared(NamedTuple):
    """How several workers share groups of runs."""

    checkpoints: Checkpoints
    configuration: Callable[[Sequence], dict[str, Any]]
    """Everything that the training of a group depends on, as JSON."""
    for_all: bool = False
    """Whether every share of a job needs all groups, and trains those that are missing."""


def in_groups(
    train: Callable[[Sequence, Progress], list],
    runs: Sequence,
    width: int,
    *,
    progress: Progress = no_progress,
    shared: Shared | None = None,
) -> list:
    """Train runs in groups of at most `width`; if workers share them, train those of this call.

    Args:
        train: From a group of runs and a progress callback of (epochs done, epochs) to one result per run. It reads
            from its checkpoints what another worker has trained.
        runs: All runs.
        width: Most runs of a group.
        progress: Called with (mean epochs done of all groups, epochs).
        shared: How workers share the groups. Default: this call trains all.

    Returns:
        One result per run, in their order.

    Raises:
        Pending: Other calls train what is missing, or this call has trained its groups.

    >>> in_groups(lambda group, progress: [2 * run for run in group], [1, 2, 3], 2)
    [2, 4, 6]
    """
    starts = range(0, len(runs), width)
    done, last, lock = [0] * len(starts), 0, threading.Lock()

    def one(group: int) -> list:
        def report(epochs: int, total: int) -> None:
            nonlocal last
            with lock:
                done[group] = epochs
                if (mean := sum(done) // len(done)) > last:
                    last = mean
                    progress(mean, total)

        start = starts[group]
        return train(runs[start : start + width], no_progress if progress is no_progress else report)

    # A step of one run leaves most of a CPU idle, so that several are trained in threads.
    threads = cores() if width == 1 else 1
    numbers = range(len(starts))
    if shared is None or shared.checkpoints.groups is None:
        return list(itertools.chain.from_iterable(_in_threads(one, numbers, threads)))
    checkpoints, asked = shared.checkpoints, {group.name for group in shared.checkpoints.groups}
    for group in shared.checkpoints.groups:
        group.check_devices()
    names = [name_of(shared.configuration(runs[start : start + width])) for start in starts]
    groups = [checkpoints.group(name, None if shared.for_all else number) for number, name in enumerate(names)]

    def train_for_all(number: int) -> None:
        one(number)
        checkpoints.set_trained(names[number])

    missing = [number for number in numbers if not checkpoints.is_trained(names[number])]
    _in_threads(train_for_all, [number for number in missing if groups[number].name in asked], threads)
    left = [groups[number] for number in missing if groups[number].name not in asked]
    if left or not asked.isdisjoint(group.name for group in groups):
        raise Pending(left, trained=[group.name for group in groups if group not in left])
    return list(itertools.chain.from_iterable(_in_threads(one, numbers, threads)))


def _in_threads(work: Callable[[int], _T], numbers: Sequence[int], threads: int) -> list[_T]:
    """The results of `work`; the first call compiles for all others."""
    results = [work(number) for number in numbers[:1]]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return results + list(pool.map(work, numbers[1:]))


@dataclasses.dataclass(frozen=True)
class SweepProgram:
    """How to train runs that differ in hyperparameters, seed and kept fraction alone."""

    train: Callable[[Sequence[RunSpec], Progress], list[Ticket | None]]
    """From a group of runs and a progress callback to their tickets, None for each run that diverged."""
    configuration: Callable[[Sequence[RunSpec]], dict[str, Any]]
    """Everything that the training of a group depends on, as JSON."""
    width: int
    epochs: int
    epochs_before: int = 0
    """Epochs that are over when `train` is called; `train` reports those after them."""


def train_sweep(
    points: Sequence[Learner],
    request: TrainingRequest,
    program_for: Callable[[Sequence[RunSpec], Progress], SweepProgram],
) -> list[Ticket]:
    """Train one learner at all points of a sweep; points that differ in hyperparameters alone share a program.

    Arguments, result and errors are those of `Learner.sweep`. `program_for` makes the program of some runs, which may
    train at once what all of them need, and report it to their progress callback.
    """
    name, checkpoints = points[0].name, request.checkpoints
    if not points[0].sweeps and len(request.keeps):
        raise InputError(f"`keeps` of {name} must be empty, got {tuple(request.keeps)}. Omit them.")
    if points[0].sweeps and not len(request.keeps):
        raise InputError("`keeps` must not be empty, got none. Give at least one kept fraction.")
    for keep in request.keeps:
        kept_count(keep, 1)
    keeps = request.keeps if points[0].sweeps else [None]
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
