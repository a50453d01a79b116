"""What a learner is: from data and a random source to masks, by training scores on frozen weights."""

import abc
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.network import Network
from lottery_jax.progress import Progress, unseen
from lottery_jax.tickets.ticket import Ticket


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
    usual: ClassVar[bool] = False
    """Whether a comparison that names no methods has it."""

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
        progress: Progress = unseen,
        checkpoints: Path | None = None,
    ) -> list[Ticket]:
        """Tickets of every seed and kept fraction, in the order (seed, keep); the seed draws source and scores.

        A run that diverges while others do not is left out, and said; a ticket's settings have its `keep`. stored: the
        source's tensors that are not random. checkpoints: the folder where unfinished trainings are kept, and found.
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
        progress: Progress = unseen,
        checkpoints: Path | None = None,
    ) -> list[Ticket]:
        """As `learn`, for every point of a grid {option: values}: tickets in the order (point, seed, keep)."""
        found, points = [], self.points(grid)
        for done, point in enumerate(points):

            def told(epoch: int, last: int, before: int = done) -> None:
                progress(before * last + epoch, len(points) * last)

            found += point.learn(
                source,
                dataset,
                seeds=seeds,
                keeps=keeps,
                epochs=epochs,
                stored=stored,
                progress=unseen if progress is unseen else told,
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


def check_fits(network: Network, dataset: Dataset, what: str) -> None:
    """Refuse a network that is not given the data's examples, or has not their classes; raises `InputError`."""
    given, output = network.given, network.output
    if given is None or output is None or (given.shape, output.shape) != (dataset.shape, (dataset.classes,)):
        raise InputError(
            f"the {what} maps {given and list(given.shape)} to {output and list(output.shape)} but {dataset.name}"
            f" has examples of {list(dataset.shape)} and {dataset.classes} classes; choose one that fits"
        )


def check_runs(seeds: Sequence[int], keeps: Sequence, epochs: int, together: int | None) -> None:
    """Refuse runs that are none; raises `InputError`."""
    if not (len(seeds) and len(keeps)) or (together is not None and together < 1):
        raise InputError(f"{len(seeds)} seeds, {len(keeps)} keeps, together={together}; give at least 1 of each")
    if epochs < 1:
        raise InputError(f"the number of epochs is {epochs}; it must be at least 1")
