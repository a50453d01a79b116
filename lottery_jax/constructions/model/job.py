"""A job: everything that decides the masks of a model's ticket, and how the work is cut into chunks."""

import bisect
import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottery_jax import sampler
from lottery_jax.constructions.approximate import choose_solver
from lottery_jax.constructions.model.selection import scan, select
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.architecture import check as check_architecture
from lottery_jax.networks.architecture import source_tensors
from lottery_jax.networks.copies import ATTEMPT_STRIDE, Copies
from lottery_jax.sampler import Sampler, seed_words
from lottery_jax.subset_sum import Solver
from lottery_jax.tensor_file import Tensor, TensorFile

CONSTRUCTIONS = ("scalar", "scalar-shared")
_LEAST_BOUND = 2.0**-64  # of the candidates, so that no grid step falls below the normal float32


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some whole blocks of one tensor: blocks `first` ... `first + count - 1`, all on one stream."""

    number: int
    tensor: int
    first: int
    count: int


@dataclasses.dataclass(frozen=True)
class Job:
    """A model's file, its tensors as `Copies`, and how they are to be approximated; made by `plan_job`.

    dtypes, digests: type and SHA-256 of each tensor in the file. chunk_weights: target weights of a chunk, about
    (with shared candidates a chunk is whole rows); the masks do not depend on it.
    """

    source: Path
    tensors: tuple[Copies, ...]
    dtypes: tuple[str, ...]
    digests: tuple[str, ...]
    skipped: Mapping[str, str] = dataclasses.field(hash=False)
    seed: int
    construction: str
    objective: str
    candidates: int
    tolerance: float
    max_redraws: int
    solver: Solver
    chunk_weights: int

    @property
    def shared(self) -> bool:
        return self.construction == "scalar-shared"

    @property
    def weights(self) -> int:
        """Number of target weights."""
        return sum(layer.weights for layer in self.tensors)

    @property
    def target_bytes(self) -> int:
        """Bytes of the target weights in their own types."""
        kinds = zip(self.tensors, self.dtypes, strict=True)
        return sum(Tensor(layer.name, dtype, layer.shape).nbytes for layer, dtype in kinds)

    @property
    def method(self) -> str:
        return self.construction if self.objective == "least-error" else f"{self.construction}-{self.objective}"

    @functools.cached_property
    def streams(self) -> tuple[int, ...]:
        """The first stream of each tensor."""
        return tuple(tensor.stream for tensor in source_tensors(self.tensors))

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of all that the ticket depends on: equal for equal tickets, whatever the chunks."""
        facts = {
            "tensors": [dataclasses.asdict(layer) for layer in self.tensors],
            "dtypes": self.dtypes,
            "digests": self.digests,
            "settings": self.settings,
            "seed": self.seed,
            "tolerance": self.tolerance,
            "sampler_version": sampler.VERSION,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def fingerprint(self) -> str:
        """`identity` and the size of the chunks: what a chunk file must carry to belong to this job."""
        return hashlib.sha256(f"{self.identity} {self.chunk_weights}".encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """How the ticket is made, for its reader."""
        return {
            "construction": self.construction,
            "candidates": self.candidates,
            "objective": self.objective,
            "solver": repr(self.solver),
            "max_redraws": self.max_redraws,
        }

    @functools.cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks in order. Each but the last of a tensor has a multiple of 8 blocks: whole bytes of the mask."""
        found: list[Chunk] = []
        for place, layer in enumerate(self.tensors):
            step = max(self.chunk_weights // layer.block_weights // 8, 1) * 8
            for part in range(0, layer.blocks, layer.stream_blocks):
                stop = min(part + layer.stream_blocks, layer.blocks)
                for first in range(part, stop, step):
                    found.append(Chunk(len(found), place, first, min(step, stop - first)))
        return tuple(found)

    def chunks_of(self, tensor: int) -> tuple[Chunk, ...]:
        """The chunks of one tensor, which are neighbours."""
        first, last = (bisect.bisect_left(self.chunks, t, key=lambda chunk: chunk.tensor) for t in (tensor, tensor + 1))
        return self.chunks[first:last]

    def chunk_size(self, chunk: Chunk) -> int:
        """Target weights of a chunk."""
        return chunk.count * self.tensors[chunk.tensor].block_weights

    def mask_bytes(self, chunk: Chunk) -> int:
        return (self.chunk_size(chunk) * self.candidates + 7) // 8


def plan_job(
    source: str | os.PathLike[str],
    *,
    seed: int,
    construction: str = "scalar",
    candidates: int = 21,
    tolerance: float = 0.01,
    objective: str = "least-error",
    pattern: str | None = None,
    max_redraws: int = 20,
    solver: Solver | None = None,
    chunk_weights: int | None = None,
) -> Job:
    """Read a safetensors file once, slice by slice, and plan its approximation; raises `InputError`.

    Options are those of `approximate_model`. Candidates of a tensor are U[-m, m], m its largest |weight|.
    """
    if construction not in CONSTRUCTIONS:
        raise InputError(
            f"construction {construction!r} is not for model files; {suggest(construction, CONSTRUCTIONS)}"
        )
    if not 1 <= candidates < 1 << 16:
        raise InputError(f"candidates must be from 1 to 65535 per weight, not {candidates}; 21 is the published number")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance must be a positive number, not {tolerance}")
    if not 0 <= max_redraws < ATTEMPT_STRIDE:
        raise InputError(f"max_redraws must be from 0 to {ATTEMPT_STRIDE - 1}, not {max_redraws}")
    chunk_weights = chunk_weights or default_chunk(candidates)
    if chunk_weights < 8 or chunk_weights % 8:
        raise InputError(f"chunk_weights must be a multiple of 8, not {chunk_weights}")
    seed_words(seed)
    chosen_solver = solver or choose_solver(candidates, objective)
    chosen_solver.check(candidates)
    with TensorFile(source) as file:
        chosen, skipped = select(file, pattern)
        scanned = [scan(file, tensor) for tensor in chosen]
    tensors = tuple(
        Copies(tensor.name, tensor.shape, candidates, _sampler(found.largest), construction == "scalar-shared")
        for tensor, found in zip(chosen, scanned, strict=True)
    )
    check_architecture(tensors)
    return Job(
        source=Path(source),
        tensors=tensors,
        dtypes=tuple(tensor.dtype for tensor in chosen),
        digests=tuple(found.sha256 for found in scanned),
        skipped=skipped,
        seed=seed,
        construction=construction,
        objective=objective,
        candidates=candidates,
        tolerance=tolerance,
        max_redraws=max_redraws,
        solver=chosen_solver,
        chunk_weights=chunk_weights,
    )


def default_chunk(candidates: int) -> int:
    """Target weights of a chunk: what a kill may lose, some seconds of work; the exact search grows as 2**(n/2).

    >>> default_chunk(21), default_chunk(30), default_chunk(100)
    (262144, 32768, 8192)
    """
    if candidates > 44:
        return 1 << 13
    return 1 << max(18 - max(candidates - 23, 0) // 2, 10)


def _sampler(largest: float) -> Sampler:
    bound = max(largest, _LEAST_BOUND) if largest > 0 else 1.0
    return Sampler.uniform(-bound, bound)
