"""Runs of one training program side by side: how many share a step, and what becomes of all of them."""

import concurrent.futures
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Told = Callable[[int], None]
"""Called with the epochs that all runs have done, each time they are more."""


def lanes(asked: int | None, runs: int) -> int:
    """Runs that share a step by vmap: as asked; else one on a CPU, where each core has its own, and all elsewhere."""
    return asked or (1 if jax.default_backend() == "cpu" else runs)


def over_lanes(one: Callable, arguments: tuple, together: int) -> Any:
    """`one` of each run's arguments, which have a leading axis of runs."""
    # A vmap of width 1 would make matrix products twice as slow on a CPU as a loop does.
    return jax.lax.map(one, arguments, batch_size=together if together > 1 else None)


def stacked(trees: Iterable[Any]) -> Any:
    """Trees of arrays as one, with a leading axis of runs.

    >>> stacked([{"w": np.zeros(3)}, {"w": np.ones(3)}])["w"].shape
    (2, 3)
    """
    # On the host: on a device each shape would be compiled.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def in_groups(
    train: Callable[[Sequence, Told | None], list], runs: Sequence, together: int, told: Told | None = None
) -> list:
    """What `train` makes of each run, in order, `together` of them at a time; told: of the epochs of them all.

    train: takes a group, and what it tells its epochs, where somebody looks.

    >>> in_groups(lambda group, tell: [2 * run for run in group], [1, 2, 3], 2)
    [2, 4, 6]
    """
    groups = [runs[at : at + together] for at in range(0, len(runs), together)]
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

    # The first one compiles for all. A step of one run leaves most of a CPU idle, so the others share it.
    found = one(0)
    with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) if together == 1 else 1) as pool:
        for more in pool.map(one, range(1, len(groups))):
            found += more
    return found
