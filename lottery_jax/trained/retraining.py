"""Training under masks: what is pruned keeps its value in every step, whatever momentum or weight decay make of it.

One compiled program trains the dense networks, every round, every kept fraction and every seed: an epoch of runs [R],
whose masks, weights and keys are its arguments. Runs of one seed see the examples in one order.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.lanes import Lanes, Told, in_groups, stacked
from lottery_jax.networks.network import Network
from lottery_jax.trained.holding import held
from lottery_jax.trained.schedules import Schedule
from lottery_jax.training import History, State, advance, begin, cross_entropy, on_split, steps_per_epoch

ByName = dict[str, Any]
"""Tensors of a network, or masks of some of them, by name."""


@dataclasses.dataclass(frozen=True)
class Descent:
    """An optimiser and its numbers; Adam, or SGD with momentum. Weight decay is of matrices and kernels alone."""

    optimizer: Literal["adam", "sgd"]
    learning_rate: float
    momentum: float
    weight_decay: float
    batch_size: int
    schedule: Schedule = dataclasses.field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise InputError(f"the optimizer {self.optimizer!r} is unknown; use adam or sgd")
        if not 0 < self.learning_rate < np.inf:
            raise InputError(f"the learning rate is {self.learning_rate}; it must be positive and finite")
        if not (0 <= self.momentum < 1 and 0 <= self.weight_decay < np.inf):
            raise InputError(
                f"momentum {self.momentum} and weight decay {self.weight_decay} are not possible; momentum is in [0, 1)"
                " and weight decay from 0 up"
            )

    def made(self) -> optax.GradientTransformation:
        """The optimiser at the whole learning rate."""
        adam = self.optimizer == "adam"
        steps = optax.adam(self.learning_rate) if adam else optax.sgd(self.learning_rate, momentum=self.momentum)
        if not self.weight_decay:
            return steps
        matrices = optax.add_decayed_weights(self.weight_decay, mask=lambda t: jax.tree.map(lambda x: x.ndim > 1, t))
        return optax.chain(matrices, steps)


class Start(NamedTuple):
    """What a run begins with: a seed for the order of the examples, tensors and masks by name, epochs that are over.

    Where a tensor has a mask, what is pruned has its value already, and keeps it.
    """

    seed: int
    tensors: ByName
    masks: ByName
    epoch: int = 0


class Finish(NamedTuple):
    """What a run ends with: tensors, those after an earlier epoch, and of each epoch [E] the losses (or of none).

    revived: the number of steps after which a pruned weight had moved. batches: for each epoch a digest of all that the
    order of its examples depends on, as the program was given it: key, epoch, sizes and data.
    """

    tensors: ByName
    earlier: ByName
    loss: np.ndarray
    validation_loss: np.ndarray
    revived: int
    batches: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Retraining:
    """The compiled training of a network; equal ones share their programs."""

    network: Network
    descent: Descent
    lanes: Lanes

    def runs(
        self,
        starts: Sequence[Start],
        dataset: Dataset,
        epochs: int,
        *,
        earlier: int = 0,
        told: Told | None = None,
    ) -> list[Finish | None]:
        """Train each run up to the end of epoch `epochs`, None where it diverged; told: of the epochs all have done.

        earlier: the epoch after which tensors are kept, too.
        """
        train, validation = self.lanes.common((dataset.train, dataset.validation))
        sizes = f"{dataset.fingerprint} {len(train)} {self.size(train)}"

        def group(rows: Sequence[Start], tell: Told | None) -> list[Finish | None]:
            return self._group(rows, train, validation, sizes, epochs, earlier, tell or (lambda count: None))

        return in_groups(group, starts, self.lanes.width, told)

    def size(self, train: Split) -> int:
        """Examples of a step."""
        return min(self.descent.batch_size, len(train))

    def _group(
        self,
        starts: Sequence[Start],
        train: Split,
        validation: Split,
        sizes: str,
        epochs: int,
        earlier: int,
        seen: Told,
    ) -> list[Finish | None]:
        tensors, masks = (stacked(getattr(start, field) for start in starts) for field in ("tensors", "masks"))
        keys = jnp.stack([jax.random.key(start.seed % 2**32) for start in starts])
        values = {name: tensors[name] for name in masks}
        first, steps = starts[0].epoch, steps_per_epoch(len(train), self.size(train))
        state, kept = self._begin(tensors, keys, jnp.full(len(starts), first, jnp.int32), steps), None
        histories, orders, total = [], [], jnp.int32(epochs)
        for epoch in range(first, epochs):
            if epoch == earlier and epoch > first:
                kept = jax.tree.map(np.array, state.parameters)  # copies: the state's own are used up
            orders.append((np.asarray(jax.random.key_data(state.key)), np.asarray(state.epoch)))
            state, history = self._epoch(state, masks, values, total, train, validation)
            histories.append(jax.tree.map(np.asarray, history))
            seen(epoch + 1 - first)
        ended, revived = jax.tree.map(np.asarray, (state.parameters, state.optimizer.revived))
        losses = {
            name: np.concatenate([history[name] for history in histories], -1) if name in histories[0] else np.zeros(0)
            for name in ("loss", "measure")
        }
        found: list[Finish | None] = []
        for at, start in enumerate(starts):
            last = {name: value[at] for name, value in ended.items()}
            if not all(np.isfinite(value).all() for value in last.values()):
                found.append(None)
                continue
            moved = any((last[name] != start.tensors[name])[~mask].any() for name, mask in start.masks.items())
            finish = Finish(
                last,
                start.tensors if kept is None else {name: value[at] for name, value in kept.items()},
                losses["loss"][at],
                losses["measure"][at] if losses["measure"].size else losses["measure"],
                int(revived[at]) + moved,
                tuple(_digest(sizes, key[at], epoch[at]) for key, epoch in orders),
            )
            found.append(finish)
        return found

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _begin(self, tensors: ByName, keys: jax.Array, epochs: jax.Array, steps: int) -> State:
        """The state of each run before its first epoch; of schedules, the steps before it are over."""
        optimizer = held(self.descent.made(), {}, {})
        states = jax.vmap(lambda own, key: begin(own, key=key, optimizer=optimizer))(tensors, keys)
        over: Any = states.optimizer
        return states._replace(epoch=epochs, optimizer=over._replace(step=epochs * steps))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def _epoch(
        self, state: State, masks: ByName, values: ByName, total: jax.Array, train: Split, validation: Split
    ) -> tuple[State, History]:
        """One epoch of all runs, of `total` ones, and the loss on the validation split after it."""
        size = self.size(train)
        steps, schedule = steps_per_epoch(len(train), size), self.descent.schedule

        def one(own: tuple, common: tuple) -> tuple[State, History]:
            (state, masks, values), (train, validation, total) = own, common

            def validated(tensors: ByName) -> jax.Array:
                return on_split(self.network.module(tensors), validation)["loss"]  # type: ignore[arg-type]

            part = (lambda step: schedule.part(step, steps, total)) if schedule.changes else None
            optimizer = held(self.descent.made(), masks, values, part)
            measure = validated if len(validation) else None
            loss = cross_entropy(self.network)
            return advance(loss, state, train, optimizer=optimizer, epochs=1, batch_size=size, measure=measure)

        return self.lanes.over(one, (state, masks, values), (train, validation, total))


def _digest(sizes: str, key: np.ndarray, epoch: np.ndarray) -> str:
    return hashlib.sha256(f"{sizes} {key.tolist()} {epoch}".encode()).hexdigest()
