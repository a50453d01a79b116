"""How the target of a data set is trained where none is given: one recipe for each data set and architecture.

Targets trained here: from a seed, once; the result is kept by a hash of everything it depends on.
A task: the data set, and its target trained here or read from a file.
"""

import dataclasses
import functools
import hashlib
import json
import os

import jax
import numpy as np
import optax

from lottery_jax.data import Dataset, Split, load
from lottery_jax.errors import InputError
from lottery_jax.importers.state_dict import import_target
from lottery_jax.io.cache import cache_folder, recall, store
from lottery_jax.networks.architectures import architecture as named_architecture
from lottery_jax.networks.forward import batch_size, outputs
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, no_progress
from lottery_jax.training import loop as training


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Adam with a cosine learning rate that falls to zero, and decoupled weight decay."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


DEFAULT_ARCHITECTURES = {"digits": "mlp-64", "mnist": "fc2", "fashion_mnist": "fc2", "cifar10": "fc2"}
"""What is trained where no architecture is named; for other data `OWN_ARCHITECTURE`."""

OWN_ARCHITECTURE = "mlp-100"

STATISTICS = {"cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))}
"""Mean and standard deviation of each channel over the training images of a data set."""

RECIPES = {
    ("digits", "mlp-64"): Recipe(60, 64, 3e-3),
    ("mnist", "fc2"): Recipe(10),
    ("mnist", "lenet5"): Recipe(5, learning_rate=2e-3),
    ("fashion_mnist", "fc2"): Recipe(10),
    ("cifar10", "fc2"): Recipe(10, learning_rate=5e-4),
}

_OTHERS = {"digits": Recipe(60, 64, 3e-3), "mnist": Recipe(10), "fashion_mnist": Recipe(10)}

_DEEP = Recipe(30, learning_rate=1e-3, weight_decay=5e-4)

_SMALL = Recipe(60, 32, 3e-3)


def recipe(data: str, architecture: str, examples: int) -> Recipe:
    """The recipe for a data set of so many training examples and an architecture.

    >>> recipe("mnist", "fc2", 55_000).epochs
    10
    """
    found = RECIPES.get((data, architecture)) or _OTHERS.get(data) or (_DEEP if examples > 5000 else _SMALL)
    return dataclasses.replace(found, batch_size=min(found.batch_size, examples))


_VERSION = 2  # raise it when the same settings would give other weights


def train_target(
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> Target:
    """Train a network on the training split, or recall it; raises `InputError`.

    The last epoch's weights are the target. Validation and test splits are not touched. progress: called with (epochs
    done, epochs in all).

    >>> from lottery_jax.data import load
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
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
    given, output = network.input_spec, network.output_spec
    if given is None or output is None or (given.shape, output.shape) != (dataset.shape, (dataset.classes,)):
        raise InputError(
            f"the network maps {given and list(given.shape)} to {output and list(output.shape)}, but {dataset.name} has"
            f" examples of {list(dataset.shape)} and {dataset.classes} classes; choose an architecture that fits"
        )
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed is {seed}; choose one from 0 to {2**32 - 1}")
    if not 0 < recipe.learning_rate < float("inf"):
        raise InputError(f"the learning rate is {recipe.learning_rate}; it must be positive and finite")


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be approximated, and the data that tell how well; raises `InputError` where they do not fit."""

    name: str
    dataset: Dataset
    target: Target

    def __post_init__(self) -> None:
        given, data = self.target.network.input_spec, self.dataset
        if given is None:
            return  # a model whose graph is unknown
        if given.shape != data.shape:
            raise InputError(
                f"the target takes inputs of shape {list(given.shape)}, but the data set {data.name} has examples of"
                f" shape {list(data.shape)}; choose a target and a data set that fit"
            )
        if given.nonnegative and not data.nonnegative:
            raise InputError(
                f"the target's network says that its inputs are never negative, but those of the data set {data.name}"
                " may be, and a ticket would not hold for them; make the target with nonnegative=False"
            )

    def __repr__(self) -> str:
        return f"<Task {self.name[:40]}: a target of {self.target.weights:,} weights, and {self.dataset}>"

    @functools.cached_property
    def test_outputs(self) -> np.ndarray:
        """What the target gives for the test images, [N, classes]."""
        return outputs(self.target.forward(), self.dataset.test.images, batch_size=batch_size(self.target.network))


def load_task(
    data: str,
    *,
    target: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    width: float = 1.0,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Task:
    """A data set, by name or a .npz file, with the target in a file, or one trained from `seed`; raises `InputError`.

    architecture, width: what is trained, and what the file holds; guessed from the names there if left out.

    >>> task = load_task("digits")
    >>> task.name, task.target.weights
    ('digits', 4736)
    """
    dataset = load(data, data_dir=data_dir, cache_dir=cache_dir)
    given = Spec(dataset.shape, dataset.nonnegative)
    constants = STATISTICS.get(dataset.name)
    normalize = None if constants is None else Normalize(*constants)
    if target is not None:
        found = import_target(target, given, dataset.classes, name=architecture, width=width, normalize=normalize)
        return Task(dataset.name, dataset, found)
    name = architecture or DEFAULT_ARCHITECTURES.get(dataset.name, OWN_ARCHITECTURE)
    network: Network = named_architecture(name, given, dataset.classes, width=width, normalize=normalize)
    how = recipe(dataset.name, name, len(dataset.train))
    trained = train_target(network, dataset, how, seed=seed, cache_dir=cache_dir, progress=progress)
    return Task(dataset.name, dataset, trained)
