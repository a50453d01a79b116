"""What is asked of the subsets: every weight within a tolerance (`Promise`), or a budget (`budget`)."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lottery_jax.constructions.base import Construction
from lottery_jax.networks.network import Network

if TYPE_CHECKING:
    from lottery_jax.constructions.job import Chunk, Job

Solved = dict[str, np.ndarray]
"""What is kept of a finished chunk, in memory or in its file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Masks:
    """The masks of a chunk: bits uint8, row-major, lowest first, and redraws int64 (block of the tensor, attempt)."""

    bits: np.ndarray
    redraws: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Settled:
    """What a job came to when every chunk was solved: what the ticket promises, and the masks chunk by chunk."""

    tolerance: float
    kept_budget: int | None
    settings: Mapping[str, Any]
    masks: Callable[["Chunk"], Masks]
    relative: bool = False


class Goal(abc.ABC):
    """What is asked. Concrete goals are frozen dataclasses."""

    locks: ClassVar[bool] = False
    """Whether it can be asked for where some random weights are always kept."""

    @property
    @abc.abstractmethod
    def suffix(self) -> str:
        """Added to the construction's name; empty for the usual goal."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """How subsets are chosen, as JSON values: all that the masks depend on."""

    @abc.abstractmethod
    def check(self, construction: Construction) -> None:
        """Refuse what cannot be asked of a construction; raises `InputError`."""

    def asked_of(self, construction: Construction) -> "Goal":
        """What is asked where it is asked of this construction."""
        return self

    def check_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> None:  # noqa: B027
        """Refuse what does not fit the weights of a target, their shapes by name; raises `InputError`."""

    def check_source(self, construction: Construction, network: Network) -> None:  # noqa: B027
        """Refuse what cannot be found in a construction's random source; raises `InputError`."""

    def seconds_each(self, job: "Job") -> float | None:
        """Seconds that a weight takes, tried on a few; None where it is too little to ask."""
        return None

    @abc.abstractmethod
    def solve(self, job: "Job", chunk: "Chunk") -> Solved:
        """Solve one chunk."""

    @abc.abstractmethod
    def misfit(self, job: "Job", chunk: "Chunk", arrays: Solved) -> str | None:
        """What is wrong with arrays that claim to be a finished chunk, None where nothing is."""

    @abc.abstractmethod
    def chunk_bytes(self, job: "Job") -> Callable[["Chunk"], int]:
        """Bytes of a finished chunk, about."""

    @abc.abstractmethod
    def settle(self, job: "Job", solved: Callable[["Chunk"], Solved]) -> Settled:
        """Decide what is left to decide when every chunk is solved."""
