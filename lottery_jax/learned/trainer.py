"""The compiled training of scores: one program for all runs (seed, kept fraction) of a learner on a source."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.lanes import over_lanes, stacked
from lottery_jax.learned.scores import Tensors, keep_counts, kept_factors
from lottery_jax.networks.gates import FixedGate
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Gate
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training import History, State, advance, begin, drive

if TYPE_CHECKING:
    from lottery_jax.learned.search import ScoreLearner

SCALE_IMAGES = 256  # training images that the gains are measured on
_LAST = 2**31 - 1  # folded into a run's key for what is chosen at random when the training is over


class Run(NamedTuple):
    """What a run is given: the place of its seed [R], kept counts {name: [R]} and in all [R], gains {name: [R]}."""

    place: jax.Array
    counts: Tensors
    total: jax.Array
    gains: Tensors


def train_runs(
    trainer: "Trainer",
    dataset: Dataset,
    runs: Sequence[tuple[int, float | None]],
    stored: Mapping[str, np.ndarray],
    start: Mapping[int, Ticket],
    progress: Progress,
) -> list[Ticket | None]:
    """The tickets of runs (seed, keep) that one program trains, None for those that diverged."""
    network, learner = trainer.network, trainer.learner
    seeds = list(dict.fromkeys(seed for seed, _ in runs))
    asked = [1.0 if keep is None else keep for _, keep in runs]
    counts = stacked(keep_counts(network, keep) for keep in asked)
    size = sum(drawn.size for drawn in network.drawn.values())
    totals = jnp.asarray(np.array([kept_count(keep, size) for keep in asked], np.int32))
    redraws = {seed: {name: ticket.redraws(name) for name in network.drawn} for seed, ticket in start.items()}
    first = {seed: learner.initial(network, seed) for seed in seeds}
    first |= {seed: learner.started(first[seed], start[seed].masks) for seed in seeds if seed in start}
    scores = stacked(first[seed] for seed, _ in runs)
    # Where weights are drawn again in a training, each run has its own; else those of one seed share them.
    drawn_for = [seed for seed, _ in runs] if learner.renews else seeds
    sources = stacked(network.draw(seed, redraws.get(seed)) for seed in drawn_for)
    fixed = {name: jnp.asarray(value) for name, value in stored.items()}
    train = Split(jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels))
    gains = {name: jnp.asarray(np.full(len(runs), gain, np.float32)) for name, gain in network.gains.items()}
    places = range(len(runs)) if learner.renews else [seeds.index(seed) for seed, _ in runs]
    run = Run(jnp.asarray(np.array(places, np.int32)), counts, totals, gains)
    keys = jnp.stack([jax.random.key(seed % 2**32) for seed, _ in runs])
    if learner.normalise:
        run = run._replace(gains=trainer.unit_gains(sources, fixed, train, run, scores, keys))
    again = [redraws.get(seed, {}) for seed, _ in runs]

    def advance_by(state: State, epochs: int) -> tuple[State, History]:
        nonlocal sources, again
        epoch = int(state.epoch[0])
        if learner.renews and epoch:
            masks = jax.device_get(trainer.chosen(state.parameters, run, keys))
            own = [{name: mask[at] for name, mask in masks.items()} for at in range(len(runs))]
            again = [learner.renewed(network, seed, epoch, own[at], again[at]) for at, (seed, _) in enumerate(runs)]
            sources = stacked(network.draw(seed, again[at]) for at, (seed, _) in enumerate(runs))
        return trainer.advance(state, sources, fixed, train, run, epochs)

    state = trainer.begin(scores, keys)
    part = 1 if learner.renews else None
    state, history = drive(advance_by, state, epochs=trainer.epochs, progress=progress, part=part)
    finite = np.all(
        [np.isfinite(s).reshape(len(runs), -1).all(1) for s in jax.device_get(state.parameters).values()], 0
    )
    masks, gains = jax.device_get((trainer.chosen(state.parameters, run, keys), run.gains))
    tickets: list[Ticket | None] = []
    for at, (seed, keep) in enumerate(runs):
        if not finite[at]:
            tickets.append(None)
            continue
        own = {name: mask[at] for name, mask in masks.items()}
        factors = kept_factors(network, own, learner.rescaling)
        tickets.append(
            make_ticket(
                network.with_gains(
                    {name: float(np.float32(values[at] * factors[name])) for name, values in gains.items()}
                ),
                seed=seed,
                masks=own,
                method=learner.name,
                stored=stored,
                redraws=again[at],
                settings={
                    **dataclasses.asdict(learner),
                    "epochs": trainer.epochs,
                    "data": dataset.name,
                    **({} if keep is None else {"keep": float(keep)}),
                    "loss": float(history["loss"][at, -1]),
                },
            )
        )
    return tickets


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The compiled parts of a training, over the runs [R]; `sources` are one per seed.

    Equal trainers share their compiled programs, from one call of `learn` to the next.
    """

    network: Network
    learner: "ScoreLearner"
    epochs: int
    examples: int
    together: int

    def optimizer(self) -> optax.GradientTransformation:
        return self.learner.optimizer(self.epochs, self.examples)

    def gates(self, scores: Tensors, run: Run, key: jax.Array) -> Callable[[str], Gate]:
        """The gates of a step."""
        masks = self.learner.masks(scores, run, key)
        if power := self.learner.rescaling:
            masks = {name: mask * (mask.size / jnp.maximum(mask.sum(), 1)) ** power for name, mask in masks.items()}
        return lambda name: FixedGate(masks[name])

    @functools.partial(jax.jit, static_argnums=0)
    def unit_gains(
        self, sources: Tensors, fixed: Tensors, train: Split, runs: Run, scores: Tensors, keys: jax.Array
    ) -> Tensors:
        """Gains {name: [R]} for unit outputs under the first masks."""

        def one(arguments):
            run, scores, key = arguments
            counts = jax.tree.map(jnp.int32, self.learner.first_counts(self.network, run.counts))
            images = jnp.asarray(train.images)[:SCALE_IMAGES]
            tensors = {**_at(sources, run.place), **fixed}
            gates = self.gates(scores, run._replace(counts=counts), key)
            return self.network.measured_gains(tensors, gates, images)

        return over_lanes(one, (runs, scores, keys), self.together)

    @functools.partial(jax.jit, static_argnums=0)
    def begin(self, scores: Tensors, keys: jax.Array) -> State:
        """The state of each run before the first epoch."""
        return jax.vmap(lambda scores, key: begin(scores, key=key, optimizer=self.optimizer()))(scores, keys)

    @functools.partial(jax.jit, static_argnums=(0, 6), donate_argnums=1)
    def advance(
        self, state: State, sources: Tensors, fixed: Tensors, train: Split, runs: Run, epochs: int
    ) -> tuple[State, History]:
        """Train all runs for some more epochs."""

        def one(arguments):
            state, run = arguments
            tensors = {**_at(sources, run.place), **fixed, **run.gains}

            def loss(scores, images, labels, key):
                logits = self.network.module(tensors, self.gates(scores, run, key))(images)  # type: ignore[operator]
                value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
                return value + self.learner.penalty(scores, run), {}

            return advance(
                loss,
                state,
                train,
                optimizer=self.optimizer(),
                epochs=epochs,
                batch_size=self.learner.batch_size,
                project=self.learner.projected,
                between=lambda scores, epoch: self.learner.between(scores, run, epoch, self.epochs),
            )

        return over_lanes(one, (state, runs), self.together)

    @functools.partial(jax.jit, static_argnums=0)
    def chosen(self, scores: Tensors, runs: Run, keys: jax.Array) -> Tensors:
        """The boolean masks that are left."""

        def one(arguments):
            scores, run, key = arguments
            return self.learner.chosen(scores, run, jax.random.fold_in(key, _LAST))

        return over_lanes(one, (scores, runs, keys), self.together)


def _at(tensors: Tensors, place: jax.Array) -> Tensors:
    return {name: tensor[place] for name, tensor in tensors.items()}
