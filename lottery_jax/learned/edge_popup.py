"""Edge-popup (Ramanujan et al. 2020, arXiv 1911.13299): train a score per frozen weight, keep the top ones.

The forward pass uses the masked random network; the gradient passes through the selection to |score|. The
kept count of each tensor is a traced number, so one compiled program trains every kept fraction and seed.

Scale: a bias-free ReLU network is positively homogeneous, so the gains of all layers act as one factor on the
logits. It decides how fast scores learn, and published samplers fix it for one kept fraction only. Here each
layer's gain is set so that its output has root mean square 1 on the first training images, under the first
masks (`normalise=True`), for any sampler and any kept fraction. The first edges of gadgets all count as kept in
this: at random both edges of a path are kept with probability keep**2, but training soon aligns them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.networks.architecture import Architecture, chain, check, draw_source, source_tensors
from lottery_jax.networks.gates import TopKGate
from lottery_jax.networks.network import MaskedNetwork
from lottery_jax.networks.top_k import kept_count, top_k_mask
from lottery_jax.sampler import Sampler, draw_host
from lottery_jax.ticket import Ticket
from lottery_jax.training import History, State, advance, begin, check_finite, drive, steps_per_epoch

Tensors = dict[str, jax.Array]  # one array per source tensor, by its name
Progress = Callable[[int, int, History], None]

SCALE_IMAGES = 256  # training images that the gains are measured on
SCORE_STREAM = 1 << 31  # scores are drawn from the seed in streams that no source tensor uses


@dataclasses.dataclass(frozen=True)
class Schedule:
    """SGD with momentum and a cosine learning rate; the defaults are those of Pensia et al., Experiment 2."""

    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def optimizer(self, examples: int) -> optax.GradientTransformation:
        """The optimiser of a whole training on this many examples."""
        if not 0 < self.learning_rate < np.inf:
            raise InputError(f"the learning rate is {self.learning_rate}; it must be positive and finite")
        if self.epochs < 1:
            raise InputError(f"the number of epochs is {self.epochs}; it must be at least 1")
        steps = self.epochs * steps_per_epoch(examples, self.batch_size)
        rate = optax.cosine_decay_schedule(self.learning_rate, steps)
        decay = optax.add_decayed_weights(self.weight_decay)
        return optax.chain(decay, optax.sgd(rate, momentum=self.momentum))


def edge_popup(
    architecture: Architecture,
    dataset: Dataset,
    *,
    seeds: Sequence[int],
    keeps: Sequence[float],
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    normalise: bool = True,
    together: int | None = None,
    progress: Progress | None = None,
) -> list[Ticket]:
    """Tickets of every seed and kept fraction, in the order (seed, keep); the seed draws source and scores.

    Exactly `round(keep * size)` weights of each tensor are kept. One compiled program trains all runs,
    `together` of them at a time by vmap and these groups in turn; left out, one at a time on a CPU and all at
    once elsewhere. `progress(done, total, history)` counts epochs. Raises `InputError` where the architecture
    does not fit the data, a keep is outside [0, 1], or the training diverges.
    """
    check(architecture)
    layers = chain(architecture)
    if (layers[0].inputs, layers[-1].outputs) != (dataset.inputs, dataset.classes):
        raise InputError(
            f"the architecture maps {layers[0].inputs} inputs to {layers[-1].outputs} outputs but"
            f" {dataset.name} has {dataset.inputs} and {dataset.classes}; choose one of these sizes"
        )
    if not (len(seeds) and len(keeps)) or (together is not None and together < 1):
        raise InputError(f"{len(seeds)} seeds, {len(keeps)} keeps, together={together}; give at least 1 of each")
    schedule = Schedule(epochs, batch_size, learning_rate, momentum, weight_decay)
    width = together or (1 if jax.default_backend() == "cpu" else len(seeds) * len(keeps))
    trainer = _Trainer(architecture, schedule, len(dataset.train), width)
    optimizer = trainer.optimizer()

    runs = list(itertools.product(seeds, keeps))
    counts = _stack([keep_counts(architecture, keep) for keep in keeps])
    sources = _stack([draw_source(architecture, seed) for seed in seeds])
    scores = _stack([initial_scores(architecture, seed) for seed in seeds])
    train = Split(jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels))
    place, keep_place = (jnp.asarray(index.ravel()) for index in np.indices((len(seeds), len(keeps)), np.int32))
    counts = jax.tree.map(lambda count: count[keep_place], counts)
    scores = jax.tree.map(lambda score: score[place], scores)
    gains = jnp.array([[layer.gain for layer in architecture]] * len(runs), jnp.float32)
    if normalise:
        gains = trainer.unit_gains(sources, train, _Run(place, counts, gains), scores)
    fixed = _Run(place, counts, gains)
    keys = jnp.stack([jax.random.key(seed % 2**32) for seed, _ in runs])
    state = jax.vmap(lambda scores, key: begin(scores, key=key, optimizer=optimizer))(scores, keys)
    state, history = drive(
        lambda state, part: trainer.advance(state, sources, train, fixed, part),
        state,
        epochs=epochs,
        progress=progress,
    )
    check_finite(state.parameters, "edge-popup")
    masks = jax.device_get(trainer.masks(state.parameters, counts))
    return [
        Ticket(
            with_gains(architecture, gains[run].tolist()),
            seed,
            {name: mask[run] for name, mask in masks.items()},
            "edge-popup",
            settings={
                **dataclasses.asdict(schedule),
                "data": dataset.name,
                "keep": float(keep),
                "loss": float(history["loss"][run, -1]),
            },
        )
        for run, (seed, keep) in enumerate(runs)
    ]


class _Run(NamedTuple):
    """What a run is given: the place of its seed [R], kept counts {name: [R]}, gains [R, L]."""

    place: jax.Array
    counts: Tensors
    gains: jax.Array


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """The compiled parts of a training, over the runs [R]; `sources` are one per seed.

    Equal trainers share their compiled programs, from one call of `edge_popup` to the next.
    """

    architecture: Architecture
    schedule: Schedule
    examples: int
    together: int

    def optimizer(self) -> optax.GradientTransformation:
        return self.schedule.optimizer(self.examples)

    def over_runs(self, one: Callable, arguments: tuple) -> Any:
        # A vmap of width 1 would make matrix products twice as slow on a CPU as a loop does.
        return jax.lax.map(one, arguments, batch_size=self.together if self.together > 1 else None)

    @functools.partial(jax.jit, static_argnums=0)
    def unit_gains(self, sources: Tensors, train: Split, runs: _Run, scores: Tensors) -> jax.Array:
        """Gains [R, L] for unit outputs under the first masks."""
        plain = with_gains(self.architecture, [1.0] * len(self.architecture))

        def one(arguments):
            run, scores = arguments
            counts = {name: scores[name].size if name.endswith(".first") else run.counts[name] for name in scores}
            network = score_network(plain, _at(sources, run.place), scores, jax.tree.map(jnp.int32, counts))
            return unit_gains(network, jnp.asarray(train.images)[:SCALE_IMAGES])

        return self.over_runs(one, (runs, scores))

    @functools.partial(jax.jit, static_argnums=(0, 5), donate_argnums=1)
    def advance(self, state: State, sources: Tensors, train: Split, runs: _Run, epochs: int) -> tuple[State, History]:
        """Train all runs for some more epochs."""

        def one(arguments):
            state, run = arguments
            architecture, source = with_gains(self.architecture, list(run.gains)), _at(sources, run.place)

            def loss(scores, images, labels, key):
                logits = score_network(architecture, source, scores, run.counts)(images)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            return advance(
                loss,
                state,
                train,
                optimizer=self.optimizer(),
                epochs=epochs,
                batch_size=self.schedule.batch_size,
            )

        return self.over_runs(one, (state, runs))

    @functools.partial(jax.jit, static_argnums=0)
    def masks(self, scores: Tensors, counts: Tensors) -> Tensors:
        """Boolean masks of the scores."""
        return self.over_runs(lambda run: jax.tree.map(lambda s, c: top_k_mask(s, c) > 0, *run), (scores, counts))


def keep_counts(architecture: Architecture, keep: float) -> dict[str, np.ndarray]:
    """Kept entries of each tensor, exact; raises `InputError` for a keep outside [0, 1]."""
    sizes = {tensor.name: int(np.prod(tensor.shape)) for tensor in source_tensors(architecture)}
    return {name: np.asarray(kept_count(keep, size), np.int32) for name, size in sizes.items()}


def initial_scores(architecture: Architecture, seed: int) -> dict[str, np.ndarray]:
    """Kaiming-uniform scores, as published: U[-b, b] with b = 1 / sqrt(fan-in of the tensor)."""
    scores = {}
    for tensor in source_tensors(architecture):
        bound = float(np.prod(tensor.shape[:-1])) ** -0.5
        uniform, stream = Sampler.uniform(-bound, bound), SCORE_STREAM + tensor.stream
        scores[tensor.name] = draw_host(uniform, seed=seed, stream=stream, shape=tensor.shape)
    return scores


def score_network(architecture: Architecture, source: Tensors, scores: Tensors, counts: Tensors) -> MaskedNetwork:
    """The network whose masks follow the scores."""
    return MaskedNetwork(architecture, source, lambda name: TopKGate(scores[name], counts[name]))


def unit_gains(network: MaskedNetwork, images: jax.Array) -> jax.Array:
    """Gains [L] that give the output of each of the L layers, whose own gain is 1, root mean square 1."""
    gains = []
    for layer in network.layers:
        images = layer(images)
        size = jnp.sqrt(jnp.mean(images**2))
        gains.append(jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1.0), 1.0))
        images = jax.nn.relu(images * gains[-1])
    return jnp.stack(gains)


def with_gains(architecture: Architecture, gains: Sequence) -> Architecture:
    """The architecture with other gains, numbers or traced."""
    return tuple(dataclasses.replace(layer, gain=g) for layer, g in zip(architecture, gains, strict=True))


def _stack(trees: Sequence) -> Tensors:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def _at(tensors: Tensors, place: jax.Array) -> Tensors:
    return {name: tensor[place] for name, tensor in tensors.items()}
