"""Masks by an evolution strategy on scores, without gradients (Salimans et al. 2017, arXiv 1703.03864, section 2).

Each generation samples scores around a mean, and ranks the masks of their top scores by the loss on one batch; the mean
moves toward the better ones. The strategy is OpenAI's, with mirrored samples and centred ranks, from the library
evosax. The ticket has the top scores of the last mean, exactly round(keep * size) of each tensor.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Split
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.scores import (
    Tensors,
    apply_forced,
    edge_tensors,
    forced_scores,
    forced_weights,
    keep_counts,
)
from lottery_jax.mask_learning.train_scores import SCALE_IMAGES, check_source, fitting_points
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.progress import Progress
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.learner import Learner, RunSpec, TrainingRequest
from lottery_jax.training.loop import drive, steps_per_epoch
from lottery_jax.training.losses import TaskLoss
from lottery_jax.training.optimizers import check_learning_rate
from lottery_jax.training.parallel_runs import SweepProgram, train_sweep

_MAX_WEIGHTS = 1 << 28  # of masked networks that are evaluated in parallel by default


def evolve(
    learner: "Evolution",
    source: Network,
    request: TrainingRequest,
    grid: Mapping[str, Sequence[Any]] | None = None,
) -> list[Ticket]:
    """Search for masks of frozen random weights without gradients; arguments and result as of `Learner.sweep`."""
    _strategies()
    check_source(source, request)
    points = fitting_points(learner, grid, len(request.dataset.train))

    def train(group: Sequence[RunSpec], progress: Progress) -> list[Ticket | None]:
        return [_search(source, run, request, progress) for run in group]

    program = SweepProgram(train, lambda group: request.configuration(source, group), width=1, epochs=request.epochs)
    return train_sweep(points, request, lambda runs, progress: program)


@dataclasses.dataclass(frozen=True)
class Evolution(Learner):
    """Evolution strategy (Salimans et al. 2017): masks of the top scores, found by their loss alone, without gradients.

    Each batch of an epoch is a generation. Memory holds a few populations of scores.
    """

    name: ClassVar[str] = "evolution"
    sources: ClassVar[tuple[str, ...]] = ("plain",)
    shares: ClassVar[bool] = True

    learn = sweep = evolve

    population: int = 64
    """Masks of a generation, an even number."""
    batch_size: int = 32
    """Batch size on which the masks of a generation are compared."""
    learning_rate: float = 0.3
    """Learning rate of Adam on the mean, in deviations of the population; it falls to zero along a cosine."""
    runs_per_step: int | None = None
    """Masks that are evaluated in parallel. Default: 1 on a CPU, elsewhere as many as fit into memory."""

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        if type(self.population) is not int or self.population < 2 or self.population % 2:
            raise InputError(f"`population` must be an even number from 2 up, got {self.population!r}. Change it.")
        if self.runs_per_step is not None and self.runs_per_step < 1:
            raise InputError(f"`runs_per_step` must be at least 1, got {self.runs_per_step}. Give a positive number.")


class _State(NamedTuple):
    """The state of evosax's strategy after `epoch` epochs."""

    strategy: Any
    epoch: jax.Array


class _Inputs(NamedTuple):
    """Inputs of a run: tensors and forced mask entries by name, kept counts, examples and key."""

    tensors: Tensors
    forced: Tensors
    counts: Tensors
    train: Split
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class _Search:
    """The compiled functions of a search; equal ones share their programs."""

    network: Network
    learner: Evolution
    epochs: int
    examples: int
    task_loss: TaskLoss

    def strategy(self) -> Any:
        """evosax's strategy on the scores of all tensors, with deviation 1."""
        steps = self.epochs * steps_per_epoch(self.examples, self.learner.batch_size)
        rate = optax.cosine_decay_schedule(self.learner.learning_rate, steps)
        shapes = {name: jnp.zeros(drawn.shape) for name, drawn in self.network.random_tensors.items()}
        return _strategies().Open_ES(self.learner.population, shapes, optimizer=optax.adam(rate))

    def masks(self, scores: Tensors, counts: Tensors, forced: Tensors) -> Tensors:
        """The masks of the top scores of each tensor, float32, without absent weights and with locked ones."""
        sizes = forced_scores({name: jnp.exp(score) for name, score in scores.items()}, forced, 0.0, np.inf)
        masks = {}
        for name, size in sizes.items():
            locked = (forced[name] > 0).sum(dtype=jnp.int32) if name in forced else 0
            masks[name] = top_k_mask(size, jnp.maximum(counts[name], locked))
        return apply_forced(masks, forced)

    @functools.partial(jax.jit, static_argnums=0)
    def gains(self, inputs: _Inputs) -> Tensors:
        """Gains that give each layer's output root mean square 1 under a mask of scores sampled around zero."""
        edges = edge_tensors(self.network)
        scores, counts = {}, {}
        for index, (name, drawn) in enumerate(self.network.random_tensors.items()):
            scores[name] = jax.random.normal(jax.random.fold_in(inputs.key, np.uint32(index)), drawn.shape)
            counts[name] = jnp.int32(drawn.size) if name in edges else inputs.counts[name]
        masks = self.masks(scores, counts, inputs.forced)
        images = jnp.asarray(inputs.train.images)[:SCALE_IMAGES]
        return self.network.measured_gains(inputs.tensors, lambda name: FixedGate(masks[name]), images)

    @functools.partial(jax.jit, static_argnums=0)
    def begin(self, inputs: _Inputs) -> _State:
        """The state before the first epoch: a mean of zeros."""
        with jax.numpy_dtype_promotion("standard"):
            strategy = self.strategy()
            state = strategy.init(inputs.key, strategy.solution, strategy.default_params)
        return _State(jax.tree.map(jnp.asarray, state), jnp.zeros((), jnp.int32))

    @functools.partial(jax.jit, static_argnums=(0, 3), donate_argnums=1)
    def advance(self, state: _State, inputs: _Inputs, epochs: int) -> tuple[_State, dict[str, jax.Array]]:
        """Train for `epochs` more epochs, with a generation for each batch; the history has the mean losses."""
        strategy, size = self.strategy(), self.learner.batch_size
        images, labels = jnp.asarray(inputs.train.images), jnp.asarray(inputs.train.labels)
        steps = steps_per_epoch(self.examples, size)
        fitting = 1 if jax.default_backend() == "cpu" else max(1, _MAX_WEIGHTS // self.network.source_weights)
        runs_per_step = self.learner.runs_per_step or min(self.learner.population, fitting)

        def generation(state: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            rows, key = batch
            ask, tell = jax.random.split(key)

            def loss(scores: Tensors) -> jax.Array:
                masks = self.masks(scores, inputs.counts, inputs.forced)
                logits = self.network.module(inputs.tensors, lambda name: FixedGate(masks[name]))(images[rows])  # type: ignore[operator]
                return self.task_loss.mean(logits, labels[rows])

            with jax.numpy_dtype_promotion("standard"):  # evosax mixes its integers and floats
                scores, state = strategy.ask(ask, state, strategy.default_params)
            losses = jax.lax.map(loss, scores, batch_size=runs_per_step if runs_per_step > 1 else None)
            with jax.numpy_dtype_promotion("standard"):
                state, _ = strategy.tell(tell, scores, losses, state, strategy.default_params)
            return state, losses.mean()

        def one_epoch(state: _State, _: None) -> tuple[_State, dict[str, jax.Array]]:
            order, keys = jax.random.split(jax.random.fold_in(inputs.key, state.epoch))
            rows = jax.random.permutation(order, self.examples)[: steps * size].reshape(steps, size)
            new, losses = jax.lax.scan(generation, state.strategy, (rows, jax.random.split(keys, steps)))
            return _State(new, state.epoch + 1), {"loss": losses.mean()}

        return jax.lax.scan(one_epoch, state, length=epochs)

    @functools.partial(jax.jit, static_argnums=0)
    def final_masks(self, state: _State, inputs: _Inputs) -> Tensors:
        """The masks of the mean, bool."""
        scores = self.strategy().get_mean(state.strategy)
        return {name: mask > 0 for name, mask in self.masks(scores, inputs.counts, inputs.forced).items()}


def _search(network: Network, run: RunSpec, request: TrainingRequest, progress: Progress) -> Ticket | None:
    """The ticket of one run, None if its loss is not finite."""
    assert run.keep is not None
    dataset = request.dataset
    search = _Search(network, run.learner, request.epochs, len(dataset.train), request.task_loss)
    tensors = jax.tree.map(jnp.asarray, {**network.draw(run.seed), **request.stored})
    forced = jax.tree.map(jnp.asarray, forced_weights(network, run.seed))
    counts = jax.tree.map(jnp.asarray, keep_counts(network, run.keep))
    train = Split(jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels))
    inputs = _Inputs(tensors, forced, counts, train, jax.random.key(run.seed % 2**32))
    gains = search.gains(inputs)
    inputs = inputs._replace(tensors={**tensors, **gains})
    state, history = drive(
        lambda state, epochs: search.advance(state, inputs, epochs),
        search.begin(inputs),
        epochs=search.epochs,
        progress=progress,
        checkpoint=request.checkpoints and request.checkpoints.of(request.configuration(network, [run])),
    )
    losses = np.asarray(history["loss"])
    if not np.isfinite(losses).all():
        return None
    return make_ticket(
        network.with_gains({name: float(gain) for name, gain in gains.items()}),
        seed=run.seed,
        masks=jax.device_get(search.final_masks(state, inputs)),
        method=run.learner.name,
        stored=request.stored,
        settings={
            **dataclasses.asdict(run.learner),
            "epochs": search.epochs,
            "data": dataset.name,
            **request.loss_settings,
            "keep": float(run.keep),
            "loss": float(losses[-1]),
            "by_epoch": {"loss": losses.tolist()},
        },
    )


def _strategies() -> Any:
    try:
        from evosax.algorithms import distribution_based
    except ImportError as error:
        raise InputError("the learner evolution needs evosax. Run pip install 'lottery_jax[evolution]'.") from error
    return distribution_based
