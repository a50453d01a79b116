"""The compiled training of scores: one program for all runs (seed, kept fraction, numbers) of a learner on a source."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lottery_jax.data import Split
from lottery_jax.data.augment import augment
from lottery_jax.lanes import Lanes
from lottery_jax.learned.base import with_numbers
from lottery_jax.learned.decided import as_decided, possible_counts
from lottery_jax.learned.scores import Tensors
from lottery_jax.networks.gates import FixedGate
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Gate
from lottery_jax.training import History, State, advance, begin, on_split

if TYPE_CHECKING:
    from lottery_jax.learned.search import ScoreLearner

SCALE_IMAGES = 256  # training images that the gains are measured on
_LAST = 2**31 - 1  # folded into a run's key for what is chosen at random when the training is over


class Run(NamedTuple):
    """What a run is given: the place of its seed [R], kept counts {name: [R]} and in all [R], gains {name: [R]}.

    numbers: the options of the learner that are floats {name: [R]}.
    """

    place: jax.Array
    counts: Tensors
    total: jax.Array
    gains: Tensors
    numbers: Tensors


class Common(NamedTuple):
    """What runs share: random tensors {name: [S, ...]} of each seed, stored tensors, and the splits.

    decided: what the seed decides of masks, {name: int8 [S, ...]}, of tensors of which it decides anything.
    """

    sources: Tensors
    decided: Tensors
    stored: Tensors
    train: Split
    validation: Split


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The compiled parts of a training, over the runs [R].

    Equal trainers share their compiled programs, from one call of `learn` to the next. learner: without its numbers,
    which each run has.
    """

    network: Network
    learner: "ScoreLearner"
    epochs: int
    examples: int
    lanes: Lanes

    def gates(self, masks: Tensors) -> Callable[[str], Gate]:
        """The gates of a step, from its masks."""
        if power := self.learner.rescaling:
            masks = {name: mask * (mask.size / jnp.maximum(mask.sum(), 1)) ** power for name, mask in masks.items()}
        return lambda name: FixedGate(masks[name])

    @functools.partial(jax.jit, static_argnums=0)
    def unit_gains(self, common: Common, runs: Run, scores: Tensors, keys: jax.Array) -> Tensors:
        """Gains {name: [R]} for unit outputs under the first masks."""

        def one(own: tuple, common: Common) -> Tensors:
            run, scores, key = own
            learner = with_numbers(self.learner, run.numbers)
            decided = _at(common.decided, run.place)
            counts = jax.tree.map(jnp.int32, learner.first_counts(self.network, run.counts))
            run = possible_counts(run._replace(counts=counts), self.network, decided)
            masks = as_decided(learner.masks(learner.below(scores, decided), run, key), decided)
            images = jnp.asarray(common.train.images)[:SCALE_IMAGES]
            tensors = {**_at(common.sources, run.place), **common.stored}
            return self.network.measured_gains(tensors, self.gates(masks), images)

        return self.lanes.over(one, (runs, scores, keys), common)

    @functools.partial(jax.jit, static_argnums=0)
    def begin(self, scores: Tensors, keys: jax.Array) -> State:
        """The state of each run before the first epoch."""
        optimizer = self.learner.optimizer(self.epochs, self.examples)
        return jax.vmap(lambda scores, key: begin(scores, key=key, optimizer=optimizer))(scores, keys)

    @functools.partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)
    def advance(self, state: State, common: Common, runs: Run, keys: jax.Array, epochs: int) -> tuple[State, History]:
        """Train all runs for some more epochs; histories have the validation split under the masks that are left."""

        def one(own: tuple, common: Common) -> tuple[State, History]:
            state, run, key = own
            learner: ScoreLearner = with_numbers(self.learner, run.numbers)
            decided = _at(common.decided, run.place)
            run = possible_counts(run, self.network, decided)
            tensors = {**_at(common.sources, run.place), **common.stored, **run.gains}

            def logits(masks: Tensors, images: jax.Array) -> jax.Array:
                return self.network.module(tensors, self.gates(masks))(images)  # type: ignore[operator]

            def loss(scores, images, labels, key):
                scores = learner.below(scores, decided)
                found = logits(as_decided(learner.masks(scores, run, key), decided), images)
                value = optax.softmax_cross_entropy_with_integer_labels(found, labels).mean()
                return value + learner.penalty(scores, run), {}

            def validated(scores: Tensors) -> History:
                chosen = learner.chosen(learner.below(scores, decided), run, jax.random.fold_in(key, _LAST))
                masks = {name: mask.astype(jnp.float32) for name, mask in as_decided(chosen, decided).items()}
                found = on_split(lambda images: logits(masks, images), common.validation)
                return {f"validation_{name}": value for name, value in found.items()}

            return advance(
                loss,
                state,
                common.train,
                optimizer=learner.optimizer(self.epochs, self.examples),
                epochs=epochs,
                batch_size=learner.batch_size,
                measure=validated if len(common.validation) else None,
                project=learner.projected,
                between=lambda scores, epoch: learner.between(learner.below(scores, decided), run, epoch, self.epochs),
                augment=augment(learner.augment),
            )

        return self.lanes.over(one, (state, runs, keys), common)

    @functools.partial(jax.jit, static_argnums=0)
    def chosen(self, scores: Tensors, decided: Tensors, runs: Run, keys: jax.Array) -> Tensors:
        """The boolean masks that are left; decided: as in `Common`."""

        def one(own: tuple, decided: Tensors) -> Tensors:
            scores, run, key = own
            learner, fixed = with_numbers(self.learner, run.numbers), _at(decided, run.place)
            run = possible_counts(run, self.network, fixed)
            chosen = learner.chosen(learner.below(scores, fixed), run, jax.random.fold_in(key, _LAST))
            return as_decided(chosen, fixed)

        return self.lanes.over(one, (scores, runs, keys), decided)


def _at(tensors: Tensors, place: jax.Array) -> Tensors:
    return {name: tensor[place] for name, tensor in tensors.items()}
