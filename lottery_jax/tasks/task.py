"""A task: the data set, and its target trained here or read from a file."""

import dataclasses
import functools
import os

import numpy as np

from lottery_jax.data import Dataset, load
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.normalize import Normalize
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.running import batch_size, outputs
from lottery_jax.networks.target import Target
from lottery_jax.networks.zoo.registry import architecture as named_architecture
from lottery_jax.progress import Progress, unseen
from lottery_jax.tasks.imports import import_target
from lottery_jax.tasks.recipes import DEFAULT_ARCHITECTURES, OWN_ARCHITECTURE, STATISTICS, recipe
from lottery_jax.tasks.train import train_target


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be approximated, and the data that tell how well; raises `InputError` where they do not fit."""

    name: str
    dataset: Dataset
    target: Target

    def __post_init__(self) -> None:
        given, data = self.target.network.given, self.dataset
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
    progress: Progress = unseen,
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
