"""Scores trained by gradient on frozen random weights: what all such learners share, one program for all their runs.

A learner says what its scores begin as, which differentiable mask they make in a step, and which bits they leave.
Kept counts, gains and keys are traced numbers, so that one compiled program trains every kept fraction and seed.

Scale: a bias-free ReLU network is positively homogeneous, so the gains of all layers act as one factor on the
logits. It decides how fast scores learn, and published samplers fix it for one kept fraction only. Here each
layer's gain is set so that its output has root mean square 1 on the first training images, under the first
masks (`normalise=True`), for any sampler and any kept fraction.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.learned.base import Learner
from lottery_jax.learned.inits import reinitialised
from lottery_jax.learned.scores import Tensors, keep_counts, kept_factors
from lottery_jax.networks.gates import FixedGate
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Gate
from lottery_jax.networks.target import listed
from lottery_jax.progress import Progress, log, unseen
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training import History, State, advance, begin, drive, steps_per_epoch

SCALE_IMAGES = 256  # training images that the gains are measured on
_LAST = 2**31 - 1  # folded into a run's key for what is chosen at random when the training is over


class Run(NamedTuple):
    """What a run is given: the place of its seed [R], kept counts {name: [R]} and in all [R], gains {name: [R]}."""

    place: jax.Array
    counts: Tensors
    total: jax.Array
    gains: Tensors


@dataclasses.dataclass(frozen=True)
class ScoreLearner(Learner):
    """Scores of frozen random weights, trained by SGD with momentum and a cosine learning rate."""

    batch_size: int = 64
    """Examples of a step."""
    learning_rate: float = 0.1
    """Learning rate at the start; it falls to zero along a cosine."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay of the scores."""
    normalise: bool = True
    """Give each layer's output root mean square 1 at the start, for each kept fraction."""
    init: str | None = None
    """Distribution of the random weights of a plain source: kaiming-normal, kaiming-uniform, xavier-normal,
    xavier-uniform, signed-constant; as the source has it if left out."""
    together: int | None = None
    """Runs that share a step by vmap; one on a CPU, where each core has its own, and all elsewhere if left out."""

    rescaling: ClassVar[float] = 0.0
    """What is kept of a tensor is multiplied by (size / kept) to this power, in a step and in the ticket."""

    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        """Scores before training, float32 by tensor."""
        raise NotImplementedError

    def started(self, scores: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """First scores under which what these masks keep comes first."""
        return {
            name: np.copysign(np.abs(score) + np.abs(score).max() * masks[name], score)
            for name, score in scores.items()
        }

    def masks(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        """The masks of a step, float32 by tensor; gradients reach the scores. key: for what is drawn."""
        raise NotImplementedError

    def chosen(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        """The bits that are left when the training is over, bool by tensor."""
        return {name: mask > 0 for name, mask in self.masks(scores, run, key).items()}

    def penalty(self, scores: Tensors, run: Run) -> jax.Array:
        """What is added to the loss."""
        return jnp.float32(0)

    def projected(self, old: Tensors, new: Tensors) -> Tensors:
        """The scores after a step, from those before it."""
        return new

    def between(self, scores: Tensors, run: Run, epoch: jax.Array, epochs: int) -> Tensors:
        """The scores after an epoch, `epoch` counted from 0."""
        return scores

    def first_counts(self, network: Network, counts: Tensors) -> dict[str, Any]:
        """The kept counts under which gains are measured."""
        return counts

    def optimizer(self, epochs: int, examples: int) -> optax.GradientTransformation:
        """The optimiser of a whole training on this many examples."""
        if not 0 < self.learning_rate < np.inf:
            raise InputError(f"the learning rate is {self.learning_rate}; it must be positive and finite")
        if epochs < 1:
            raise InputError(f"the number of epochs is {epochs}; it must be at least 1")
        steps = epochs * steps_per_epoch(examples, self.batch_size)
        rate = optax.cosine_decay_schedule(self.learning_rate, steps)
        decay = optax.add_decayed_weights(self.weight_decay)
        return optax.chain(decay, optax.sgd(rate, momentum=self.momentum))

    def learn(
        self,
        source: Network,
        dataset: Dataset,
        *,
        seeds: Sequence[int],
        keeps: Sequence[float],
        epochs: int,
        stored: Mapping[str, np.ndarray] | None = None,
        progress: Progress = unseen,
        start: Mapping[int, Ticket] | None = None,
    ) -> list[Ticket]:
        """As in `Learner`; raises `InputError` where source and data do not fit, or every training diverges.

        start: for each seed a ticket on this source, with whose masks the scores begin; its redraws are taken over.
        """
        runs = self._runs(seeds, keeps)
        for seed in seeds if start else ():
            assert start is not None
            if seed not in start or start[seed].network.drawn != source.drawn or self.init is not None:
                raise InputError(
                    f"there is no ticket on this source for the seed {seed} to start from; give one for each seed, and"
                    " no init"
                )
        check_source(source, dataset, stored or {})
        source = source if self.init is None else reinitialised(source, self.init)
        width = self.together or (1 if jax.default_backend() == "cpu" else len(runs))
        learner = dataclasses.replace(self, batch_size=min(self.batch_size, len(dataset.train)))
        trainer = Trainer(source, learner, epochs, len(dataset.train), width)
        groups = [runs[at : at + width] for at in range(0, len(runs), width)]
        done, told, turn = [0] * len(groups), 0, threading.Lock()

        def train(group: int) -> list[Ticket | None]:
            def seen(epoch: int, _: int) -> None:
                nonlocal told
                with turn:
                    done[group] = epoch
                    if (mean := sum(done) // len(done)) > told:
                        told = mean
                        progress(told, epochs)

            told_to = unseen if progress is unseen else seen
            return _train(trainer, dataset, groups[group], stored or {}, start or {}, told_to)

        # The first one compiles for all. A step of one run leaves most of a CPU idle, so the others share it.
        tickets = train(0)
        with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) if width == 1 else 1) as pool:
            tickets += itertools.chain.from_iterable(pool.map(train, range(1, len(groups))))
        found = []
        for (seed, keep), ticket in zip(runs, tickets, strict=True):
            if ticket is not None:
                found.append(ticket)
                continue
            kept = "" if keep is None else f", keep {keep:g}"
            log.warning("%s, seed %d%s diverged: no ticket; lower the learning rate", self.name, seed, kept)
        if not found:
            raise InputError(f"training of {self.name} diverged in every run; lower the learning rate")
        return found

    def _runs(self, seeds: Sequence[int], keeps: Sequence[float]) -> list[tuple[int, float | None]]:
        if not self.sweeps and len(keeps):
            raise InputError(f"{self.name} finds its kept fraction by itself; leave out the keeps {tuple(keeps)}")
        wanted = list(keeps) if self.sweeps else [None]
        if not (len(seeds) and len(wanted)) or (self.together is not None and self.together < 1):
            raise InputError(
                f"{len(seeds)} seeds, {len(wanted)} keeps, together={self.together}; give at least 1 of each"
            )
        return list(itertools.product(seeds, wanted))


def check_source(source: Network, dataset: Dataset, stored: Mapping[str, np.ndarray]) -> None:
    """Refuse a source that does not fit the data, or what is stored beside it; raises `InputError`."""
    given, output = source.given, source.output
    if given is None or output is None or (given.shape, output.shape) != (dataset.shape, (dataset.classes,)):
        raise InputError(
            f"the source maps {given and list(given.shape)} to {output and list(output.shape)} but {dataset.name}"
            f" has examples of {list(dataset.shape)} and {dataset.classes} classes; choose one that fits"
        )
    if not source.drawn:
        raise InputError("the source has no random weights to learn masks of; make one of `learned.sources`")
    held = {name: np.shape(value) for name, value in stored.items()}
    if held != source.tensors:
        raise InputError(
            f"the source's tensors that are not random are {listed(source.tensors)}, and `stored` holds"
            f" {listed(held)}; give those of the target"
        )


def _train(
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
    places = np.array([seeds.index(seed) for seed, _ in runs], np.int32)
    # Rows are picked on the host: on a device each pick would be compiled.
    counts = _stack([keep_counts(network, 1.0 if keep is None else keep) for _, keep in runs])
    size = sum(drawn.size for drawn in network.drawn.values())
    totals = jnp.asarray(np.array([size if keep is None else round(keep * size) for _, keep in runs], np.int32))
    redraws = {seed: {name: ticket.redraws(name) for name in network.drawn} for seed, ticket in start.items()}
    first = {seed: learner.initial(network, seed) for seed in seeds}
    first |= {seed: learner.started(first[seed], start[seed].masks) for seed in seeds if seed in start}
    scores = _stack([first[seed] for seed in seeds], places)
    sources = _stack([network.draw(seed, redraws.get(seed)) for seed in seeds])
    fixed = {name: jnp.asarray(value) for name, value in stored.items()}
    train = Split(jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels))
    gains = {name: jnp.asarray(np.full(len(runs), gain, np.float32)) for name, gain in network.gains.items()}
    run = Run(jnp.asarray(places), counts, totals, gains)
    keys = jnp.stack([jax.random.key(seed % 2**32) for seed, _ in runs])
    if learner.normalise:
        run = run._replace(gains=trainer.unit_gains(sources, fixed, train, run, scores, keys))
    state = trainer.begin(scores, keys)
    state, history = drive(
        lambda state, part: trainer.advance(state, sources, fixed, train, run, part),
        state,
        epochs=trainer.epochs,
        progress=progress,
    )
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
                redraws=redraws.get(seed),
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
    learner: ScoreLearner
    epochs: int
    examples: int
    together: int

    def optimizer(self) -> optax.GradientTransformation:
        return self.learner.optimizer(self.epochs, self.examples)

    def over_runs(self, one: Callable, arguments: tuple) -> Any:
        # A vmap of width 1 would make matrix products twice as slow on a CPU as a loop does.
        return jax.lax.map(one, arguments, batch_size=self.together if self.together > 1 else None)

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

        return self.over_runs(one, (runs, scores, keys))

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

        return self.over_runs(one, (state, runs))

    @functools.partial(jax.jit, static_argnums=0)
    def chosen(self, scores: Tensors, runs: Run, keys: jax.Array) -> Tensors:
        """The boolean masks that are left."""

        def one(arguments):
            scores, run, key = arguments
            return self.learner.chosen(scores, run, jax.random.fold_in(key, _LAST))

        return self.over_runs(one, (scores, runs, keys))


def _stack(trees: Sequence, places: Any = slice(None)) -> Tensors:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)[places]), *trees)


def _at(tensors: Tensors, place: jax.Array) -> Tensors:
    return {name: tensor[place] for name, tensor in tensors.items()}
