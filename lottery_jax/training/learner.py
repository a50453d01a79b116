"""The base of everything that is trained into tickets, and the request for them."""

import abc
import copy
import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import jax
import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError, listed_numbers, suggest
from lottery_jax.io.checksummed_file import digest
from lottery_jax.networks.network import Network
from lottery_jax.progress import Progress, no_progress
from lottery_jax.rng.threefry import checked_seeds
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.training.losses import DEFAULT_LOSS, TaskLoss
from lottery_jax.training.optimizers import REPLACED_OPTIONS, OptaxOptimizer


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingRequest:
    """A request for tickets, one for every seed and kept fraction."""

    dataset: Dataset
    """Its training split is learned; the validation split is measured after each epoch."""
    seeds: Sequence[int]
    """Seeds of the random source, of the scores and of the order of the examples."""
    keeps: Sequence[float]
    """Kept fractions, in [0, 1]; empty for a learner that finds its own."""
    epochs: int
    """Epochs of each training, at least 1."""
    stored: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Tensors of the source that are not random, by name."""
    progress: Progress = no_progress
    """Called with (epochs done, epochs in all), the mean of all runs."""
    checkpoints: Checkpoints | None = None
    """Folder of unfinished trainings."""
    loss: TaskLoss = DEFAULT_LOSS
    """The loss that is trained, and the metric that is measured. Default: those of the labels' kind."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", checked_seeds(self.seeds))
        object.__setattr__(self, "keeps", listed_numbers("keeps", self.keeps, "[0.1, 0.5]"))
        if not len(self.seeds):
            raise InputError("`seeds` must not be empty, got none. Give at least one.")
        if self.epochs < 1:
            raise InputError(f"`epochs` must be at least 1, got {self.epochs}. Give a positive number.")

    @functools.cached_property
    def task_loss(self) -> TaskLoss:
        """The loss for this data set, checked."""
        return self.loss.resolved(self.dataset)

    @functools.cached_property
    def loss_settings(self) -> dict[str, dict[str, str]]:
        """The names of loss and metric for the settings of a ticket; empty for a plain classification."""
        recorded = self.loss.recorded(self.dataset)
        return {"trained_for": recorded} if recorded else {}

    def configuration(self, network: Network, runs: Sequence["RunSpec"], **more: Any) -> dict[str, Any]:
        """Everything that the training of some runs depends on, as JSON."""
        return {
            "learner": runs[0].learner.name,
            "runs": [[settings_of(run.learner), run.seed, run.keep] for run in runs],
            "network": network.to_json(),
            "data": self.dataset.fingerprint,
            "epochs": self.epochs,
            "stored": digest("", jax.tree.map(np.asarray, dict(self.stored))),
            **self.loss_settings,
            **more,
        }


@dataclasses.dataclass(frozen=True)
class Learner(abc.ABC):
    """Turns a source and data into tickets. A concrete learner is a frozen dataclass whose fields are its options.

    The first line of a field's docstring is its help on the command line.
    """

    name: ClassVar[str]
    sweeps: ClassVar[bool] = True
    """Whether kept fractions are given to it. If not, it finds its own, and `keeps` is empty."""
    sources: ClassVar[tuple[str, ...]] = ()
    """Names of the sources that a comparison uses for it. Empty: all of them."""
    is_default: ClassVar[bool] = False
    """Whether a comparison without a list of methods includes it."""
    shares: ClassVar[bool] = False
    """Whether several processes can share its trainings. If not, one process trains all runs of a seed."""

    @abc.abstractmethod
    def learn(self, /, source: Network, request: TrainingRequest) -> list[Ticket]:
        """Train one ticket for every seed and kept fraction.

        Args:
            source: The random network; the seed draws its weights.
            request: Data, seeds, kept fractions and epochs.

        Returns:
            Tickets in the order (seed, keep), without runs that diverged; the settings of a ticket have its `keep`.

        Raises:
            InputError: Source and data do not fit, or all runs diverged.
            Pending: Other processes train what is missing.
        """

    def sweep(self, /, source: Network, request: TrainingRequest, grid: Mapping[str, Sequence[Any]]) -> list[Ticket]:
        """As `learn` at every point of a grid {option: values}: tickets in the order (point, seed, keep)."""
        tickets, points = [], self.points(grid)
        for done, point in enumerate(points):
            progress = part_of(request.progress, done, len(points))
            tickets += point.learn(source, dataclasses.replace(request, progress=progress))
        return tickets

    def points(self, grid: Mapping[str, Sequence[Any]]) -> list[Self]:
        """The learner at each point of a grid of its options; the last option varies fastest.

        Raises:
            InputError: An option is unknown, or its values are empty or repeated.
        """
        for name, values in grid.items():
            if name not in self.__dataclass_fields__:
                raise InputError(f"{self.name} has no option {name!r}; {suggest(name, self.__dataclass_fields__)}")
            if len(set(values)) < len(values) or not len(values):
                raise InputError(f"values of {name} must be different, at least one, got {tuple(values)}. Remove some.")
        points = []
        for values in itertools.product(*grid.values()):
            points.append(dataclasses.replace(self, **dict(zip(grid, values, strict=True))))
        return points


L = TypeVar("L", bound=Learner)


class RunSpec(NamedTuple):
    """One training: a learner with its hyperparameters, a seed, and a kept fraction if the learner takes one."""

    learner: Any
    seed: int
    keep: float | None


def settings_of(learner: Learner) -> dict[str, Any]:
    """The options of a learner as JSON, without those that an optimiser of optax replaces."""
    replaced = REPLACED_OPTIONS if isinstance(getattr(learner, "optimizer", None), OptaxOptimizer) else ()
    options = dataclasses.asdict(learner)
    if options.get("optimizer", "") is None:
        replaced = ("optimizer",)  # that of the learner itself, as in tickets of earlier versions
    return {name: value for name, value in options.items() if name not in replaced}


def hyperparameters_of(learner: Learner) -> dict[str, float]:
    """The options of type float, by name: they are traced, so that one program serves all their values."""
    values = {}
    for field in dataclasses.fields(learner):
        if field.type in (float, "float"):
            values[field.name] = getattr(learner, field.name)
    return values


def with_hyperparameters(learner: L, values: Mapping[str, Any]) -> L:
    """The learner with traced hyperparameters, which are not checked."""
    traced = copy.copy(learner)
    for name, value in values.items():
        object.__setattr__(traced, name, value)
    return traced


def without_hyperparameters(learner: L) -> L:
    """The part of a learner that determines its program: equal for two that differ in hyperparameters alone."""
    return with_hyperparameters(learner, dict.fromkeys(hyperparameters_of(learner), 0.0))


def check_fits(network: Network, dataset: Dataset, what: str) -> None:
    """Refuse a network whose inputs or outputs are not those of the data; raises `InputError`."""
    given, output = network.input_spec, network.output_spec
    if given is None or output is None or (given.shape, output.shape) != (dataset.shape, (dataset.classes,)):
        raise InputError(
            f"the {what} maps {given and list(given.shape)} to {output and list(output.shape)} but {dataset.name}"
            f" has examples of {list(dataset.shape)} and {dataset.outputs}; choose one that fits"
        )


def part_of(progress: Progress, done: int, parts: int, count: int = 1) -> Progress:
    """The progress of `count` of `parts` equal parts, after `done` of them, as progress of the whole."""
    if progress is no_progress:
        return no_progress
    return lambda now, total: progress(done * total + now * count, parts * total)
