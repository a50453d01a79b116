"""Training under masks: what is pruned is zero after every step, whatever momentum or weight decay would make of it.

One compiled program trains the dense networks, every round, every kept fraction and every seed: an epoch of runs [R],
whose masks, weights and keys are its arguments. Runs of one seed see the examples in one order.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.lanes import Told, in_groups, over_lanes, stacked
from lottery_jax.networks.network import Network
from lottery_jax.training import History, State, advance, begin, check_finite, cross_entropy

ByName = dict[str, Any]
"""Tensors of a network, or masks of some of them, by name."""
_EXAMPLES = 500  # of the validation split at a time


@dataclasses.dataclass(frozen=True)
class Descent:
    """An optimiser and its numbers; Adam, or SGD with momentum. Weight decay is of matrices and kernels alone."""

    optimizer: Literal["adam", "sgd"]
    learning_rate: float
    momentum: float
    weight_decay: float
    batch_size: int

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
        """The optimiser; its rate is constant, as published for small networks."""
        adam = self.optimizer == "adam"
        steps = optax.adam(self.learning_rate) if adam else optax.sgd(self.learning_rate, momentum=self.momentum)
        if not self.weight_decay:
            return steps
        matrices = optax.add_decayed_weights(self.weight_decay, mask=lambda t: jax.tree.map(lambda x: x.ndim > 1, t))
        return optax.chain(matrices, steps)


def held(optimizer: optax.GradientTransformation, masks: Mapping[str, jax.Array]) -> optax.GradientTransformation:
    """The optimiser for tensors of which some have masks: what is pruned has no gradient, and is zero after a step.

    >>> mask, weight = {"w": jnp.array([True, False])}, {"w": jnp.array([1.0, 1.0])}
    >>> made = held(optax.sgd(0.5), mask)
    >>> step, _ = made.update(weight, made.init(weight), weight)
    >>> optax.apply_updates(weight, step)["w"].tolist()
    [0.5, 0.0]
    """

    def under(values: Mapping[str, Any], otherwise: Callable[[str], Any]) -> dict[str, Any]:
        return {
            name: jnp.where(masks[name], value, otherwise(name)) if name in masks else value
            for name, value in values.items()
        }

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        # Without the gradient Adam's moments of pruned weights stay zero; what moves them all the same is undone.
        updates, state = optimizer.update(under(updates, lambda name: 0.0), state, params)
        return under(updates, lambda name: -params[name]), state  # type: ignore[arg-type]

    return optax.GradientTransformation(optimizer.init, update)


class Start(NamedTuple):
    """What a run begins with: a seed for the order of the examples, tensors and masks by name, epochs that are over."""

    seed: int
    tensors: ByName
    masks: ByName
    epoch: int = 0


class Finish(NamedTuple):
    """What a run ends with: tensors, those after an earlier epoch, and of each epoch [E] the losses (or of none)."""

    tensors: ByName
    earlier: ByName
    loss: np.ndarray
    validation_loss: np.ndarray


@dataclasses.dataclass(frozen=True)
class Retraining:
    """The compiled training of a network; equal ones share their programs. together: runs that share a step."""

    network: Network
    descent: Descent
    together: int

    def runs(
        self,
        starts: Sequence[Start],
        dataset: Dataset,
        epochs: int,
        *,
        earlier: int = 0,
        told: Told | None = None,
    ) -> list[Finish]:
        """Train each run up to the end of epoch `epochs`; told: called with the epochs that all runs have done.

        earlier: the epoch after which tensors are kept, too.
        """
        train, validation = (jax.tree.map(jnp.asarray, split) for split in (dataset.train, dataset.validation))

        def group(rows: Sequence[Start], tell: Told | None) -> list[Finish]:
            return self._group(rows, train, validation, epochs, earlier, tell or (lambda count: None))

        return in_groups(group, starts, self.together, told)

    def _group(
        self,
        starts: Sequence[Start],
        train: Split,
        validation: Split,
        epochs: int,
        earlier: int,
        seen: Told,
    ) -> list[Finish]:
        rows = [*starts, *[starts[-1]] * (self.together - len(starts))]  # groups of one size: one program
        tensors, masks = (stacked(getattr(row, field) for row in rows) for field in ("tensors", "masks"))
        keys = jnp.stack([jax.random.key(row.seed % 2**32) for row in rows])
        first = starts[0].epoch
        state, kept = self._begin(tensors, keys, jnp.full(len(rows), first, jnp.int32)), None
        histories = []
        for epoch in range(first, epochs):
            if epoch == earlier and epoch > first:
                kept = jax.tree.map(np.array, state.parameters)  # copies: the state's own are used up
            state, history = self._epoch(state, masks, train, validation)
            histories.append(jax.tree.map(np.asarray, history))
            seen(epoch + 1 - first)
        ended = jax.tree.map(np.asarray, state.parameters)
        check_finite(ended, "the pruned networks")
        losses = {
            name: np.concatenate([history[name] for history in histories], -1) if name in histories[0] else np.zeros(0)
            for name in ("loss", "measure")
        }
        return [
            Finish(
                {name: value[at] for name, value in ended.items()},
                start.tensors if kept is None else {name: value[at] for name, value in kept.items()},
                losses["loss"][at],
                losses["measure"][at] if losses["measure"].size else losses["measure"],
            )
            for at, start in enumerate(starts)
        ]

    @functools.partial(jax.jit, static_argnums=0)
    def _begin(self, tensors: ByName, keys: jax.Array, epochs: jax.Array) -> State:
        """The state of each run before its first epoch."""
        states = jax.vmap(lambda own, key: begin(own, key=key, optimizer=self.descent.made()))(tensors, keys)
        return states._replace(epoch=epochs)

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def _epoch(self, state: State, masks: ByName, train: Split, validation: Split) -> tuple[State, History]:
        """One epoch of all runs, and the loss on the validation split after it."""

        def validated(tensors):
            def example(pair):
                logits = self.network.module(tensors)(pair[0][None])  # type: ignore[operator]
                return optax.softmax_cross_entropy_with_integer_labels(logits[0], pair[1])

            return jax.lax.map(example, (validation.images, validation.labels), batch_size=_EXAMPLES).mean()

        def one(arguments):
            state, masks = arguments
            optimizer = held(self.descent.made(), masks)
            measure = validated if len(validation) else None
            size = min(self.descent.batch_size, len(train))
            loss = cross_entropy(self.network)
            return advance(loss, state, train, optimizer=optimizer, epochs=1, batch_size=size, measure=measure)

        return over_lanes(one, (state, masks), self.together)
