"""Runs of a learner: what each is given, what is kept while they are trained, and the tickets that they leave."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.checkpoints import Beside, Checkpoints
from lottery_jax.data import Dataset, Split
from lottery_jax.lanes import stacked
from lottery_jax.learned.base import numbers_of
from lottery_jax.learned.decided import decided_weights
from lottery_jax.learned.scores import keep_counts
from lottery_jax.learned.trainer import Common, Run, Trainer
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.node import child_path
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress
from lottery_jax.storage.sealed import digest
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training import History, State, drive

if TYPE_CHECKING:
    from lottery_jax.learned.search import ScoreLearner


class Asked(NamedTuple):
    """One training: the learner with its numbers, a seed, and the kept fraction where there is one."""

    learner: "ScoreLearner"
    seed: int
    keep: float | None


def train_runs(
    trainer: Trainer,
    dataset: Dataset,
    runs: Sequence[Asked],
    stored: Mapping[str, np.ndarray],
    start: Mapping[int, Ticket],
    progress: Progress,
    checkpoints: Checkpoints | None,
) -> list[Ticket | None]:
    """The tickets of runs that one program trains, None for those that diverged."""
    network, learner = trainer.network, trainer.learner
    seeds = list(dict.fromkeys(run.seed for run in runs))
    redraws = {seed: {name: ticket.redraws(name) for name in network.drawn} for seed, ticket in start.items()}
    first = {seed: learner.initial(network, seed) for seed in seeds}
    first |= {seed: learner.started(first[seed], start[seed].masks) for seed in seeds if seed in start}
    scores = stacked(first[run.seed] for run in runs)
    # Where weights are drawn again in a training, each run has its own; else those of one seed share them.
    drawn_for = [run.seed for run in runs] if learner.renews else seeds
    again = _Redrawn([redraws.get(run.seed, {}) for run in runs])
    fixed = {name: jnp.asarray(value) for name, value in stored.items()}
    sources = [network.draw(seed, redraws.get(seed)) for seed in drawn_for]
    common = trainer.lanes.common(
        Common(
            stacked(sources),
            stacked(decided_weights(network, seed, redraws.get(seed)) for seed in drawn_for),
            fixed,
            *(Split(jnp.asarray(s.images), jnp.asarray(s.labels)) for s in (dataset.train, dataset.validation)),
        )
    )
    places = range(len(runs)) if learner.renews else [seeds.index(run.seed) for run in runs]
    run = _as_run(network, runs, places)
    keys = jnp.stack([jax.random.key(run.seed % 2**32) for run in runs])
    if learner.scale == "unit":
        run = run._replace(gains=trainer.unit_gains(common, run, scores, keys))

    def advance_by(state: State, epochs: int) -> tuple[State, History]:
        nonlocal common
        if learner.renews and (epoch := int(state.epoch[0])):
            masks = jax.device_get(trainer.chosen(state.parameters, common.decided, run, keys))
            for at, (own, seed, _) in enumerate(runs):
                kept = {name: mask[at] for name, mask in masks.items()}
                again.set(at, own.renewed(network, seed, epoch, kept, again.of(at)))
            drawn = [network.draw(own.seed, again.of(at)) for at, own in enumerate(runs)]
            decided = [decided_weights(network, own.seed, again.of(at)) for at, own in enumerate(runs)]
            new = {"sources": stacked(drawn), "decided": stacked(decided)}
            common = common._replace(**trainer.lanes.common(new))
        return trainer.advance(state, common, run, keys, epochs)

    state, history = drive(
        advance_by,
        trainer.begin(scores, keys),
        epochs=trainer.epochs,
        progress=progress,
        part=1 if learner.renews else None,
        checkpoint=checkpoints and checkpoints.of(run_configuration(trainer, dataset, runs, stored, start)),
        more=again,
    )
    finite = np.all(
        [np.isfinite(s).reshape(len(runs), -1).all(1) for s in jax.device_get(state.parameters).values()], 0
    )
    masks, gains = jax.device_get((trainer.chosen(state.parameters, common.decided, run, keys), run.gains))
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


def _as_run(network: Network, runs: Sequence[Asked], places: Sequence[int]) -> Run:
    """What the runs are given, gains as drawn or as their kept fractions ask."""
    asked = [1.0 if run.keep is None else run.keep for run in runs]
    counts = [keep_counts(network, keep) for keep in asked]
    size = sum(drawn.size for drawn in network.drawn.values())
    totals = jnp.asarray(np.array([kept_count(keep, size) for keep in asked], np.int32))
    gains = {name: np.full(len(runs), gain, np.float32) for name, gain in network.gains.items()}
    if runs[0].learner.scale == "keep":
        for path, source in network.sources.items():
            for name in source.drawn():
                own = child_path(path, name)
                kept = np.array([max(int(count[own]), 1) for count in counts])
                gains[child_path(path, "gain")] *= np.float32(np.sqrt(network.drawn[own].size / kept))
    numbers = stacked({k: np.float32(v) for k, v in numbers_of(run.learner).items()} for run in runs)
    placed = {name: jnp.asarray(gain) for name, gain in gains.items()}
    return Run(jnp.asarray(np.array(places, np.int32)), stacked(counts), totals, placed, numbers)


def run_configuration(
    trainer: Trainer,
    dataset: Dataset,
    runs: Sequence[Asked],
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


class _Redrawn(Beside):
    """The redraws of each run, by place and tensor."""

    def __init__(self, redraws: Sequence[Redraws]) -> None:
        for at, own in enumerate(redraws):
            self.set(at, own)

    def set(self, at: int, redraws: Redraws) -> None:
        self.update({f"{at} {name}": rows for name, rows in redraws.items()})

    def of(self, at: int) -> Redraws:
        own = f"{at} "
        return {name.removeprefix(own): rows for name, rows in self.items() if name.startswith(own)}
