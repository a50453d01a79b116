"""The compiled training of scores: one program for all runs (seed, kept fraction, numbers) of a learner on a source.

What the seed decides of masks, in a training: absent weights are in none, locked ones in every one.

No score changes that, and kept counts are of what is possible: all that is locked at least, all that is there at most.
Runs of a learner: what each is given, what is kept while they are trained, and the tickets that they leave.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.data.augment import augment
from lottery_jax.io.checksummed_file import digest
from lottery_jax.mask_learning.scores import Tensors, apply_forced, forced_weights, keep_counts
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.node import FixedGate, Gate, child_path
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.checkpoints import Checkpoints, ExtraArrays
from lottery_jax.training.learner import numbers_of, with_numbers
from lottery_jax.training.loop import History, State, advance, begin, drive, on_split
from lottery_jax.training.parallel_runs import ParallelRuns, stacked

if TYPE_CHECKING:
    from lottery_jax.mask_learning.score_learner import ScoreLearner

SCALE_IMAGES = 256  # training images that the gains are measured on

_LAST = 2**31 - 1  # folded into a run's key for what is chosen at random when the training is over


class RunInputs(NamedTuple):
    """What a run is given: the place of its seed [R], kept counts {name: [R]} and in all [R], gains {name: [R]}.

    numbers: the options of the learner that are floats {name: [R]}.
    """

    place: jax.Array
    counts: Tensors
    total: jax.Array
    gains: Tensors
    numbers: Tensors


class SharedInputs(NamedTuple):
    """What runs share: random tensors {name: [S, ...]} of each seed, stored tensors, and the splits.

    decided: what the seed decides of masks, {name: int8 [S, ...]}, of tensors of which it decides anything.
    """

    sources: Tensors
    forced: Tensors
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
    parallel_runs: ParallelRuns

    def gates(self, masks: Tensors) -> Callable[[str], Gate]:
        """The gates of a step, from its masks."""
        if power := self.learner.rescaling:
            masks = {name: mask * (mask.size / jnp.maximum(mask.sum(), 1)) ** power for name, mask in masks.items()}
        return lambda name: FixedGate(masks[name])

    @functools.partial(jax.jit, static_argnums=0)
    def unit_gains(self, common: SharedInputs, runs: RunInputs, scores: Tensors, keys: jax.Array) -> Tensors:
        """Gains {name: [R]} for unit outputs under the first masks."""

        def one(own: tuple, common: SharedInputs) -> Tensors:
            run, scores, key = own
            learner = with_numbers(self.learner, run.numbers)
            forced = _at(common.forced, run.place)
            counts = jax.tree.map(jnp.int32, learner.first_counts(self.network, run.counts))
            run = possible_counts(run._replace(counts=counts), self.network, forced)
            masks = apply_forced(learner.masks(learner.force_scores(scores, forced), run, key), forced)
            images = jnp.asarray(common.train.images)[:SCALE_IMAGES]
            tensors = {**_at(common.sources, run.place), **common.stored}
            return self.network.measured_gains(tensors, self.gates(masks), images)

        return self.parallel_runs.over(one, (runs, scores, keys), common)

    @functools.partial(jax.jit, static_argnums=0)
    def begin(self, scores: Tensors, keys: jax.Array) -> State:
        """The state of each run before the first epoch."""
        optimizer = self.learner.optimizer(self.epochs, self.examples)
        return jax.vmap(lambda scores, key: begin(scores, key=key, optimizer=optimizer))(scores, keys)

    @functools.partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)
    def advance(
        self, state: State, common: SharedInputs, runs: RunInputs, keys: jax.Array, epochs: int
    ) -> tuple[State, History]:
        """Train all runs for some more epochs; histories have the validation split under the masks that are left."""

        def one(own: tuple, common: SharedInputs) -> tuple[State, History]:
            state, run, key = own
            learner: ScoreLearner = with_numbers(self.learner, run.numbers)
            forced = _at(common.forced, run.place)
            run = possible_counts(run, self.network, forced)
            tensors = {**_at(common.sources, run.place), **common.stored, **run.gains}

            def logits(masks: Tensors, images: jax.Array) -> jax.Array:
                return self.network.module(tensors, self.gates(masks))(images)  # type: ignore[operator]

            def loss(scores, images, labels, key):
                scores = learner.force_scores(scores, forced)
                found = logits(apply_forced(learner.masks(scores, run, key), forced), images)
                value = optax.softmax_cross_entropy_with_integer_labels(found, labels).mean()
                return value + learner.penalty(scores, run), {}

            def validated(scores: Tensors) -> History:
                final_masks = learner.final_masks(
                    learner.force_scores(scores, forced), run, jax.random.fold_in(key, _LAST)
                )
                masks = {name: mask.astype(jnp.float32) for name, mask in apply_forced(final_masks, forced).items()}
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
                project=learner.project_scores,
                on_epoch_end=lambda scores, epoch: learner.on_epoch_end(
                    learner.force_scores(scores, forced), run, epoch, self.epochs
                ),
                augment=augment(learner.augment),
            )

        return self.parallel_runs.over(one, (state, runs, keys), common)

    @functools.partial(jax.jit, static_argnums=0)
    def final_masks(self, scores: Tensors, forced: Tensors, runs: RunInputs, keys: jax.Array) -> Tensors:
        """The boolean masks that are left; decided: as in `SharedInputs`."""

        def one(own: tuple, forced: Tensors) -> Tensors:
            scores, run, key = own
            learner, fixed = with_numbers(self.learner, run.numbers), _at(forced, run.place)
            run = possible_counts(run, self.network, fixed)
            final_masks = learner.final_masks(learner.force_scores(scores, fixed), run, jax.random.fold_in(key, _LAST))
            return apply_forced(final_masks, fixed)

        return self.parallel_runs.over(one, (scores, runs, keys), forced)


def _at(tensors: Tensors, place: jax.Array) -> Tensors:
    return {name: tensor[place] for name, tensor in tensors.items()}


def possible_counts(run: "RunInputs", network: Network, forced: Tensors) -> "RunInputs":
    """The run with kept counts of at least what is locked, and at most what is there."""
    if not forced:
        return run
    locked = {name: (own > 0).sum(dtype=jnp.int32) for name, own in forced.items()}
    there = {name: (own >= 0).sum(dtype=jnp.int32) for name, own in forced.items()}
    counts = {
        name: jnp.clip(count, locked[name], there[name]) if name in there else count
        for name, count in run.counts.items()
    }
    whole = jnp.int32(sum(drawn.size for name, drawn in network.random_tensors.items() if name not in there))
    least, most = sum(locked.values(), jnp.int32(0)), sum(there.values(), whole)
    return run._replace(counts=counts, total=jnp.clip(run.total, least, most))


class RunSpec(NamedTuple):
    """One training: the learner with its numbers, a seed, and the kept fraction where there is one."""

    learner: "ScoreLearner"
    seed: int
    keep: float | None


def train_runs(
    trainer: Trainer,
    dataset: Dataset,
    runs: Sequence[RunSpec],
    stored: Mapping[str, np.ndarray],
    start: Mapping[int, Ticket],
    progress: Progress,
    checkpoints: Checkpoints | None,
) -> list[Ticket | None]:
    """The tickets of runs that one program trains, None for those that diverged."""
    network, learner = trainer.network, trainer.learner
    seeds = list(dict.fromkeys(run.seed for run in runs))
    redraws = {seed: {name: ticket.redraws(name) for name in network.random_tensors} for seed, ticket in start.items()}
    first = {seed: learner.initial(network, seed) for seed in seeds}
    first |= {seed: learner.warm_start_scores(first[seed], start[seed].masks) for seed in seeds if seed in start}
    scores = stacked(first[run.seed] for run in runs)
    # Where weights are drawn again in a training, each run has its own; else those of one seed share them.
    drawn_for = [run.seed for run in runs] if learner.resamples else seeds
    again = _Redrawn([redraws.get(run.seed, {}) for run in runs])
    fixed = {name: jnp.asarray(value) for name, value in stored.items()}
    sources = [network.draw(seed, redraws.get(seed)) for seed in drawn_for]
    common = trainer.parallel_runs.common(
        SharedInputs(
            stacked(sources),
            stacked(forced_weights(network, seed, redraws.get(seed)) for seed in drawn_for),
            fixed,
            *(Split(jnp.asarray(s.images), jnp.asarray(s.labels)) for s in (dataset.train, dataset.validation)),
        )
    )
    places = range(len(runs)) if learner.resamples else [seeds.index(run.seed) for run in runs]
    run = _as_run(network, runs, places)
    keys = jnp.stack([jax.random.key(run.seed % 2**32) for run in runs])
    if learner.scale == "unit":
        run = run._replace(gains=trainer.unit_gains(common, run, scores, keys))

    def advance_by(state: State, epochs: int) -> tuple[State, History]:
        nonlocal common
        if learner.resamples and (epoch := int(state.epoch[0])):
            masks = jax.device_get(trainer.final_masks(state.parameters, common.forced, run, keys))
            for at, (own, seed, _) in enumerate(runs):
                kept = {name: mask[at] for name, mask in masks.items()}
                again.set(at, own.resample(network, seed, epoch, kept, again.of(at)))
            drawn = [network.draw(own.seed, again.of(at)) for at, own in enumerate(runs)]
            forced = [forced_weights(network, own.seed, again.of(at)) for at, own in enumerate(runs)]
            new = {"sources": stacked(drawn), "decided": stacked(forced)}
            common = common._replace(**trainer.parallel_runs.common(new))
        return trainer.advance(state, common, run, keys, epochs)

    state, history = drive(
        advance_by,
        trainer.begin(scores, keys),
        epochs=trainer.epochs,
        progress=progress,
        part=1 if learner.resamples else None,
        checkpoint=checkpoints and checkpoints.of(run_configuration(trainer, dataset, runs, stored, start)),
        more=again,
    )
    finite = np.all(
        [np.isfinite(s).reshape(len(runs), -1).all(1) for s in jax.device_get(state.parameters).values()], 0
    )
    masks, gains = jax.device_get((trainer.final_masks(state.parameters, common.forced, run, keys), run.gains))
    tickets: list[Ticket | None] = []
    for at, (own, seed, keep) in enumerate(runs):
        if not finite[at]:
            tickets.append(None)
            continue
        kept = {name: mask[at] for name, mask in masks.items()}
        factors = learner.gain_factors(network, seed, kept)
        tickets.append(
            make_ticket(
                network.with_gains(
                    {name: float(np.float32(values[at] * factors[name])) for name, values in gains.items()}
                ),
                seed=seed,
                masks=kept,
                method=learner.name,
                stored=stored,
                redraws=again.of(at),
                settings={
                    **dataclasses.asdict(own),
                    "epochs": trainer.epochs,
                    "data": dataset.name,
                    **({} if keep is None else {"keep": float(keep)}),
                    "loss": float(history["loss"][at, -1]),
                    "by_epoch": {name: values[at].tolist() for name, values in history.items()},
                },
            )
        )
    return tickets


def _as_run(network: Network, runs: Sequence[RunSpec], places: Sequence[int]) -> RunInputs:
    """What the runs are given, gains as drawn or as their kept fractions ask."""
    asked = [1.0 if run.keep is None else run.keep for run in runs]
    counts = [keep_counts(network, keep) for keep in asked]
    size = sum(drawn.size for drawn in network.random_tensors.values())
    totals = jnp.asarray(np.array([kept_count(keep, size) for keep in asked], np.int32))
    gains = {name: np.full(len(runs), gain, np.float32) for name, gain in network.gains.items()}
    if runs[0].learner.scale == "keep":
        for path, source in network.sources.items():
            for name in source.random_tensors():
                own = child_path(path, name)
                kept = np.array([max(int(count[own]), 1) for count in counts])
                gains[child_path(path, "gain")] *= np.float32(np.sqrt(network.random_tensors[own].size / kept))
    numbers = stacked({k: np.float32(v) for k, v in numbers_of(run.learner).items()} for run in runs)
    placed = {name: jnp.asarray(gain) for name, gain in gains.items()}
    return RunInputs(jnp.asarray(np.array(places, np.int32)), stacked(counts), totals, placed, numbers)


def run_configuration(
    trainer: Trainer,
    dataset: Dataset,
    runs: Sequence[RunSpec],
    stored: Mapping[str, np.ndarray],
    start: Mapping[int, Ticket],
) -> dict[str, Any]:
    """Everything that a training of some runs depends on, as JSON."""
    return {
        "learner": trainer.learner.name,
        "runs": [[dataclasses.asdict(run.learner), run.seed, run.keep] for run in runs],
        "network": trainer.network.to_json(),
        "data": dataset.fingerprint,
        "epochs": trainer.epochs,
        "stored": digest("", {name: np.asarray(value) for name, value in stored.items()}),
        "start": {str(seed): hashlib.sha256(ticket.to_bytes()).hexdigest() for seed, ticket in start.items()},
    }


class _Redrawn(ExtraArrays):
    """The redraws of each run, by place and tensor."""

    def __init__(self, redraws: Sequence[Redraws]) -> None:
        for at, own in enumerate(redraws):
            self.set(at, own)

    def set(self, at: int, redraws: Redraws) -> None:
        self.update({f"{at} {name}": rows for name, rows in redraws.items()})

    def of(self, at: int) -> Redraws:
        own = f"{at} "
        return {name.removeprefix(own): rows for name, rows in self.items() if name.startswith(own)}
