"""Targets trained here: from a seed, once; the result is kept by a hash of everything it depends on."""

import dataclasses
import functools
import hashlib
import json
import os

import jax
import numpy as np
import optax

from lottery_jax import training
from lottery_jax.data import Dataset, Split
from lottery_jax.data.cache import cache_folder, recall, store
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, unseen
from lottery_jax.tasks.recipes import Recipe

_VERSION = 2  # raise it when the same settings would give other weights


def train_target(
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = unseen,
) -> Target:
    """Train a network on the training split, or recall it; raises `InputError`.

    The last epoch's weights are the target. Validation and test splits are not touched. progress: called with (epochs
    done, epochs in all).

    >>> from lottery_jax.data import load
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.zoo.registry import architecture
    >>> network = architecture("mlp-8", Spec((8, 8, 1), True), 10)
    >>> train_target(network, load("digits"), Recipe(epochs=1), seed=0).weights
    592
    """
    _check(network, dataset, recipe, seed)
    settings = {
        "version": _VERSION,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "network": network.to_json(),
        "seed": int(seed),
        **dataclasses.asdict(recipe),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder(cache_dir) / "targets" / f"{dataset.name}-{digest}.safetensors"
    kept = recall(path)
    if kept is None or {name: value.shape for name, value in kept.items()} != network.tensors:
        kept = _train(network, dataset, recipe, seed, progress)
        store(path, kept)
    return Target(network, kept)  # type: ignore[arg-type]


def _train(network: Network, dataset: Dataset, recipe: Recipe, seed: int, progress: Progress) -> dict[str, np.ndarray]:
    """The trained tensors on the host."""
    initial_key, key = jax.random.split(jax.random.key(seed))
    steps = recipe.epochs * training.steps_per_epoch(len(dataset.train), recipe.batch_size)
    state = _begin(recipe, steps, network.initial(initial_key), key)
    train = jax.device_put(dataset.train)

    def advance_by(state: training.State, epochs: int) -> tuple[training.State, training.History]:
        return _advance(network, recipe, steps, epochs, state, train)

    state, _ = training.drive(advance_by, state, epochs=recipe.epochs, progress=progress)
    training.check_finite(state.parameters, "the target")
    return {name: np.asarray(value) for name, value in state.parameters.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begin(recipe: Recipe, steps: int, initial: dict[str, jax.Array], key: jax.Array) -> training.State:
    return training.begin(initial, key=key, optimizer=_optimizer(recipe, steps))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _advance(
    network: Network, recipe: Recipe, steps: int, epochs: int, state: training.State, train: Split
) -> tuple[training.State, training.History]:
    """One program for every seed of one setting."""
    optimizer, loss = _optimizer(recipe, steps), training.cross_entropy(network)
    return training.advance(loss, state, train, optimizer=optimizer, epochs=epochs, batch_size=recipe.batch_size)


def _optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """Adam, the learning rate falling to zero along a cosine; matrices and kernels decay, vectors do not."""
    rate = optax.cosine_decay_schedule(recipe.learning_rate, max(steps, 1))
    if not recipe.weight_decay:
        return optax.adam(rate)
    return optax.adamw(
        rate, weight_decay=recipe.weight_decay, mask=lambda tensors: jax.tree.map(lambda x: x.ndim > 1, tensors)
    )


def _check(network: Network, dataset: Dataset, recipe: Recipe, seed: int) -> None:
    """Refuse settings that make no training."""
    given, output = network.given, network.output
    if given is None or output is None or (given.shape, output.shape) != (dataset.shape, (dataset.classes,)):
        raise InputError(
            f"the network maps {given and list(given.shape)} to {output and list(output.shape)}, but {dataset.name} has"
            f" examples of {list(dataset.shape)} and {dataset.classes} classes; choose an architecture that fits"
        )
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed is {seed}; choose one from 0 to {2**32 - 1}")
    if not 0 < recipe.learning_rate < float("inf"):
        raise InputError(f"the learning rate is {recipe.learning_rate}; it must be positive and finite")
