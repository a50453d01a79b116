"""The driver of score learners: one compiled program for all seeds, kept fractions and hyperparameters."""

import dataclasses
import functools
import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Split
from lottery_jax.data.augment import augment
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.score_learner import RunInputs, ScoreLearner
from lottery_jax.mask_learning.scores import Tensors, apply_forced, forced_weights, keep_counts
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.node import FixedGate, Gate, child_path
from lottery_jax.networks.target import listed
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.checkpoints import Checkpoint, ExtraArrays
from lottery_jax.training.learner import (
    Learner,
    RunSpec,
    TrainingRequest,
    check_fits,
    hyperparameters_of,
    settings_of,
    with_hyperparameters,
    without_hyperparameters,
)
from lottery_jax.training.loop import History, State, advance, begin, drive, on_split, steps_per_epoch
from lottery_jax.training.losses import TaskLoss
from lottery_jax.training.optimizers import OptaxOptimizer
from lottery_jax.training.parallel_runs import (
    ParallelRuns,
    SweepProgram,
    padded_group,
    parallel_runs,
    stacked,
    train_sweep,
)

SCALE_IMAGES = 256  # training images on which the gains are measured

_FINAL = 2**31 - 1  # folded into the key of a run for the masks of its ticket


def train_scores(
    learner: ScoreLearner,
    source: Network,
    request: TrainingRequest,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    warm_start: Mapping[int, Ticket] | None = None,
) -> list[Ticket]:
    """Train scores on frozen random weights; arguments, result and errors are those of `Learner.sweep`.

    `warm_start` has for each seed a ticket on this source: its masks are the first masks, and its redraws are kept.
    """
    warm_start, dataset = warm_start or {}, request.dataset
    check_source(source, request)
    if warm_start and not all(
        learner.init is None and seed in warm_start and warm_start[seed].network.random_tensors == source.random_tensors
        for seed in request.seeds
    ):
        raise InputError(
            f"`warm_start` must have a ticket on this source for each seed of {tuple(request.seeds)}, without"
            f" `init`, got seeds {tuple(warm_start)} and init={learner.init!r}. Change one of them."
        )

    def program_for(runs: Sequence[RunSpec], progress: Progress) -> SweepProgram:
        static = without_hyperparameters(runs[0].learner)
        layout = parallel_runs(static.runs_per_step, len(runs), source.source_weights)
        network = static.prepare(source)
        trainer = _Trainer(network, static, request.epochs, len(dataset.train), layout, request.task_loss)

        def configuration(group: Sequence[RunSpec]) -> dict[str, Any]:
            digests = {str(seed): hashlib.sha256(own.to_bytes()).hexdigest() for seed, own in warm_start.items()}
            return request.configuration(trainer.network, padded_group(group, layout.width), warm_start=digests)

        def train(group: Sequence[RunSpec], progress: Progress) -> list[Ticket | None]:
            padded = padded_group(group, layout.width)
            checkpoint = request.checkpoints and request.checkpoints.of(configuration(group))
            return _train_group(trainer, padded, request, warm_start, progress, checkpoint)[: len(group)]

        return SweepProgram(train, configuration, layout.width, request.epochs)

    return train_sweep(fitting_points(learner, grid, len(dataset.train)), request, program_for)


def fitting_points(learner: Learner, grid: Mapping[str, Sequence[Any]] | None, examples: int) -> list[Learner]:
    """The learner at each point of a grid, with batches of at most `examples`."""
    points = learner.points(grid or {})
    for index, point in enumerate(points):
        points[index] = dataclasses.replace(point, batch_size=min(point.batch_size, examples))  # type: ignore[attr-defined,call-arg]
    return points


def check_source(source: Network, request: TrainingRequest) -> None:
    """Refuse a source that does not fit the data or the stored tensors; raises `InputError`."""
    check_fits(source, request.dataset, "source")
    if not source.random_tensors:
        raise InputError("the source has no random weights, so there are no masks to learn. Use a random source.")
    stored = jax.tree.map(np.shape, dict(request.stored))
    if stored != source.tensors:
        raise InputError(
            f"`stored` must hold {listed(source.tensors)}, the tensors of the source that are not random, got"
            f" {listed(stored)}. Give those of the target."
        )


class _SharedInputs(NamedTuple):
    """Inputs that runs share."""

    sources: Tensors
    """Random tensors [S, ...] of each source."""
    forced: Tensors
    """Their forced mask entries, int8 [S, ...]."""
    stored: Tensors
    train: Split
    validation: Split


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """The compiled functions of a training of `layout.width` runs [R]; equal trainers share their programs.

    The learner has no hyperparameters, because each run has its own.
    """

    network: Network
    learner: ScoreLearner
    epochs: int
    examples: int
    layout: ParallelRuns
    task_loss: TaskLoss

    def optimizer(self, learner: ScoreLearner) -> optax.GradientTransformation:
        if isinstance(learner.optimizer, OptaxOptimizer):
            return learner.optimizer.transformation
        return learner.default_optimizer(self.epochs * steps_per_epoch(self.examples, learner.batch_size))

    def inputs(self, run: RunInputs, shared: _SharedInputs) -> tuple[ScoreLearner, RunInputs, Tensors, Tensors]:
        """The learner of a run, the run with possible kept counts, its tensors and its forced mask entries."""
        learner = with_hyperparameters(self.learner, run.hyperparameters)
        own = operator.itemgetter(run.source_index)
        drawn, forced = jax.tree.map(own, (shared.sources, shared.forced))
        run = _with_possible_counts(run, self.network, forced) if forced else run
        return learner, run, drawn | shared.stored, forced

    def gates(self, masks: Tensors) -> Callable[[str], Gate]:
        if power := self.learner.rescaling:
            masks = {name: mask * (mask.size / jnp.maximum(mask.sum(), 1)) ** power for name, mask in masks.items()}
        return lambda name: FixedGate(masks[name])

    @functools.partial(jax.jit, static_argnums=0)
    def unit_gains(self, shared: _SharedInputs, runs: RunInputs, scores: Tensors, keys: jax.Array) -> Tensors:
        """Gains {name: [R]} that give each layer's output root mean square 1 under the first masks."""

        def one(own: tuple[RunInputs, Tensors, jax.Array], shared: _SharedInputs) -> Tensors:
            run, scores, key = own
            counts = jax.tree.map(jnp.int32, self.learner.initial_counts(self.network, run.counts))
            learner, run, tensors, forced = self.inputs(run._replace(counts=counts), shared)
            masks = apply_forced(learner.masks(learner.force_scores(scores, forced), run, key), forced)
            images = jnp.asarray(shared.train.images)[:SCALE_IMAGES]
            return self.network.measured_gains(tensors, self.gates(masks), images)

        return self.layout.map(one, (runs, scores, keys), shared)

    @functools.partial(jax.jit, static_argnums=0)
    def begin(self, scores: Tensors, keys: jax.Array) -> State:
        """The state of each run before the first epoch."""
        optimizer = self.optimizer(self.learner)
        return jax.vmap(functools.partial(begin, optimizer=optimizer))(scores, key=keys)

    @functools.partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)
    def advance(
        self, state: State, shared: _SharedInputs, runs: RunInputs, keys: jax.Array, epochs: int
    ) -> tuple[State, History]:
        """Train all runs for `epochs` more epochs; the history has the validation split under the final masks."""

        def one(own: tuple[State, RunInputs, jax.Array], shared: _SharedInputs) -> tuple[State, History]:
            state, run, key = own
            learner, run, tensors, forced = self.inputs(run, shared)
            tensors |= run.gains

            def logits(masks: Tensors, images: jax.Array) -> jax.Array:
                return self.network.module(tensors, self.gates(masks))(images)  # type: ignore[operator]

            def loss(scores: Tensors, images: jax.Array, labels: jax.Array, key: Any) -> tuple[jax.Array, dict]:
                scores = learner.force_scores(scores, forced)
                outputs = logits(apply_forced(learner.masks(scores, run, key), forced), images)
                return self.task_loss.mean(outputs, labels) + learner.penalty(scores, run), {}

            def validate(scores: Tensors) -> History:
                masks = jax.tree.map(jnp.float32, _final_masks(learner, scores, run, forced, key))
                own = functools.partial(logits, masks)
                return on_split(own, shared.validation, self.task_loss, prefix="validation_")

            def on_epoch_end(scores: Tensors, epoch: jax.Array) -> Tensors:
                return learner.on_epoch_end(learner.force_scores(scores, forced), run, epoch, self.epochs)

            return advance(
                loss,
                state,
                shared.train,
                optimizer=self.optimizer(learner),
                epochs=epochs,
                batch_size=learner.batch_size,
                measure=validate if len(shared.validation) else None,
                project=learner.project_scores,
                on_epoch_end=on_epoch_end,
                augment=augment(learner.augment),
            )

        return self.layout.map(one, (state, runs, keys), shared)

    @functools.partial(jax.jit, static_argnums=0)
    def final_masks(self, scores: Tensors, shared: _SharedInputs, runs: RunInputs, keys: jax.Array) -> Tensors:
        """The masks of the tickets, bool {name: [R, ...]}."""

        def one(own: tuple[Tensors, RunInputs, jax.Array], shared: _SharedInputs) -> Tensors:
            scores, run, key = own
            learner, run, _, forced = self.inputs(run, shared)
            return _final_masks(learner, scores, run, forced, key)

        return self.layout.map(one, (scores, runs, keys), shared)


def _final_masks(learner: ScoreLearner, scores: Tensors, run: RunInputs, forced: Tensors, key: jax.Array) -> Tensors:
    scores, key = learner.force_scores(scores, forced), jax.random.fold_in(key, _FINAL)
    return apply_forced(learner.final_masks(scores, run, key), forced)


def _with_possible_counts(run: RunInputs, network: Network, forced: Tensors) -> RunInputs:
    """The run with kept counts between the numbers of locked and of present weights."""
    locked = {name: (own > 0).sum(dtype=jnp.int32) for name, own in forced.items()}
    present = {name: (own >= 0).sum(dtype=jnp.int32) for name, own in forced.items()}
    counts = {
        name: jnp.clip(count, locked[name], present[name]) if name in present else count
        for name, count in run.counts.items()
    }
    free = jnp.int32(sum(drawn.size for name, drawn in network.random_tensors.items() if name not in present))
    least, most = sum(locked.values(), jnp.int32(0)), sum(present.values(), free)
    return run._replace(counts=counts, total=jnp.clip(run.total, least, most))


class _RunRedraws(ExtraArrays):
    """The redraws of each run, in the form of extra arrays of a checkpoint."""

    def set(self, run: int, redraws: Redraws) -> None:
        self.update({f"{run} {name}": rows for name, rows in redraws.items()})

    def of(self, run: int) -> Redraws:
        redraws, prefix = {}, f"{run} "
        for name, rows in self.items():
            if name.startswith(prefix):
                redraws[name.removeprefix(prefix)] = rows
        return redraws


def _train_group(
    trainer: _Trainer,
    runs: Sequence[RunSpec],
    request: TrainingRequest,
    warm_start: Mapping[int, Ticket],
    progress: Progress,
    checkpoint: Checkpoint | None,
) -> list[Ticket | None]:
    """The tickets of the runs of one call of the program, None for runs that diverged."""
    network, learner, dataset = trainer.network, trainer.learner, request.dataset
    first_run, source_runs, source_indices, scores, keys = dict[int, int](), [], [], [], []
    redraws = _RunRedraws()
    for index, run in enumerate(runs):
        first = first_run.setdefault(run.seed, index)
        own = scores[first] if first < index else learner.initial(network, run.seed)
        if run.seed in warm_start:
            ticket = warm_start[run.seed]
            own = own if first < index else learner.warm_start_scores(own, ticket.masks)
            redraws.set(index, {name: ticket.redraws(name) for name in network.random_tensors})
        # Runs of one seed share their source, unless each run redraws its own weights.
        if first == index or learner.resamples:
            source_runs.append(index)
        source_indices.append(len(source_runs) - 1 if source_runs[-1] == index else source_indices[first])
        scores.append(own)
        keys.append(jax.random.key(run.seed % 2**32))

    def draw() -> tuple[Tensors, Tensors]:
        sources, forced = [], []
        for index in source_runs:
            own = redraws.of(index)
            sources.append(network.draw(runs[index].seed, own))
            forced.append(forced_weights(network, runs[index].seed, own))
        return stacked(sources), stacked(forced)

    inputs_on_host = (*draw(), dict(request.stored), dataset.train, dataset.validation)
    shared = _SharedInputs(*trainer.layout.replicate(inputs_on_host))
    first_scores, keys = stacked(scores), jnp.stack(keys)
    inputs = _run_inputs(network, runs, source_indices)
    if learner.scale == "unit":
        inputs = inputs._replace(gains=trainer.unit_gains(shared, inputs, first_scores, keys))

    def advance_by(state: State, epochs: int) -> tuple[State, History]:
        nonlocal shared
        if learner.resamples and (epoch := int(state.epoch[0])):
            masks = jax.device_get(trainer.final_masks(state.parameters, shared, inputs, keys))
            for index, run in enumerate(runs):
                own = jax.tree.map(operator.itemgetter(index), masks)
                redraws.set(index, run.learner.resample(network, run.seed, epoch, own, redraws.of(index)))
            sources, forced = trainer.layout.replicate(draw())
            shared = shared._replace(sources=sources, forced=forced)
        return trainer.advance(state, shared, inputs, keys, epochs)

    state, history = drive(
        advance_by,
        trainer.begin(first_scores, keys),
        epochs=trainer.epochs,
        progress=progress,
        epochs_per_call=1 if learner.resamples else None,
        checkpoint=checkpoint,
        extra=redraws,
    )
    masks = trainer.final_masks(state.parameters, shared, inputs, keys)
    results = jax.device_get((state.parameters, masks, inputs.gains, history))
    tickets: list[Ticket | None] = []
    for index, run in enumerate(runs):
        last_scores, masks, gains, by_epoch = jax.tree.map(operator.itemgetter(index), results)
        if not np.isfinite(np.concatenate(list(map(np.ravel, last_scores.values())))).all():
            tickets.append(None)
            continue
        for name, factor in run.learner.gain_factors(network, run.seed, masks).items():
            gains[name] = float(np.float32(gains[name] * factor))
        ticket = make_ticket(
            network.with_gains(gains),
            seed=run.seed,
            masks=masks,
            method=learner.name,
            stored=request.stored,
            redraws=redraws.of(index),
            settings={
                **settings_of(run.learner),
                "epochs": trainer.epochs,
                "data": dataset.name,
                **request.loss_settings,
                **({} if run.keep is None else {"keep": float(run.keep)}),
                "loss": float(by_epoch["loss"][-1]),
                "by_epoch": jax.tree.map(np.ndarray.tolist, by_epoch),
            },
        )
        tickets.append(ticket)
    return tickets


def _run_inputs(network: Network, runs: Sequence[RunSpec], source_indices: Sequence[int]) -> RunInputs:
    """The inputs of the runs, with the gains of the source, or those of `scale="keep"`."""
    size = sum(map(operator.attrgetter("size"), network.random_tensors.values()))
    counts, totals, hyperparameters, gains = [], [], [], []
    for run in runs:
        keep = 1.0 if run.keep is None else run.keep
        counts.append(keep_counts(network, keep))
        totals.append(np.asarray(kept_count(keep, size), np.int32))
        hyperparameters.append(jax.tree.map(np.float32, hyperparameters_of(run.learner)))
        gains.append(jax.tree.map(np.float32, network.gains))
    counts, gains = stacked(counts), stacked(gains)
    if runs[0].learner.scale == "keep":
        for path, source in network.sources.items():
            for name in source.random_tensors():
                tensor = child_path(path, name)
                kept, size = np.maximum(np.asarray(counts[tensor]), 1), network.random_tensors[tensor].size
                gains[child_path(path, "gain")] *= np.sqrt(size / kept).astype(np.float32)
    indices = np.array(source_indices, np.int32)
    return RunInputs(*jax.tree.map(jnp.asarray, (indices, counts, np.stack(totals), gains, stacked(hyperparameters))))
