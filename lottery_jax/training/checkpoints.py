"""Unfinished trainings on disk: a run that was killed goes on after its last kept epoch, and ends the same.

Processes that share a folder share its trainings: each is begun by one of them, and what it came to is read by all.
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
"""Between two writes, so that short epochs are not held up."""

ExtraArrays = dict[str, np.ndarray]


class Snapshot(NamedTuple):
    """What a training needs to go on: its state, what was measured of each epoch [..., E], and arrays beside them."""

    state: Any
    history: dict[str, Any]
    more: ExtraArrays


def name_of(configuration: Mapping[str, Any]) -> str:
    """A name for everything that something depends on, as JSON: another configuration has another one.

    >>> name_of({"seed": 0}) == name_of({"seed": 1})
    False
    """
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:24]


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The folder where unfinished trainings are kept, and found.

    crew: the processes that share them; each waits, with `Pending`, for what another one has begun. first: number of
    the first group of runs, among all units of the job.
    """

    folder: Path
    workers: Workers = SERIAL
    first: int = 0
    taken: list[str] = dataclasses.field(default_factory=list, compare=False)
    """Units that this process has taken here."""

    @property
    def shared(self) -> bool:
        return self.workers is not SERIAL

    def of(self, configuration: Mapping[str, Any]) -> "Checkpoint":
        """The checkpoint of a training, from everything that it depends on."""
        return Checkpoint(self.folder / f"{name_of(configuration)}.safetensors")

    def own(self) -> "Checkpoints":
        """The same folder, for what this process has taken."""
        return dataclasses.replace(self, workers=SERIAL)

    def beside(self, name: str) -> "Checkpoints":
        """A folder beside this one, for what several need."""
        return dataclasses.replace(self, folder=self.folder.with_name(name))

    def take(self, unit: str, number: int | None = None) -> bool:
        """Whether this process does a unit now, as `Workers.take`; number: in this folder."""
        if self.note(unit) is not None:
            return False
        if not self.workers.take(self.unit(unit), None if number is None else self.first + number):
            return False
        self.taken.append(unit)
        return True

    def release(self, unit: str) -> None:
        self.workers.release(self.unit(unit))

    def done(self, unit: str, note: str = "") -> None:
        """Tell the others that a unit is done; a mark in the folder tells those that come later."""
        if self.shared:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._mark(unit), note.encode())
        self.workers.done(self.unit(unit), note)

    def note(self, unit: str) -> str | None:
        """What was told of a unit that is done, None where it is not."""
        note = self.workers.note(self.unit(unit))
        if note is None and self._mark(unit).exists():
            note = self._mark(unit).read_text()
        return note

    def see(self, unit: str) -> None:
        """Wait until what is kept of a unit that is done elsewhere is seen here: a network's file system takes time."""
        wait_for_file(self._mark(unit))

    def unit(self, unit: str) -> str:
        """The name of a unit of this folder among all units of the job."""
        return f"{self.folder.name} {unit}"

    def _mark(self, unit: str) -> Path:
        return self.folder / f"{unit}.done"


class Checkpoint:
    """The file of one training. A damaged one counts as none, and is said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = time.monotonic()

    def load(self, state: Any) -> Snapshot | None:
        """What was kept of the training that begins with such a state; None where there is nothing."""
        found = read_cached(self.path)
        if found is None:
            return None
        begun = jax.tree_util.tree_flatten_with_path(state)
        leaves = [_placed(found[_name("state", path)], like) for path, like in begun[0]]
        history, more = (
            {name.removeprefix(part): value for name, value in found.items() if name.startswith(part)}
            for part in ("history ", "more ")
        )
        return Snapshot(jax.tree.unflatten(begun[1], leaves), history, more)

    def save(self, kept: Snapshot, *, now: bool = False) -> None:
        """Keep a training in place of what was kept before; not more often than every few seconds, unless `now`."""
        if not now and time.monotonic() - self._last < SECONDS:
            return
        arrays = {_name("state", path): _array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(kept.state)}
        arrays |= {f"history {name}": np.asarray(value) for name, value in kept.history.items()}
        write_cached(self.path, arrays | {f"more {name}": np.asarray(value) for name, value in kept.more.items()})
        self._last = time.monotonic()


def _name(part: str, path: tuple) -> str:
    return f"{part} {jax.tree_util.keystr(path)}"


def _array(leaf: Any) -> np.ndarray:
    keys = isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)


def _placed(value: np.ndarray, like: Any) -> jax.Array:
    if jax.numpy.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.numpy.asarray(value), impl=jax.random.key_impl(like))
    return jax.numpy.asarray(value).reshape(like.shape)  # a number has come back as an array of one
