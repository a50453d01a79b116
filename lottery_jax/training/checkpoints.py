"""Checkpoints of unfinished trainings: a killed run resumes after its last saved epoch and ends the same.

Processes that share a folder share its trainings: one process trains each, and all read the result.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lottery_jax.io.cache import read_cached, write_cached
from lottery_jax.io.files import wait_for_file, write_atomically
from lottery_jax.workers.workers import SERIAL, Workers

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


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The folder of unfinished trainings, with one file for each."""

    folder: Path
    workers: Workers = SERIAL
    """Processes that share the folder; each raises `Pending` for what another one trains."""
    first: int = 0
    """Number of the first group of runs among all units of the job."""
    taken: list[str] = dataclasses.field(default_factory=list, compare=False)
    """Units of this folder that this process has taken."""

    @property
    def shared(self) -> bool:
        return self.workers is not SERIAL

    def of(self, configuration: Mapping[str, Any]) -> "Checkpoint":
        """The checkpoint of a training with this configuration."""
        return Checkpoint(self.folder / f"{name_of(configuration)}.safetensors")

    def unshared(self) -> "Checkpoints":
        """The same folder for this process alone."""
        return dataclasses.replace(self, workers=SERIAL)

    def sibling(self, name: str) -> "Checkpoints":
        """A folder next to this one, for trainings that several methods need."""
        return dataclasses.replace(self, folder=self.folder.with_name(name))

    def take(self, unit: str, number: int | None = None) -> bool:
        """Whether this process does a unit now, as `Workers.take`; `number` counts the units of this folder."""
        if self.note(unit) is not None:
            return False
        if not self.workers.take(self.unit(unit), None if number is None else self.first + number):
            return False
        self.taken.append(unit)
        return True

    def release(self, unit: str) -> None:
        self.workers.release(self.unit(unit))

    def done(self, unit: str, note: str = "") -> None:
        """Tell other processes that a unit is done; a file in the folder tells those that start later."""
        if self.shared:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._mark(unit), note.encode())
        self.workers.done(self.unit(unit), note)

    def note(self, unit: str) -> str | None:
        """The note of a unit that is done, None if it is not."""
        note = self.workers.note(self.unit(unit))
        if note is None and self._mark(unit).exists():
            note = self._mark(unit).read_text()
        return note

    def wait_for_done(self, unit: str) -> None:
        """Wait until the files of a unit that another process has finished are visible in a shared file system."""
        wait_for_file(self._mark(unit))

    def unit(self, unit: str) -> str:
        """The name of a unit of this folder among all units of the job."""
        return f"{self.folder.name} {unit}"

    def _mark(self, unit: str) -> Path:
        return self.folder / f"{unit}.done"


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
