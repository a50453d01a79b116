"""Masks by an evolution strategy on their scores, without gradients: what remains where there are none, and a baseline.

Each generation draws scores around a mean, keeps the top ones of each (as edge-popup does, exactly round(keep * size)
of each tensor), and ranks these masks by their loss on one batch; the mean moves toward the better ones (Salimans et
al. 2017, arXiv 1703.03864, section 2: OpenAI's strategy with mirrored samples and centred ranks, from the library
evosax). The ticket has the top scores of the last mean.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import digest
from lottery_jax.mask_learning.score_learner import check_source
from lottery_jax.mask_learning.scores import (
    Tensors,
    apply_forced,
    edge_tensors,
    forced_scores,
    forced_weights,
    keep_counts,
)
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.checkpoints import Checkpoints, name_of
from lottery_jax.training.learner import Learner, check_runs
from lottery_jax.training.loop import drive, steps_per_epoch
from lottery_jax.training.parallel_runs import OnEpochs, Shared, in_groups

_SCALE_IMAGES = 256  # training images that the gains are measured on

_MOST_WEIGHTS = 1 << 28  # of masked networks side by side, where nobody says how many


@dataclasses.dataclass(frozen=True)
class Evolution(Learner):
    """Evolution strategy (Salimans et al. 2017): masks of the top scores, found by their loss alone, without gradients.

    Each batch of an epoch is a generation. Memory holds a few populations of scores, and of networks those that are run
    side by side.
    """

    name: ClassVar[str] = "evolution"
    sources: ClassVar[tuple[str, ...]] = ("plain",)
    shares: ClassVar[bool] = True

    population: int = 64
    """Masks of a generation, an even number."""
    batch_size: int = 32
    """Examples that the masks of a generation are compared on."""
    learning_rate: float = 0.3
    """Learning rate of Adam on the mean, in deviations of the population; it falls to zero along a cosine."""
    runs_per_step: int | None = None
    """Masks that are run side by side; one on a CPU, and as many as memory holds elsewhere if left out."""

    def __post_init__(self) -> None:
        if type(self.population) is not int or self.population < 2 or self.population % 2:
            raise InputError(f"population must be an even number from 2 up, not {self.population!r}")
        if not 0 < self.learning_rate < np.inf:
            raise InputError(f"the learning rate is {self.learning_rate}; it must be positive and finite")

    def learn(
        self,
        source: Network,
        dataset: Dataset,
        *,
        seeds: Sequence[int],
        keeps: Sequence[float],
        epochs: int,
        stored: Mapping[str, np.ndarray] | None = None,
        progress: Progress = no_progress,
        checkpoints: Checkpoints | None = None,
    ) -> list[Ticket]:
        """As in `Learner`; raises `InputError` where source and data do not fit, or evosax is not there."""
        _strategies()
        check_runs(seeds, keeps, epochs, self.runs_per_step)
        check_source(source, dataset, stored or {})
        counts = {keep: keep_counts(source, keep) for keep in keeps}
        learner = dataclasses.replace(self, batch_size=min(self.batch_size, len(dataset.train)))
        search = _Search(source, learner, epochs, len(dataset.train))

        def train(group: Sequence[tuple[int, float]], tell: OnEpochs | None) -> list[Ticket | None]:
            seen = no_progress if tell is None else lambda epoch, _: tell(epoch)
            return [
                search.run(dataset, seed, keep, counts[keep], stored or {}, seen, checkpoints) for seed, keep in group
            ]

        def name(group: Sequence[tuple[int, float]]) -> str:
            (run,) = group
            return name_of(search.configuration(dataset, *run, stored or {}))

        runs = list(itertools.product(seeds, keeps))
        shared = checkpoints and Shared(checkpoints, name)
        told = None if progress is no_progress else lambda epoch: progress(epoch, epochs)
        found = []
        for (seed, keep), ticket in zip(runs, in_groups(train, runs, 1, told, shared), strict=True):
            if ticket is None:
                log.warning("%s, seed %d, keep %g: its losses are no numbers; no ticket", self.name, seed, keep)
            else:
                found.append(ticket)
        if not found:
            raise InputError(f"the losses of {self.name} are no numbers in every run; look at the data")
        return found


class _State(NamedTuple):
    """The strategy's own state after so many epochs."""

    strategy: Any
    epoch: jax.Array


class _Given(NamedTuple):
    """What a run is given: tensors by name, what the seed decides of masks, kept counts, examples and key."""

    tensors: Tensors
    forced: Tensors
    counts: Tensors
    train: Split
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class _Search:
    """The compiled parts of a search; equal ones share their programs."""

    network: Network
    learner: Evolution
    epochs: int
    examples: int

    def strategy(self) -> Any:
        """evosax's strategy on scores of all tensors, with deviation 1."""
        steps = self.epochs * steps_per_epoch(self.examples, self.learner.batch_size)
        rate = optax.cosine_decay_schedule(self.learner.learning_rate, steps)
        shapes = {name: jnp.zeros(drawn.shape) for name, drawn in self.network.random_tensors.items()}
        return _strategies().Open_ES(self.learner.population, shapes, optimizer=optax.adam(rate))

    def run(
        self,
        dataset: Dataset,
        seed: int,
        keep: float,
        kept: Mapping[str, np.ndarray],
        stored: Mapping[str, np.ndarray],
        progress: Progress,
        checkpoints: Checkpoints | None,
    ) -> Ticket | None:
        """The ticket of one run, None if its losses are no numbers."""
        random = self.network.draw(seed)
        tensors = {name: jnp.asarray(value) for name, value in {**random, **stored}.items()}
        counts = {name: jnp.asarray(count) for name, count in kept.items()}
        train = Split(jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels))
        forced = jax.tree.map(jnp.asarray, forced_weights(self.network, seed))
        given = _Given(tensors, forced, counts, train, jax.random.key(seed % 2**32))
        gains = self.gains(given)
        given = given._replace(tensors={**tensors, **gains})
        state, history = drive(
            lambda state, epochs: self.advance(state, given, epochs),
            self.begin(given),
            epochs=self.epochs,
            progress=progress,
            checkpoint=checkpoints and checkpoints.of(self.configuration(dataset, seed, keep, stored)),
        )
        losses = np.asarray(history["loss"])
        if not np.isfinite(losses).all():
            return None
        masks = jax.device_get(self.final_masks(state, given))
        return make_ticket(
            self.network.with_gains({name: float(gain) for name, gain in gains.items()}),
            seed=seed,
            masks=masks,
            method=self.learner.name,
            stored=stored,
            settings={
                **dataclasses.asdict(self.learner),
                "epochs": self.epochs,
                "data": dataset.name,
                "keep": float(keep),
                "loss": float(losses[-1]),
                "by_epoch": {"loss": losses.tolist()},
            },
        )

    def configuration(
        self, dataset: Dataset, seed: int, keep: float, stored: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """Everything that a search depends on."""
        return {
            "learner": [self.learner.name, dataclasses.asdict(self.learner)],
            "run": [seed, keep, self.epochs],
            "network": self.network.to_json(),
            "data": dataset.fingerprint,
            "stored": digest("", {name: np.asarray(value) for name, value in stored.items()}),
        }

    def runs_per_step(self) -> int:
        """Masks that are run side by side."""
        if self.learner.runs_per_step is not None:
            return self.learner.runs_per_step
        held = 1 if jax.default_backend() == "cpu" else _MOST_WEIGHTS // self.network.source_weights
        return max(1, min(self.learner.population, held))

    def masks(self, scores: Tensors, counts: Tensors, forced: Tensors) -> Tensors:
        """The top scores of each tensor, float32, among the weights that are there, and what is locked."""
        sizes = forced_scores({name: jnp.exp(score) for name, score in scores.items()}, forced, 0.0, np.inf)
        masks = {}
        for name, size in sizes.items():
            locked = (forced[name] > 0).sum(dtype=jnp.int32) if name in forced else 0
            masks[name] = top_k_mask(size, jnp.maximum(counts[name], locked))
        return apply_forced(masks, forced)

    @functools.partial(jax.jit, static_argnums=0)
    def gains(self, given: _Given) -> Tensors:
        """Gains that make outputs units, under the first of the masks that are drawn around zero."""
        edges = edge_tensors(self.network)
        scores, counts = {}, {}
        for place, (name, drawn) in enumerate(self.network.random_tensors.items()):
            scores[name] = jax.random.normal(jax.random.fold_in(given.key, np.uint32(place)), drawn.shape)
            counts[name] = jnp.int32(drawn.size) if name in edges else given.counts[name]
        masks = self.masks(scores, counts, given.forced)
        images = jnp.asarray(given.train.images)[:_SCALE_IMAGES]
        return self.network.measured_gains(given.tensors, lambda name: FixedGate(masks[name]), images)

    @functools.partial(jax.jit, static_argnums=0)
    def begin(self, given: _Given) -> _State:
        """The state before the first epoch: a mean of zeros."""
        with jax.numpy_dtype_promotion("standard"):
            strategy = self.strategy()
            state = strategy.init(given.key, strategy.solution, strategy.default_params)
        return _State(jax.tree.map(jnp.asarray, state), jnp.zeros((), jnp.int32))

    @functools.partial(jax.jit, static_argnums=(0, 3), donate_argnums=1)
    def advance(self, state: _State, given: _Given, epochs: int) -> tuple[_State, dict[str, jax.Array]]:
        """Some more epochs, each a generation for every batch; the mean loss of each."""
        strategy, size = self.strategy(), self.learner.batch_size
        images, labels = jnp.asarray(given.train.images), jnp.asarray(given.train.labels)
        steps = steps_per_epoch(self.examples, size)

        def generation(state: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            rows, key = batch
            ask, tell = jax.random.split(key)

            def loss(scores: Tensors) -> jax.Array:
                masks = self.masks(scores, given.counts, given.forced)
                logits = self.network.module(given.tensors, lambda name: FixedGate(masks[name]))(images[rows])  # type: ignore[operator]
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

            with jax.numpy_dtype_promotion("standard"):  # evosax mixes its integers and floats
                scores, state = strategy.ask(ask, state, strategy.default_params)
            runs_per_step = self.runs_per_step()
            losses = jax.lax.map(loss, scores, batch_size=runs_per_step if runs_per_step > 1 else None)
            with jax.numpy_dtype_promotion("standard"):
                state, _ = strategy.tell(tell, scores, losses, state, strategy.default_params)
            return state, losses.mean()

        def one_epoch(state: _State, _: None) -> tuple[_State, dict[str, jax.Array]]:
            order, keys = jax.random.split(jax.random.fold_in(given.key, state.epoch))
            rows = jax.random.permutation(order, self.examples)[: steps * size].reshape(steps, size)
            new, losses = jax.lax.scan(generation, state.strategy, (rows, jax.random.split(keys, steps)))
            return _State(new, state.epoch + 1), {"loss": losses.mean()}

        return jax.lax.scan(one_epoch, state, length=epochs)

    @functools.partial(jax.jit, static_argnums=0)
    def final_masks(self, state: _State, given: _Given) -> Tensors:
        """The masks of the mean, bool."""
        scores = self.strategy().get_mean(state.strategy)
        return {name: mask > 0 for name, mask in self.masks(scores, given.counts, given.forced).items()}


def _strategies() -> Any:
    try:
        from evosax.algorithms import distribution_based
    except ImportError as error:
        raise InputError("the learner evolution needs evosax; pip install 'lottery_jax[evolution]'") from error
    return distribution_based
