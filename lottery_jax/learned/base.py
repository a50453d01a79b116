"""What a learner is: from data and a random source to masks, by training scores on frozen weights."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
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
    ) -> list[Ticket]:
        """Tickets of every seed and kept fraction, in the order (seed, keep); the seed draws source and scores.

        A run that diverges while others do not is left out, and said; a ticket's settings have its `keep`. stored: the
        source's tensors that are not random.
        """


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
