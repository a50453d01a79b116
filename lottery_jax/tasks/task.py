"""Tasks: a data set and its target, read from a file or trained by a recipe and cached."""

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
from lottery_jax.io.cache import cache_folder, read_cached, write_cached
from lottery_jax.networks.architectures import architecture as named_architecture
from lottery_jax.networks.forward import batch_size, outputs
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, no_progress
from lottery_jax.rng.threefry import checked_seed
from lottery_jax.statistics import wilson_interval
from lottery_jax.training import loop as training
from lottery_jax.training.losses import DEFAULT_LOSS, TaskLoss


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a target is trained: Adam with a cosine learning rate that decays to zero, and decoupled weight decay."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


DEFAULT_ARCHITECTURES = {"digits": "mlp-64", "mnist": "fc2", "fashion_mnist": "fc2", "cifar10": "fc2"}
"""Default architecture for each data set; others have `FALLBACK_ARCHITECTURE`."""

FALLBACK_ARCHITECTURE = "mlp-100"

STATISTICS = {"cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))}
"""Mean and standard deviation of each channel over the training images."""

RECIPES = {
    ("digits", "mlp-64"): Recipe(60, 64, 3e-3),
    ("mnist", "fc2"): Recipe(10),
    ("mnist", "lenet5"): Recipe(5, learning_rate=2e-3),
    ("fashion_mnist", "fc2"): Recipe(10),
    ("cifar10", "fc2"): Recipe(10, learning_rate=5e-4),
}

_DATA_RECIPES = {"digits": Recipe(60, 64, 3e-3), "mnist": Recipe(10), "fashion_mnist": Recipe(10)}
_DEEP = Recipe(30, learning_rate=1e-3, weight_decay=5e-4)
_SMALL = Recipe(60, 32, 3e-3)


def recipe_for(data: str, architecture: str, examples: int) -> Recipe:
    """The recipe for a data set of this number of training examples and an architecture.

    >>> recipe_for("mnist", "fc2", 55_000).epochs
    10
    """
    found = RECIPES.get((data, architecture)) or _DATA_RECIPES.get(data) or (_DEEP if examples > 5000 else _SMALL)
    return dataclasses.replace(found, batch_size=min(found.batch_size, examples))


_VERSION = 2  # of the cache: raised when equal settings give other weights


def train_target(
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    loss: TaskLoss = DEFAULT_LOSS,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> Target:
    """Train a network on the training split; the weights of the last epoch are the target. Results are cached.

    Args:
        dataset: Only its training split is used.
        recipe: Epochs, batch size, learning rate and weight decay.
        seed: Seed of the initialisation and the batches, from 0 to 2**32 - 1.
        loss: The loss that is minimised. Default: that of the labels' kind.
        cache_dir: Folder of cached targets. Defaults to the user's cache.
        progress: Called with the finished epochs and all epochs.

    >>> from lottery_jax.data import load
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> network = architecture("mlp-8", Spec((8, 8, 1), True), 10)
    >>> train_target(network, load("digits"), Recipe(epochs=1), seed=0).weights
    592
    """
    found, outputs = network.input_spec, network.output_spec
    if found is None or outputs is None or (found.shape, outputs.shape) != (dataset.shape, (dataset.classes,)):
        raise InputError(
            f"the network must map examples of {list(dataset.shape)} to {dataset.outputs} ({dataset.name}),"
            f" got {found and list(found.shape)} to {outputs and list(outputs.shape)}. Choose another architecture."
        )
    seed = checked_seed(seed)
    if seed >= 2**32:
        raise InputError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
    if not 0 < recipe.learning_rate < float("inf"):
        raise InputError(f"the learning rate must be positive and finite, got {recipe.learning_rate}")
    settings = {
        "version": _VERSION,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "network": network.to_json(),
        "seed": seed,
        **dataclasses.asdict(recipe),
    }
    if recorded := loss.recorded(dataset):
        settings["trained_for"] = recorded
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder(cache_dir) / "targets" / f"{dataset.name}-{digest}.safetensors"
    tensors = read_cached(path)
    if tensors is None or {name: value.shape for name, value in tensors.items()} != network.tensors:
        tensors = _train(network, dataset, recipe, seed, loss.resolved(dataset), progress)
        write_cached(path, tensors)
    return Target(network, tensors)  # type: ignore[arg-type]


def _train(
    network: Network, dataset: Dataset, recipe: Recipe, seed: int, loss: TaskLoss, progress: Progress
) -> dict[str, np.ndarray]:
    """The trained tensors on the host."""
    initial_key, key = jax.random.split(jax.random.key(seed))
    steps = recipe.epochs * training.steps_per_epoch(len(dataset.train), recipe.batch_size)
    state = _begin(recipe, steps, network.initial(initial_key), key)
    train = jax.device_put(dataset.train)

    def advance_by(state: training.State, epochs: int) -> tuple[training.State, training.History]:
        return _advance(network, recipe, loss, steps, epochs, state, train)

    state, _ = training.drive(advance_by, state, epochs=recipe.epochs, progress=progress)
    training.check_finite(state.parameters, "the target")
    return {name: np.asarray(value) for name, value in state.parameters.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begin(recipe: Recipe, steps: int, initial: dict[str, jax.Array], key: jax.Array) -> training.State:
    return training.begin(initial, key=key, optimizer=_optimizer(recipe, steps))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _advance(
    network: Network,
    recipe: Recipe,
    task_loss: TaskLoss,
    steps: int,
    epochs: int,
    state: training.State,
    train: Split,
) -> tuple[training.State, training.History]:
    optimizer, loss = _optimizer(recipe, steps), training.network_loss(network, task_loss)
    return training.advance(loss, state, train, optimizer=optimizer, epochs=epochs, batch_size=recipe.batch_size)


def _optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """Adam with a cosine schedule; weight decay applies to matrices and kernels, not to vectors."""
    rate = optax.cosine_decay_schedule(recipe.learning_rate, max(steps, 1))
    if not recipe.weight_decay:
        return optax.adam(rate)
    return optax.adamw(
        rate, weight_decay=recipe.weight_decay, mask=lambda tensors: jax.tree.map(lambda x: x.ndim > 1, tensors)
    )


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set and the target to approximate; raises `InputError` if they do not fit together.

    Args:
        loss: Loss and metric of its comparisons. Default: those of the labels' kind.
    """

    name: str
    dataset: Dataset
    target: Target
    loss: TaskLoss = DEFAULT_LOSS

    def __post_init__(self) -> None:
        inputs, data = self.target.network.input_spec, self.dataset
        if inputs is None:
            return  # a model whose graph is unknown
        if inputs.shape != data.shape:
            advice = "Choose a target and a data set that fit."
            if len(inputs.shape) == 3 and inputs.shape == (data.shape[-1], *data.shape[:-1]):
                advice = "Its channels are first: give Dataset.from_arrays images [N, C, H, W] and channels_first=True."
            raise InputError(
                f"the target's inputs must have the shape {list(data.shape)} of the data set {data.name}, got"
                f" {list(inputs.shape)}. {advice}"
            )
        if inputs.nonnegative and not data.nonnegative:
            raise InputError(
                f"the target's inputs must not be declared nonnegative, because those of the data set {data.name} are"
                " not. Make the target with nonnegative=False."
            )

    def __repr__(self) -> str:
        return f"<Task {self.name[:40]}: a target of {self.target.weights:,} weights, and {self.dataset}>"

    @property
    def notes(self) -> tuple[str, ...]:
        """What may be wrong with the data, and what the import of the target assumed."""
        return (*self.dataset.notes, *self.target.notes)

    def accuracy_notes(self, accuracy: float | None) -> tuple[str, ...]:
        """A sentence if a target of this test accuracy may predict no better than a constant; None: no accuracy."""
        if accuracy is None:
            return ()
        labels = np.asarray(self.dataset.test.labels)
        correct, frequent = round(accuracy * len(labels)), int(np.bincount(labels).max())
        # A few correct predictions of few examples are no evidence: the whole interval counts.
        if correct == len(labels) or wilson_interval(correct, len(labels))[0] > frequent / len(labels):
            return ()
        return (
            f"the target predicts {correct:,} of the {len(labels):,} test labels of {self.dataset.name}, which is near"
            f" chance: its most frequent class has {frequent:,}. Check the layout of the inputs (channels last), their"
            " scale (0 to 1), the numbering of the labels, and the training of the target",
        )

    @functools.cached_property
    def test_outputs(self) -> np.ndarray:
        """The target's outputs for the test images, [N, classes]."""
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
    """A data set with a target from a file, or one trained by the default recipe.

    Args:
        data: Name of a data set, or a .npz file.
        target: A .safetensors file. If None, a target is trained.
        architecture: Architecture of the target. Defaults to that of the file's tensor names, or the data set's.
        data_dir: Folder of prepared TensorFlow Datasets.
        cache_dir: Folder of decoded data sets and trained targets.
        progress: Called with the finished epochs and all epochs.

    >>> task = load_task("digits")
    >>> task.name, task.target.weights
    ('digits', 4736)
    """
    dataset = load(data, data_dir=data_dir, cache_dir=cache_dir)
    input_spec = Spec(dataset.shape, dataset.nonnegative)
    constants = STATISTICS.get(dataset.name)
    normalize = None if constants is None else Normalize(*constants)
    if target is not None:
        read = import_target(target, input_spec, dataset.classes, name=architecture, width=width, normalize=normalize)
        return Task(dataset.name, dataset, read)
    name = architecture or DEFAULT_ARCHITECTURES.get(dataset.name, FALLBACK_ARCHITECTURE)
    network: Network = named_architecture(name, input_spec, dataset.classes, width=width, normalize=normalize)
    recipe = recipe_for(dataset.name, name, len(dataset.train))
    trained = train_target(network, dataset, recipe, seed=seed, cache_dir=cache_dir, progress=progress)
    return Task(dataset.name, dataset, trained)
