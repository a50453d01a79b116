"""What a learner is: from data and a random source to masks, by training scores on frozen weights."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from lottery_jax.data import Dataset
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
