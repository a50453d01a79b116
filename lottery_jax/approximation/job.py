"""What is asked of the subsets: every weight within a tolerance (`ToleranceObjective`), or a budget (`budget`).

A job: everything that decides a ticket, and how the work is cut into chunks. What runs it is `run`.
"""

import abc
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lottery_jax.constructions.base import Construction, Plan
from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import TensorInfo
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Transform, transformed
from lottery_jax.rng import sampler
from lottery_jax.rng.threefry import seed_words

Solved = dict[str, np.ndarray]
"""What is kept of a finished chunk, in memory or in its file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Masks:
    """The masks of a chunk: bits uint8, row-major, lowest first, and redraws int64 (block of the tensor, attempt)."""

    bits: np.ndarray
    redraws: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectiveResult:
    """What a job came to when every chunk was solved: what the ticket promises, and the masks chunk by chunk."""

    tolerance: float
    kept_budget: int | None
    settings: Mapping[str, Any]
    masks: Callable[["Chunk"], Masks]
    relative: bool = False


class Objective(abc.ABC):
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

    def asked_of(self, construction: Construction) -> "Objective":
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
    def validation_error(self, job: "Job", chunk: "Chunk", arrays: Solved) -> str | None:
        """What is wrong with arrays that claim to be a finished chunk, None where nothing is."""

    @abc.abstractmethod
    def chunk_bytes(self, job: "Job") -> Callable[["Chunk"], int]:
        """Bytes of a finished chunk, about."""

    @abc.abstractmethod
    def finalise(self, job: "Job", solved: Callable[["Chunk"], Solved]) -> ObjectiveResult:
        """Decide what is left to decide when every chunk is solved."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some whole blocks of one tensor: blocks `first` ... `first + count - 1`, all on one stream."""

    number: int
    plan: int
    first: int
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A prepared target, its random source, and how the one is found in the other.

    chunk_weights: target weights of a chunk, about; the masks do not depend on it. path: the file that the target was
    read from, if it was. notes: what else the ticket's settings say of how it was made. Made by `plan_job`.
    """

    target: Target
    network: Network
    plans: tuple[Plan, ...]
    edge_redraws: Redraws
    seed: int
    construction: Construction
    objective: Objective
    chunk_weights: int
    path: Path | None = None
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def weights(self) -> int:
        """Number of target weights, each as often as it is approximated."""
        return sum(plan.random_tensor.rows for plan in self.plans)

    @property
    def method(self) -> str:
        return "-".join(filter(None, (self.construction.name, self.objective.suffix)))

    @property
    def settings(self) -> dict[str, Any]:
        """How the ticket is made, for its reader."""
        own = {"construction": self.construction.name, **dataclasses.asdict(self.construction)}
        return {**own, **self.objective.settings(), **self.notes}

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of all that the ticket depends on: equal for equal tickets, whatever the chunks."""
        facts = {
            "target": self.target.digest,
            "network": self.network.to_json(),
            "settings": self.settings,
            "seed": self.seed,
            "sampler_version": sampler.SAMPLER_VERSION,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def fingerprint(self) -> str:
        """`identity` and the size of the chunks: what a chunk file must carry to belong to this job."""
        return hashlib.sha256(f"{self.identity} {self.chunk_weights}".encode()).hexdigest()

    @functools.cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks in order. Each but the last of a tensor has a multiple of 8 blocks: whole bytes of the mask."""
        found: list[Chunk] = []
        for place, plan in enumerate(self.plans):
            drawn = plan.random_tensor
            step = max(self.chunk_weights // drawn.rows_per_block // 8, 1) * 8
            run = drawn.layout.per_stream or drawn.blocks
            for part in range(0, drawn.blocks, run):
                stop = min(part + run, drawn.blocks)
                for first in range(part, stop, step):
                    found.append(Chunk(len(found), place, first, min(step, stop - first)))
        return tuple(found)

    def chunk_size(self, chunk: Chunk) -> int:
        """Target weights of a chunk."""
        return chunk.count * self.plans[chunk.plan].random_tensor.rows_per_block

    def mask_bytes(self, chunk: Chunk) -> int:
        return (self.chunk_size(chunk) * self.plans[chunk.plan].random_tensor.width + 7) // 8

    @property
    def ticket_bytes(self) -> int:
        """Size of the ticket's tensors, but for what is drawn again."""
        masks = sum((drawn.size + 7) // 8 for drawn in self.network.random_tensors.values())
        tensors = self.target.tensors.tensors.values()
        return masks + sum(TensorInfo(tensor.name, tensor.dtype, tensor.shape).nbytes for tensor in tensors)


def plan_job(
    target: Target,
    construction: Construction,
    objective: Objective,
    *,
    seed: int,
    chunk_weights: int | None = None,
    notes: Mapping[str, Any] | None = None,
    transforms: Sequence[Transform] = (),
) -> Job:
    """Read a target once, slice by slice, and plan its approximation in the transformed source; raises `InputError`."""
    if type(seed) is not int:
        raise InputError(f"seed must be a whole number in [0, 2**64), not {seed!r}")
    seed_words(seed)
    objective.check(construction)
    objective = objective.asked_of(construction)
    if chunk_weights is None:
        chunk_weights = default_chunk(construction.candidates)
    if chunk_weights < 8 or chunk_weights % 8:
        raise InputError(f"chunk_weights must be a multiple of 8, not {chunk_weights}")
    path, target = target.path, construction.prepared(target)
    if not target.network.approximated:
        raise InputError("the target has no layer with weights to approximate")
    objective.check_weights(target.network.approximated)
    for name in target.network.tensors:
        target.scan(name)
    network = transformed(construction.source(target), transforms)
    if not objective.locks and any(drawn.sampler.locked > 0 for drawn in network.random_tensors.values()):
        raise InputError(
            "locked weights are kept whatever they cost, which only a tolerance for each weight allows for; lock none,"
            " or leave out the budget"
        )
    objective.check_source(construction, network)
    plans, redraws = construction.all_plans(network, seed)
    return Job(target, network, plans, redraws, seed, construction, objective, chunk_weights, path, notes or {})


def default_chunk(candidates: int) -> int:
    """Target weights of a chunk: what a kill may lose, some seconds of work; the exact search grows as 2**(n/2).

    >>> default_chunk(21), default_chunk(30), default_chunk(100)
    (262144, 32768, 65536)
    """
    if candidates > 44:
        return 1 << min(16, max(9, 24 - candidates.bit_length()))  # beyond 2,047 by their memory: 64 MiB of candidates
    return 1 << max(18 - max(candidates - 23, 0) // 2, 10)
