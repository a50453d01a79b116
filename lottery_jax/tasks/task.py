"""A task by name: the data set, and its target trained here or read from a file."""

import dataclasses
import os
from collections.abc import Callable

from lottery_jax.data import Dataset, load
from lottery_jax.tasks.targets import Target, import_target
from lottery_jax.tasks.train import train_target
from lottery_jax.training import History


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the target of a data set is trained where none is given."""

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float


RECIPES = {
    "digits": Recipe(hidden=(64,), epochs=60, batch_size=64, learning_rate=3e-3),
    "mnist": Recipe(hidden=(500,), epochs=10, batch_size=128, learning_rate=1e-3),
    "fashion_mnist": Recipe(hidden=(500,), epochs=10, batch_size=128, learning_rate=1e-3),
    "cifar10": Recipe(hidden=(500,), epochs=10, batch_size=128, learning_rate=5e-4),
}


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be approximated, and the data that tell how well."""

    name: str
    dataset: Dataset
    target: Target


def load_task(
    name: str,
    *,
    target: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int, History], None] | None = None,
) -> Task:
    """The data set `name` with the target in a file, or one trained from `seed`; raises `InputError`.

    >>> task = load_task("digits")
    >>> task.name, task.target.sizes
    ('digits', (64, 64, 10))
    """
    dataset = load(name, data_dir=data_dir, cache_dir=cache_dir)
    if target is not None:
        trained = import_target(target, inputs=dataset.inputs, classes=dataset.classes)
    else:
        recipe = RECIPES[name]
        trained = train_target(
            dataset,
            hidden=recipe.hidden,
            seed=seed,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            cache_dir=cache_dir,
            progress=progress,
        )
    return Task(name, dataset, trained)
