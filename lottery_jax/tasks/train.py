"""Targets trained here: from a seed, once; the result is kept by a hash of everything it depends on."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax
from flax import nnx

from lottery_jax import training
from lottery_jax.data import Dataset, Split
from lottery_jax.data.cache import cache_folder, recall, store
from lottery_jax.errors import InputError
from lottery_jax.networks.mlp import MLP, random_mlp
from lottery_jax.tasks.targets import Target

VERSION = 1  # raise it when the same settings would give other weights


def train_target(
    dataset: Dataset,
    *,
    hidden: Sequence[int] = (64,),
    seed: int,
    epochs: int = 60,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, training.History], None] | None = None,
) -> Target:
    """Train a bias-free ReLU MLP with Adam and a cosine schedule, or recall it; raises `InputError`.

    The last epoch's weights are the target; the validation accuracy of each epoch is only shown to
    `progress`, as `history["measure"]`. The test split is not touched.

    >>> from lottery_jax.data import load
    >>> train_target(load("digits"), hidden=(8,), seed=0, epochs=1).sizes
    (64, 8, 10)
    """
    _check(hidden, seed, learning_rate)
    sizes = (dataset.inputs, *(int(units) for units in hidden), dataset.classes)
    settings = {
        "version": VERSION,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "sizes": sizes,
        "seed": int(seed),
        "epochs": int(epochs),
        "batch_size": int(batch_size),
        "learning_rate": float(learning_rate),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder(cache_dir) / "targets" / f"{dataset.name}-{digest}.safetensors"
    names = tuple(f"fc{number}.weight" for number in range(1, len(sizes)))
    kept = recall(path)
    if kept is not None and set(kept) == set(names):
        return Target(tuple(kept[name].T for name in names), names)
    weights = _train(dataset, sizes, seed, epochs, batch_size, float(learning_rate), progress)
    store(path, {name: weight.T for name, weight in zip(names, weights, strict=True)})
    return Target(weights, names)


def _train(
    dataset: Dataset,
    sizes: tuple[int, ...],
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    progress: Callable[[int, int, training.History], None] | None,
) -> tuple[np.ndarray, ...]:
    """The trained weights [I, O] on the host."""
    initial_key, key = jax.random.split(jax.random.key(seed))
    graph, parameters = nnx.split(random_mlp(sizes, key=initial_key), nnx.Param)
    steps = epochs * training.steps_per_epoch(len(dataset.train), batch_size)
    state = training.begin(parameters, key=key, optimizer=_optimizer(learning_rate, steps))
    train, validation = jax.device_put((dataset.train, dataset.validation))

    def advance_by(state: training.State, part: int) -> tuple[training.State, training.History]:
        return _advance(graph, state, train, validation, learning_rate, steps, part, batch_size)

    state, _ = training.drive(advance_by, state, epochs=epochs, progress=progress)
    training.check_finite(state.parameters, "the target")
    mlp: MLP = nnx.merge(graph, state.parameters)
    return tuple(np.asarray(kernel[...]) for kernel in mlp.kernels)


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))
def _advance(
    graph: nnx.GraphDef,
    state: training.State,
    train: Split,
    validation: Split,
    learning_rate: float,
    steps: int,
    epochs: int,
    batch_size: int,
) -> tuple[training.State, training.History]:
    """One program for every seed of one setting."""

    def loss(parameters, images, labels, key):
        logits = nnx.merge(graph, parameters)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def validation_accuracy(parameters):
        logits = nnx.merge(graph, parameters)(validation.images)
        return (logits.argmax(axis=-1) == validation.labels).mean()

    return training.advance(
        loss,
        state,
        train,
        optimizer=_optimizer(learning_rate, steps),
        epochs=epochs,
        batch_size=batch_size,
        measure=validation_accuracy,
    )


def _optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam, the learning rate falling to zero along a cosine."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, max(steps, 1)))


def _check(hidden: Sequence[int], seed: int, learning_rate: float) -> None:
    """Refuse settings that make no network or no training."""
    if not all(int(units) == units and units >= 1 for units in hidden):
        raise InputError(f"the hidden layers have sizes {tuple(hidden)}; each must be a whole number above 0")
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed is {seed}; choose one from 0 to {2**32 - 1}")
    if not 0 < learning_rate < float("inf"):
        raise InputError(f"the learning rate is {learning_rate}; it must be positive and finite")
