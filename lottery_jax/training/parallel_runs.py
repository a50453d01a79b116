"""Runs of one training program side by side: how many share a step and a device, and what becomes of all of them."""

import concurrent.futures
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lottery_jax.environment import cores
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.workers.workers import Pending

OnEpochs = Callable[[int], None]
"""Called with the epochs that all runs have done, each time they are more."""

_T = TypeVar("_T")

_U = TypeVar("_U")

_AXIS = "lanes"

_MOST_WEIGHTS = 1 << 28  # of all runs that share a step, where nobody says how many


@dataclasses.dataclass(frozen=True)
class ParallelRuns:
    """`runs_per_step` runs share a step by vmap on each of so many devices; a program's arguments have `width` runs."""

    runs_per_step: int = 1
    devices: int = 1

    @property
    def width(self) -> int:
        return self.runs_per_step * self.devices

    def over(self, one: Callable, runs: Any, common: Any) -> Any:
        """`one(own, common)` of each run's part of `runs`, whose arrays have a leading axis of `width` runs."""

        def on_a_device(runs: Any, common: Any) -> Any:
            # A vmap of width 1 would make matrix products twice as slow on a CPU as a loop does.
            runs_per_step = self.runs_per_step if self.runs_per_step > 1 else None
            return jax.lax.map(lambda own: one(own, common), runs, batch_size=runs_per_step)

        if self.devices == 1:
            return on_a_device(runs, common)
        own, all_of_it = PartitionSpec(_AXIS), PartitionSpec()
        # Runs have nothing to say to each other; what they share is on every device.
        split = jax.shard_map(on_a_device, mesh=self._mesh(), in_specs=(own, all_of_it), out_specs=own, check_vma=False)
        return split(runs, common)

    def common(self, tree: Any) -> Any:
        """Arrays that runs share, on every device."""
        if self.devices == 1:
            return jax.tree.map(jnp.asarray, tree)
        return jax.device_put(tree, NamedSharding(self._mesh(), PartitionSpec()))

    def _mesh(self) -> jax.sharding.Mesh:
        return jax.sharding.Mesh(np.array(jax.local_devices()[: self.devices]), (_AXIS,))


def parallel_runs(asked: int | None, runs: int, weights: int) -> ParallelRuns:
    """How runs of networks of so many weights are laid out: `asked` of them share a step on each local device.

    If nobody asks: one on a CPU, where each core has its own, and as many as there are and memory holds elsewhere.
    """
    devices = min(jax.local_device_count(), runs)
    each = -(-runs // devices)
    usual = 1 if jax.default_backend() == "cpu" else max(1, _MOST_WEIGHTS // max(weights, 1))
    return ParallelRuns(min(asked or usual, each), devices)


def stacked(trees: Iterable[Any]) -> Any:
    """Trees of arrays as one, with a leading axis of runs.

    >>> stacked([{"w": np.zeros(3)}, {"w": np.ones(3)}])["w"].shape
    (2, 3)
    """
    # On the host: on a device each shape would be compiled.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def padded_group(group: Sequence[_T], width: int) -> list[_T]:
    """A group with its last run several times where it has not as many runs: groups of one size are one program.

    >>> padded_group([1, 2], 4)
    [1, 2, 2, 2]
    """
    return [*group, *[group[-1]] * (width - len(group))]


class Shared(NamedTuple):
    """How groups of runs are shared with other processes: whose they are, and the name of each group.

    for_all: whether every share needs all of them, and makes for itself what is not there.
    """

    checkpoints: Checkpoints
    name: Callable[[Sequence], str]
    for_all: bool = False


def in_groups(
    train: Callable[[Sequence, OnEpochs | None], list],
    runs: Sequence,
    width: int,
    told: OnEpochs | None = None,
    shared: Shared | None = None,
) -> list:
    """What `train` makes of each run, in order, at most `width` of them at a time; told: of the epochs of them all.

    train: takes runs, and what it tells its epochs, where somebody looks. shared: with other processes, which take the
    groups that this one does not. It finds again, in their checkpoints, what has been trained. Raises `Pending` where
    not all groups are done yet and this process has no more to do.

    >>> in_groups(lambda group, tell: [2 * run for run in group], [1, 2, 3], 2)
    [2, 4, 6]
    """
    groups = [runs[at : at + width] for at in range(0, len(runs), width)]
    done, last, turn = [0] * len(groups), 0, threading.Lock()

    def one(group: int) -> list:
        def tell(epochs: int) -> None:
            nonlocal last
            with turn:
                done[group] = epochs
                if told is not None and (mean := sum(done) // len(done)) > last:
                    last = mean
                    told(mean)

        return train(groups[group], None if told is None else tell)

    every = range(len(groups))
    # A step of one run leaves most of a CPU idle, so that several are done side by side.
    threads = cores() if width == 1 else 1
    if shared is None or not shared.checkpoints.shared:
        return list(itertools.chain.from_iterable(_first_alone(one, every, threads)))
    names = [shared.name(group) for group in groups]
    found, waiting = _taken(one, names, shared, threads)
    if waiting:
        raise Pending(waiting)
    for group in every:
        if group not in found:
            shared.checkpoints.see(names[group])
            found[group] = one(group)
    return list(itertools.chain.from_iterable(found[group] for group in every))


def _taken(
    one: Callable[[int], list], names: Sequence[str], shared: Shared, threads: int
) -> tuple[dict[int, list], list[str]]:
    """What this process has made of the groups that it could take, and the units that it waits for."""
    checkpoints, found = shared.checkpoints, dict[int, list]()
    waiting, given_back = set[str](), set[str]()

    def attempt(group: int) -> bool:
        """False where another process has it, or it is done."""
        name = names[group]
        if not checkpoints.take(name, None if shared.for_all else group):
            return False
        try:
            found[group] = one(group)
        except Pending as other:
            checkpoints.release(name)
            given_back.add(name)
            waiting.update(other.units)
        else:
            checkpoints.done(name)
        return True

    groups = iter(range(len(names)))
    any(attempt(group) for group in groups)  # the first one compiles for all
    list(_side_by_side(attempt, groups, threads))
    others = [name for name in names if name not in given_back and checkpoints.note(name) is None]
    return found, [*waiting, *map(checkpoints.unit, others)]


def _first_alone(one: Callable[[int], list], groups: Iterable[int], threads: int) -> Iterator[list]:
    """Each group's, the first one before all others: it compiles for all."""
    left = iter(groups)
    for first in left:
        yield one(first)
        yield from _side_by_side(one, left, threads)


def _side_by_side(one: Callable[[int], _U], groups: Iterable[int], threads: int) -> Iterator[_U]:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        yield from pool.map(one, groups)
