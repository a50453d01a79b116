"""Unfinished trainings on disk: a run that was killed goes on after its last kept epoch, and ends the same."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lottery_jax.data.cache import recall, store

SECONDS = 10.0
"""Between two writes, so that short epochs are not held up."""
Beside = dict[str, np.ndarray]


class Kept(NamedTuple):
    """What a training needs to go on: its state, what was measured of each epoch [..., E], and arrays beside them."""

    state: Any
    history: dict[str, Any]
    more: Beside


class Checkpoint:
    """The file of one training in a folder, named by everything that the training depends on.

    configuration: as JSON. Another configuration is another file; a damaged file counts as none, and is said.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        name = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:24]
        self.path = folder / f"{name}.safetensors"
        self._last = time.monotonic()

    def load(self, state: Any) -> Kept | None:
        """What was kept of the training that begins with such a state; None where there is nothing."""
        found = recall(self.path)
        if found is None:
            return None
        begun = jax.tree_util.tree_flatten_with_path(state)
        leaves = [_placed(found[_name("state", path)], like) for path, like in begun[0]]
        history, more = (
            {name.removeprefix(part): value for name, value in found.items() if name.startswith(part)}
            for part in ("history ", "more ")
        )
        return Kept(jax.tree.unflatten(begun[1], leaves), history, more)

    def save(self, kept: Kept, *, now: bool = False) -> None:
        """Keep a training in place of what was kept before; not more often than every few seconds, unless `now`."""
        if not now and time.monotonic() - self._last < SECONDS:
            return
        arrays = {_name("state", path): _array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(kept.state)}
        arrays |= {f"history {name}": np.asarray(value) for name, value in kept.history.items()}
        store(self.path, arrays | {f"more {name}": np.asarray(value) for name, value in kept.more.items()})
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
