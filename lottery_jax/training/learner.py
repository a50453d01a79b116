"""What a learner is: from data and a random source to masks, by training scores on frozen weights."""

import abc
import copy
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.network import Network
from lottery_jax.progress import Progress, no_progress
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Learner(abc.ABC):
    """Source and data to tickets. Concrete learners are frozen dataclasses whose fields are their options.

    The first line of a field's docstring is its help on the command line.
    """

    name: ClassVar[str]
    sweeps: ClassVar[bool] = True
    """Whether it is asked for kept fractions; if not, it finds its own, and `keeps` is empty."""
    sources: ClassVar[tuple[str, ...]] = ()
    """The sources that a comparison puts it on, by name; all of them if empty."""
    is_default: ClassVar[bool] = False
    """Whether a comparison that names no methods has it."""
    shares: ClassVar[bool] = False
    """Whether processes share its trainings, as `checkpoints` say; if not, one does all of a seed."""

    @abc.abstractmethod
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
        """Tickets of every seed and kept fraction, in the order (seed, keep); the seed draws source and scores.

        A run that diverges while others do not is left out, and said; a ticket's settings have its `keep`. stored: the
        source's tensors that are not random. checkpoints: where unfinished trainings are kept, and
        found; raises `Pending` where it is a crew's, and others are at what is left (`shares`).
        """

    def sweep(
        self,
        source: Network,
        dataset: Dataset,
        grid: Mapping[str, Sequence[Any]],
        *,
        seeds: Sequence[int],
        keeps: Sequence[float],
        epochs: int,
        stored: Mapping[str, np.ndarray] | None = None,
        progress: Progress = no_progress,
        checkpoints: Checkpoints | None = None,
    ) -> list[Ticket]:
        """As `learn`, for every point of a grid {option: values}: tickets in the order (point, seed, keep)."""
        found, points = [], self.points(grid)
        for done, point in enumerate(points):
            found += point.learn(
                source,
                dataset,
                seeds=seeds,
                keeps=keeps,
                epochs=epochs,
                stored=stored,
                progress=part_of(progress, done, len(points)),
                checkpoints=checkpoints,
            )
        return found

    def points(self, grid: Mapping[str, Sequence[Any]]) -> list[Self]:
        """The learner at each point of a grid of its options, the last one fastest; raises `InputError`."""
        options = {field.name for field in dataclasses.fields(self)}
        for name, values in grid.items():
            if name not in options:
                raise InputError(f"{self.name} has no option {name!r}; {suggest(name, options)}")
            if len(set(values)) < len(values) or not len(values):
                raise InputError(f"the values {tuple(values)} of {name} are none, or not different; give each once")
        return [
            dataclasses.replace(self, **dict(zip(grid, values, strict=True)))
            for values in itertools.product(*grid.values())
        ]


L = TypeVar("L", bound=Learner)


def numbers_of(learner: Learner) -> dict[str, float]:
    """The options that are floats: they are traced."""
    kinds = {field.name: field.type for field in dataclasses.fields(learner)}
    return {name: getattr(learner, name) for name, kind in kinds.items() if kind in (float, "float")}


def with_numbers(learner: L, numbers: Mapping[str, Any]) -> L:
    """The learner with traced numbers, which nothing checks."""
    made = copy.copy(learner)
    for name, value in numbers.items():
        object.__setattr__(made, name, value)
    return made


def without_numbers(learner: L) -> L:
    """What of a learner makes its program: equal for two that differ in numbers alone."""
    return with_numbers(learner, dict.fromkeys(numbers_of(learner), 0.0))


def check_fits(network: Network, dataset: Dataset, what: str) -> None:
    """Refuse a network that is not given the data's examples, or has not their classes; raises `InputError`."""
    given, output = network.input_spec, network.output_spec
    if given is None or output is None or (given.shape, output.shape) != (dataset.shape, (dataset.classes,)):
        raise InputError(
            f"the {what} maps {given and list(given.shape)} to {output and list(output.shape)} but {dataset.name}"
            f" has examples of {list(dataset.shape)} and {dataset.classes} classes; choose one that fits"
        )


def check_runs(seeds: Sequence[int], keeps: Sequence, epochs: int, runs_per_step: int | None) -> None:
    """Refuse runs that are none; raises `InputError`."""
    if not (len(seeds) and len(keeps)) or (runs_per_step is not None and runs_per_step < 1):
        raise InputError(f"{len(seeds)} seeds, {len(keeps)} keeps, together={runs_per_step}; give at least 1 of each")
    if epochs < 1:
        raise InputError(f"the number of epochs is {epochs}; it must be at least 1")


def part_of(progress: Progress, done: int, parts: int, count: int = 1) -> Progress:
    """What is told of `count` parts of equal length, after `done` of them."""
    if progress is no_progress:
        return no_progress
    return lambda now, total: progress(done * total + now * count, parts * total)
