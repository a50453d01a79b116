"""Dense trainings that this process has done: methods that begin with the same one, and grids of them, share it."""

import collections
import dataclasses
import threading
import weakref
from collections.abc import Hashable, Sequence

import jax
import numpy as np

from lottery_jax.checkpoints import Checkpoints
from lottery_jax.data import Dataset
from lottery_jax.lanes import Told
from lottery_jax.storage.sealed import digest
from lottery_jax.trained.retraining import Finish, Retraining, Start

_MOST_BYTES = 1 << 28


@dataclasses.dataclass
class _Shelf:
    """What is remembered, the latest last, and for which data; the oldest go where it takes too much memory."""

    found: collections.OrderedDict[Hashable, tuple[weakref.ref[Dataset], Finish]]
    turn: threading.Lock

    def take(self, key: Hashable, dataset: Dataset) -> Finish | None:
        with self.turn:
            data, finish = self.found.get(key, (None, None))
            return finish if data is not None and data() is dataset else None

    def put(self, key: Hashable, dataset: Dataset, finish: Finish) -> None:
        with self.turn:
            self.found[key] = weakref.ref(dataset), finish
            while sum(_size(kept) for _, kept in self.found.values()) > _MOST_BYTES:
                self.found.popitem(last=False)


_SHELF = _Shelf(collections.OrderedDict(), threading.Lock())


def dense_runs(
    training: Retraining,
    starts: Sequence[Start],
    dataset: Dataset,
    epochs: int,
    *,
    earlier: int,
    told: Told,
    checkpoints: Checkpoints | None,
) -> list[Finish | None]:
    """As `Retraining.runs`, but what was trained before, from the same weights in the same way, is not trained again.

    Equal are network, optimiser and its numbers, runs that share a step, seed, first weights, data (the same object),
    epochs and precision: all that the result depends on.
    """
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    same = training, epochs, earlier, id(dataset), jax.default_backend(), precision
    keys = [(*same, start.seed, start.numbers, digest("", start.tensors)) for start in starts]
    found = {key: _SHELF.take(key, dataset) for key in keys}
    missing = {key: start for key, start in zip(keys, starts, strict=True) if found[key] is None}
    if missing:
        kept = checkpoints and (checkpoints.beside("dense") if checkpoints.shared else checkpoints)
        new = training.runs(list(missing.values()), dataset, epochs, earlier=earlier, told=told, checkpoints=kept)
        for key, finish in zip(missing, new, strict=True):
            found[key] = finish
            if finish is not None:
                _SHELF.put(key, dataset, finish)
    else:
        told(epochs)
    return [found[key] for key in keys]


def _size(finish: Finish) -> int:
    return sum(np.asarray(value).nbytes for part in (finish.tensors, finish.earlier) for value in part.values())
