"""Runs of one training program side by side: how many share a step and a device, and what becomes of all of them."""

import concurrent.futures
import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

Told = Callable[[int], None]
"""Called with the epochs that all runs have done, each time they are more."""
_AXIS = "lanes"
_MOST_WEIGHTS = 1 << 28  # of all runs that share a step, where nobody says how many


@dataclasses.dataclass(frozen=True)
class Lanes:
    """`together` runs share a step by vmap on each of so many devices; a program's arguments have `width` runs."""

    together: int = 1
    devices: int = 1

    @property
    def width(self) -> int:
        return self.together * self.devices

    def over(self, one: Callable, runs: Any, common: Any) -> Any:
        """`one(own, common)` of each run's part of `runs`, whose arrays have a leading axis of `width` runs."""

        def on_a_device(runs: Any, common: Any) -> Any:
            # A vmap of width 1 would make matrix products twice as slow on a CPU as a loop does.
            together = self.together if self.together > 1 else None
            return jax.lax.map(lambda own: one(own, common), runs, batch_size=together)

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


def lanes(asked: int | None, runs: int, weights: int) -> Lanes:
    """How runs of networks of so many weights are laid out: `asked` of them share a step on each local device.

    If nobody asks: one on a CPU, where each core has its own, and as many as there are and memory holds elsewhere.
    """
    devices = min(jax.local_device_count(), runs)
    each = -(-runs // devices)
    usual = 1 if jax.default_backend() == "cpu" else max(1, _MOST_WEIGHTS // max(weights, 1))
    return Lanes(min(asked or usual, each), devices)


def stacked(trees: Iterable[Any]) -> Any:
    """Trees of arrays as one, with a leading axis of runs.

    >>> stacked([{"w": np.zeros(3)}, {"w": np.ones(3)}])["w"].shape
    (2, 3)
    """
    # On the host: on a device each shape would be compiled.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def in_groups(
    train: Callable[[Sequence, Told | None], list], runs: Sequence, width: int, told: Told | None = None
) -> list:
    """What `train` makes of each run, in order, `width` of them at a time; told: of the epochs of them all.

    train: takes `width` runs, the last one several times where there are not as many, and what it tells its epochs,
    where somebody looks.

    >>> in_groups(lambda group, tell: [2 * run for run in group], [1, 2, 3], 2)
    [2, 4, 6]
    """
    groups = [list(runs[at : at + width]) for at in range(0, len(runs), width)]
    done, last, turn = [0] * len(groups), 0, threading.Lock()

    def one(group: int) -> list:
        def tell(epochs: int) -> None:
            nonlocal last
            with turn:
                done[group] = epochs
                if told is not None and (mean := sum(done) // len(done)) > last:
                    last = mean
                    told(mean)

        own = groups[group]
        filled = own + own[-1:] * (width - len(own))  # groups of one size: one program
        return train(filled, None if told is None else tell)[: len(own)]

    # The first one compiles for all. A step of one run leaves most of a CPU idle, so the others share it.
    found = one(0)
    with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) if width == 1 else 1) as pool:
        for more in pool.map(one, range(1, len(groups))):
            found += more
    return found
