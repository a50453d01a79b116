"""Edge-popup (Ramanujan et al. 2020, arXiv 1911.13299): train a score per frozen weight, keep the top ones.

The forward pass uses the masked random network; the gradient passes through the selection to |score|. The
kept count of each tensor is a traced number, so one compiled program trains every kept fraction and seed.

Scale: a bias-free ReLU network is positively homogeneous, so the gains of all layers act as one factor on the
logits. It decides how fast scores learn, and published samplers fix it for one kept fraction only. Here each
layer's gain is set so that its output has root mean square 1 on the first training images, under the first
masks (`normalise=True`), for any sampler and any kept fraction. The first edges of gadgets all count as kept in
this: at random both edges of a path are kept with probability keep**2, but training soon aligns them.
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
from lottery_jax.learned.scores import Tensors, edge_tensors, gates, initial_scores, keep_counts
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import listed
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.progress import Progress, unseen
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training import History, State, advance, begin, check_finite, drive, steps_per_epoch

SCALE_IMAGES = 256  # training images that the gains are measured on


@dataclasses.dataclass(frozen=True)
class EdgePopup(Learner):
    """Edge-popup (Ramanujan et al. 2020): a trained score for each frozen random weight; the top ones are kept.

    SGD with momentum and a cosine learning rate; exactly round(keep * size) are kept of each tensor. The defaults are
    those of Pensia et al., Experiment 2. One compiled program trains all runs.
    """

    name: ClassVar[str] = "edge-popup"

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
    together: int | None = None
    """Runs that share a step by vmap; one on a CPU, where each core has its own, and all elsewhere if left out."""

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
    ) -> list[Ticket]:
        """As in `Learner`; raises `InputError` where source and data do not fit, or the training diverges."""
        given, output = source.given, source.output
        if given is None or output is None or (given.shape, output.shape) != (dataset.shape, (dataset.classes,)):
            raise InputError(
                f"the source maps {given and list(given.shape)} to {output and list(output.shape)} but {dataset.name}"
                f" has examples of {list(dataset.shape)} and {dataset.classes} classes; choose one that fits"
            )
        if not source.drawn:
            raise InputError("the source has no random weights to learn masks of; make one of `learned.sources`")
        held = {name: np.shape(value) for name, value in (stored or {}).items()}
        if held != source.tensors:
            raise InputError(
                f"the source's tensors that are not random are {listed(source.tensors)}, and `stored` holds"
                f" {listed(held)}; give those of the target"
            )
        together = self.together
        if not (len(seeds) and len(keeps)) or (together is not None and together < 1):
            raise InputError(f"{len(seeds)} seeds, {len(keeps)} keeps, together={together}; give at least 1 of each")
        width = together or (1 if jax.default_backend() == "cpu" else len(seeds) * len(keeps))
        learner = dataclasses.replace(self, batch_size=min(self.batch_size, len(dataset.train)))
        trainer = _Trainer(source, learner, epochs, len(dataset.train), width)
        runs = list(itertools.product(seeds, keeps))
        groups = [runs[at : at + width] for at in range(0, len(runs), width)]
        done, told, turn = [0] * len(groups), 0, threading.Lock()

        def train(group: int) -> list[Ticket]:
            def seen(epoch: int, _: int) -> None:
                nonlocal told
                with turn:
                    done[group] = epoch
                    if (mean := sum(done) // len(done)) > told:
                        told = mean
                        progress(told, epochs)

            return _train(trainer, dataset, groups[group], stored or {}, unseen if progress is unseen else seen)

        # The first one compiles for all. A step of one run leaves most of a CPU idle, so the others share it.
        tickets = train(0)
        with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) if width == 1 else 1) as pool:
            return tickets + list(itertools.chain.from_iterable(pool.map(train, range(1, len(groups)))))

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


def _train(
    trainer: "_Trainer",
    dataset: Dataset,
    runs: Sequence[tuple[int, float]],
    stored: Mapping[str, np.ndarray],
    progress: Progress,
) -> list[Ticket]:
    """The tickets of runs (seed, keep) that one program trains."""
    network, normalise = trainer.network, trainer.learner.normalise
    seeds = list(dict.fromkeys(seed for seed, _ in runs))
    places = np.array([seeds.index(seed) for seed, _ in runs], np.int32)
    # Rows are picked on the host: on a device each pick would be compiled.
    counts = _stack([keep_counts(network, keep) for _, keep in runs])
    scores = _stack([initial_scores(network, seed) for seed in seeds], places)
    sources = _stack([network.draw(seed) for seed in seeds])
    fixed = {name: jnp.asarray(value) for name, value in stored.items()}
    train = Split(jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels))
    gains = {name: jnp.asarray(np.full(len(runs), gain, np.float32)) for name, gain in network.gains.items()}
    place = jnp.asarray(places)
    if normalise:
        gains = trainer.unit_gains(sources, fixed, train, _Run(place, counts, gains), scores)
    run = _Run(place, counts, gains)
    keys = jnp.stack([jax.random.key(seed % 2**32) for seed, _ in runs])
    state = trainer.begin(scores, keys)
    state, history = drive(
        lambda state, part: trainer.advance(state, sources, fixed, train, run, part),
        state,
        epochs=trainer.epochs,
        progress=progress,
    )
    check_finite(state.parameters, "edge-popup")
    masks, gains = jax.device_get((trainer.masks(state.parameters, counts), gains))
    return [
        make_ticket(
            network.with_gains({name: float(values[at]) for name, values in gains.items()}),
            seed=seed,
            masks={name: mask[at] for name, mask in masks.items()},
            method="edge-popup",
            stored=stored,
            settings={
                **dataclasses.asdict(trainer.learner),
                "epochs": trainer.epochs,
                "data": dataset.name,
                "keep": float(keep),
                "loss": float(history["loss"][at, -1]),
            },
        )
        for at, (seed, keep) in enumerate(runs)
    ]


class _Run(NamedTuple):
    """What a run is given: the place of its seed [R], kept counts {name: [R]}, gains {name: [R]}."""

    place: jax.Array
    counts: Tensors
    gains: Tensors


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """The compiled parts of a training, over the runs [R]; `sources` are one per seed.

    Equal trainers share their compiled programs, from one call of `learn` to the next.
    """

    network: Network
    learner: EdgePopup
    epochs: int
    examples: int
    together: int

    def optimizer(self) -> optax.GradientTransformation:
        return self.learner.optimizer(self.epochs, self.examples)

    def over_runs(self, one: Callable, arguments: tuple) -> Any:
        # A vmap of width 1 would make matrix products twice as slow on a CPU as a loop does.
        return jax.lax.map(one, arguments, batch_size=self.together if self.together > 1 else None)

    @functools.partial(jax.jit, static_argnums=0)
    def unit_gains(self, sources: Tensors, fixed: Tensors, train: Split, runs: _Run, scores: Tensors) -> Tensors:
        """Gains {name: [R]} for unit outputs under the first masks."""
        edges = edge_tensors(self.network)

        def one(arguments):
            run, scores = arguments
            counts = {name: scores[name].size if name in edges else run.counts[name] for name in scores}
            images = jnp.asarray(train.images)[:SCALE_IMAGES]
            tensors = {**_at(sources, run.place), **fixed}
            return self.network.measured_gains(tensors, gates(scores, jax.tree.map(jnp.int32, counts)), images)

        return self.over_runs(one, (runs, scores))

    @functools.partial(jax.jit, static_argnums=0)
    def begin(self, scores: Tensors, keys: jax.Array) -> State:
        """The state of each run before the first epoch."""
        return jax.vmap(lambda scores, key: begin(scores, key=key, optimizer=self.optimizer()))(scores, keys)

    @functools.partial(jax.jit, static_argnums=(0, 6), donate_argnums=1)
    def advance(
        self, state: State, sources: Tensors, fixed: Tensors, train: Split, runs: _Run, epochs: int
    ) -> tuple[State, History]:
        """Train all runs for some more epochs."""

        def one(arguments):
            state, run = arguments
            tensors = {**_at(sources, run.place), **fixed, **run.gains}

            def loss(scores, images, labels, key):
                logits = self.network.module(tensors, gates(scores, run.counts))(images)  # type: ignore[operator]
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), {}

            return advance(
                loss,
                state,
                train,
                optimizer=self.optimizer(),
                epochs=epochs,
                batch_size=self.learner.batch_size,
            )

        return self.over_runs(one, (state, runs))

    @functools.partial(jax.jit, static_argnums=0)
    def masks(self, scores: Tensors, counts: Tensors) -> Tensors:
        """Boolean masks of the scores."""
        return self.over_runs(lambda run: jax.tree.map(lambda s, c: top_k_mask(s, c) > 0, *run), (scores, counts))


def _stack(trees: Sequence, places: Any = slice(None)) -> Tensors:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)[places]), *trees)


def _at(tensors: Tensors, place: jax.Array) -> Tensors:
    return {name: tensor[place] for name, tensor in tensors.items()}
