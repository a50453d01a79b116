"""A job: a target, its random source, the subset-sum problems of each tensor, the objective, and the chunks of work."""

import abc
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lottery_jax.constructions.base import Construction, TensorProblem
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.node import child_path
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Transform, transformed
from lottery_jax.rng import sampler
from lottery_jax.rng.threefry import checked_seed

ChunkResult = dict[str, np.ndarray]
"""Arrays of a solved chunk, as a chunk store keeps them."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Blocks `first` to `first + count - 1` of one random tensor, all on one stream; `weights` target weights."""

    number: int
    problem: TensorProblem
    first: int
    count: int

    @property
    def rows(self) -> np.ndarray:
        """Rows of the tensor's mask, one per target weight, int64 [weights]."""
        shared = self.problem.random_tensor.rows_per_block
        return np.arange(self.first * shared, (self.first + self.count) * shared)

    @property
    def weights(self) -> int:
        """Number of target weights."""
        return self.count * self.problem.random_tensor.rows_per_block


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkMasks:
    """Masks of a chunk: bits uint8, row-major, lowest first; and redraws, int64 rows (block of the tensor, attempt)."""

    bits: np.ndarray
    redraws: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectiveResult:
    """What an objective makes of all solved chunks: what the ticket guarantees, further settings, and masks by chunk.

    `tolerance` is of the largest |residual| of a weight, and relative to each tensor's largest |weight| if `relative`.
    """

    tolerance: float
    kept_budget: int | None
    settings: Mapping[str, Any]
    masks: Callable[[Chunk], ChunkMasks]
    relative: bool = False


class Objective(abc.ABC):
    """What the subsets optimise. Concrete objectives are frozen dataclasses with pure hooks; `run` drives them."""

    allows_locked: ClassVar[bool] = False
    """True if it supports sources with locked weights, which are always kept."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """JSON values that the masks depend on; "objective" names it."""

    @abc.abstractmethod
    def check(self, construction: Construction) -> "Objective":
        """The objective as it applies to a construction; raises `InputError` if it does not."""

    def check_source(self, construction: Construction, network: Network) -> None:  # noqa: B027
        """Refuse a random source that it does not support; raises `InputError`."""

    def seconds_per_weight(self, job: "Job") -> float | None:
        """Measured time of a weight's search; None if it is too short to announce."""
        return None

    @abc.abstractmethod
    def solve_chunk(self, job: "Job", chunk: Chunk) -> ChunkResult:
        """Solve one chunk: a pure function of the job and the chunk."""

    @abc.abstractmethod
    def validation_error(self, chunk: Chunk, arrays: ChunkResult) -> str | None:
        """How arrays differ from a result of this chunk; None if they have its names, shapes and types."""

    @abc.abstractmethod
    def result_bytes(self, chunk: Chunk) -> int:
        """Approximate size of a chunk's result."""

    @abc.abstractmethod
    def finalise(self, job: "Job", read: Callable[[Chunk], ChunkResult]) -> ObjectiveResult:
        """Turn the results of all chunks into masks. `read` gives the result of a chunk."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """Everything that determines a ticket, and its division into chunks; `plan_job` makes it.

    Args:
        target: The prepared target.
        network: The random source.
        edge_redraws: Redraws of edge tensors by name.
        settings: How the ticket is made, JSON values for its reader.
        identity: SHA-256 of everything that the ticket depends on, independent of the chunks.
        fingerprint: SHA-256 of `identity` and the chunk size. A chunk file with another one belongs to another job.
        path: File of the target, None if it is in memory.
    """

    target: Target
    network: Network
    problems: tuple[TensorProblem, ...]
    edge_redraws: Redraws
    seed: int
    construction: Construction
    objective: Objective
    settings: Mapping[str, Any]
    chunks: tuple[Chunk, ...]
    identity: str
    fingerprint: str
    path: Path | None = None

    @property
    def weights(self) -> int:
        """Number of target weights; each copy of a weight counts."""
        total = 0
        for problem in self.problems:
            total += problem.random_tensor.rows
        return total


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
    """Plan the approximation of a target: read it once, build the random source, pose its subset-sum problems.

    Args:
        seed: Seed of the random source, from 0 to 2**64 - 1.
        chunk_weights: Target weights of a chunk, a multiple of 8; the masks do not depend on it. Default: by the cost
            of the search, see `default_chunk_weights`.
        notes: Further settings to record in the ticket.

    Raises:
        InputError: If the options do not fit together, or the target has no weights or invalid ones.
    """
    seed = checked_seed(seed)
    objective = objective.check(construction)
    if chunk_weights is None:
        chunk_weights = default_chunk_weights(construction.candidates)
    if chunk_weights < 8 or chunk_weights % 8:
        raise InputError(f"chunk_weights must be a multiple of 8, got {chunk_weights}")
    path, target = target.path, construction.prepare(target)
    if not target.network.approximated:
        raise InputError("the target has no layer with weights to approximate")
    for name in target.network.tensors:
        target.scan(name)  # refuses weights that are not finite
    network = transformed(construction.source(target), transforms)
    random_tensors = network.random_tensors
    if not objective.allows_locked and any(drawn.sampler.locked > 0 for drawn in random_tensors.values()):
        raise InputError(
            "a budget does not support locked weights, because they are always kept; remove the lock, or the budget"
        )
    objective.check_source(construction, network)
    problems: list[TensorProblem] = []
    edge_redraws: dict[str, np.ndarray] = {}
    for layer, source in network.sources.items():
        drawn = {}
        for name in source.random_tensors():
            drawn[name] = random_tensors[child_path(layer, name)]
        layer_problems, redraws = construction.problems(network, layer, drawn, seed)
        problems += layer_problems
        for name, rows in redraws.items():
            if len(rows):
                edge_redraws[child_path(layer, name)] = rows
    chunks: list[Chunk] = []
    for problem in problems:
        tensor = problem.random_tensor
        # All chunks of a tensor but the last have a multiple of 8 blocks: whole bytes of the mask.
        step, run = max(chunk_weights // tensor.rows_per_block // 8, 1) * 8, tensor.layout.per_stream or tensor.blocks
        for start in range(0, tensor.blocks, run):
            stop = min(start + run, tensor.blocks)
            for first in range(start, stop, step):
                chunks.append(Chunk(len(chunks), problem, first, min(step, stop - first)))
    settings = {"construction": construction.name, **dataclasses.asdict(construction)}
    settings |= {**objective.settings(), **(notes or {})}
    facts = {
        "target": target.digest,
        "network": network.to_json(),
        "settings": settings,
        "seed": seed,
        "sampler_version": sampler.SAMPLER_VERSION,
    }
    identity = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    fingerprint = hashlib.sha256(f"{identity} {chunk_weights}".encode()).hexdigest()
    return Job(
        target=target,
        network=network,
        problems=tuple(problems),
        edge_redraws=edge_redraws,
        seed=seed,
        construction=construction,
        objective=objective,
        settings=settings,
        chunks=tuple(chunks),
        identity=identity,
        fingerprint=fingerprint,
        path=path,
    )


def default_chunk_weights(candidates: int) -> int:
    """Target weights of a chunk: seconds of work that a kill may lose; the exact search grows as 2**(n/2).

    >>> default_chunk_weights(21), default_chunk_weights(30), default_chunk_weights(100)
    (262144, 32768, 65536)
    """
    if candidates > 44:
        # At least 2,048 candidates are limited by memory: 64 MiB of candidates.
        return 1 << min(16, max(9, 24 - candidates.bit_length()))
    return 1 << max(18 - max(candidates - 23, 0) // 2, 10)
