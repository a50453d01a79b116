"""Checkpoints of unfinished trainings: a killed run resumes after its last saved epoch and ends the same.

Workers that share a folder share its trainings: a worker trains those that it is asked for, and all read the results.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lottery_jax import environment
from lottery_jax.errors import InputError
from lottery_jax.io.cache import read_cached, write_cached
from lottery_jax.io.files import write_atomically

SECONDS = 10.0
"""Least time between two writes, so that writing does not slow down short epochs."""

ExtraArrays = dict[str, np.ndarray]
"""Arrays of a training that are not part of its state, by name."""


class Snapshot(NamedTuple):
    """All that a training needs to resume: its state, the history of its epochs [..., E], and extra arrays."""

    state: Any
    history: dict[str, Any]
    extra: ExtraArrays


def name_of(configuration: Mapping[str, Any]) -> str:
    """A name for a configuration, which is everything that a result depends on, as JSON.

    >>> name_of({"seed": 0}) == name_of({"seed": 1})
    False
    """
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:24]


class Group(NamedTuple):
    """A group of runs that other workers train.

    Args:
        name: Its name among all groups of the job.
        number: Its number among them; None if every share of the job that needs the group trains it.
        devices: The devices that it was made for: the number of runs that share a step depends on them.
        host: The host with these devices.
    """

    name: str
    number: int | None
    devices: str
    host: str

    def check_devices(self) -> None:
        """Refuse other devices than it was made for; raises `InputError`."""
        if (own := environment.devices()) != self.devices:
            raise InputError(f"the devices are {own} here and {self.devices} on {self.host}; give all workers the same")


class Pending(Exception):
    """Results are missing that other calls make: those with these `groups`.

    `trained` has the names of the groups that need no other call.
    """

    def __init__(self, groups: Sequence[Group], trained: Collection[str] = ()) -> None:
        super().__init__(", ".join(group.name for group in groups))
        self.groups, self.trained = tuple(groups), frozenset(trained)


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The folder of unfinished trainings, with one file for each.

    Args:
        folder: The folder.
        groups: The groups of runs that this call trains. It then raises `Pending`, as it does if others are missing.
            None: it trains all.
        first: Number of the first group of runs among all of the job.
    """

    folder: Path
    groups: tuple[Group, ...] | None = None
    first: int = 0

    def of(self, configuration: Mapping[str, Any]) -> "Checkpoint":
        """The checkpoint of a training with this configuration."""
        return Checkpoint(self.folder / f"{name_of(configuration)}.safetensors")

    def unshared(self) -> "Checkpoints":
        """The same folder for a call that trains all."""
        return dataclasses.replace(self, groups=None)

    def sibling(self, name: str) -> "Checkpoints":
        """A folder next to this one, for trainings that several methods need."""
        return dataclasses.replace(self, folder=self.folder.with_name(name))

    def group(self, name: str, number: int | None) -> Group:
        """A group of this folder by its name in the folder; `number` counts the groups of the folder."""
        number = None if number is None else self.first + number
        return Group(f"{self.folder.name} {name}", number, environment.devices(), environment.host())

    def is_trained(self, name: str) -> bool:
        """Whether a group is trained completely."""
        return self._mark(name).exists()

    def set_trained(self, name: str) -> None:
        """Note that a group is trained completely."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._mark(name), b"")

    def _mark(self, name: str) -> Path:
        return self.folder / f"{name}.done"


class Checkpoint:
    """The file of one training. A damaged file is reported and ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = time.monotonic()

    def load(self, state: Any) -> Snapshot | None:
        """The snapshot of a training whose first state has the shapes of `state`; None if the file is missing."""
        found = read_cached(self.path)
        if found is None:
            return None
        paths, structure = jax.tree_util.tree_flatten_with_path(state)
        leaves = [_on_device(found[f"state {jax.tree_util.keystr(path)}"], like) for path, like in paths]
        parts: dict[str, dict[str, Any]] = {"state": {}, "history": {}, "extra": {}}
        for name, value in found.items():
            part, _, rest = name.partition(" ")
            parts[part][rest] = value
        return Snapshot(jax.tree.unflatten(structure, leaves), parts["history"], parts["extra"])

    def save(self, snapshot: Snapshot, *, now: bool = False) -> None:
        """Replace the saved snapshot, at most every few seconds unless `now`."""
        if not now and time.monotonic() - self._last < SECONDS:
            return
        arrays = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(snapshot.state):
            keys = isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            arrays[f"state {jax.tree_util.keystr(path)}"] = np.asarray(jax.random.key_data(leaf) if keys else leaf)
        for part, named in (("history", snapshot.history), ("extra", snapshot.extra)):
            for name, value in named.items():
                arrays[f"{part} {name}"] = np.asarray(value)
        write_cached(self.path, arrays)
        self._last = time.monotonic()


def _on_device(value: np.ndarray, like: Any) -> jax.Array:
    if jax.numpy.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.numpy.asarray(value), impl=jax.random.key_impl(like))
    return jax.numpy.asarray(value).reshape(like.shape)  # a number has come back as an array of one
