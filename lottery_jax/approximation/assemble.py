"""Assembling the ticket of a job whose chunks are solved: in memory, or streamed to a file chunk by chunk."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lottery_jax.approximation.job import Chunk, ChunkResult, Job, ObjectiveResult
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import ChecksummedWriter
from lottery_jax.io.tensor_file import DTYPES, InMemoryTensors, TensorInfo
from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.rng.forced_entries import forced_mask
from lottery_jax.tickets.header import Header
from lottery_jax.tickets.ticket import ENTRY, Ticket, source_digest

_SLICE = 1 << 20  # values of a target copied at once


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    """The header of a ticket, and what its tensors consist of; `tensors` by name."""

    header: Header
    tensors: dict[str, TensorInfo]
    result: ObjectiveResult
    chunks: dict[str, list[Chunk]]
    edge_masks: dict[str, np.ndarray]


def assemble(job: Job, read: Callable[[Chunk], ChunkResult]) -> Ticket:
    """The ticket of a job in memory. `read` gives the result of a chunk."""
    parts, arrays = _parts(job, read), {}
    for name, tensor in parts.tensors.items():
        arrays[name] = np.concatenate(list(_content(job, parts, name))).reshape(tensor.shape)
    return Ticket(parts.header, InMemoryTensors(arrays))


def assemble_to_file(job: Job, read: Callable[[Chunk], ChunkResult], path: Path) -> None:
    """Write the ticket of a job. Its bytes depend on the job's identity alone. `read` gives the result of a chunk."""
    parts = _parts(job, read)
    with ChecksummedWriter(path, ENTRY, parts.header.to_json(), parts.tensors.values()) as writer:
        for name in sorted(parts.tensors):
            for values in _content(job, parts, name):
                writer.write(name, np.ascontiguousarray(values).view(np.uint8).data)
        writer.finish()


def _parts(job: Job, read: Callable[[Chunk], ChunkResult]) -> _Parts:
    """One pass over all chunks before anything is written: it counts redraws, and collects kept edges."""
    network, result = job.network, job.objective.finalise(job, read)
    chunks: dict[str, list[Chunk]] = {}
    redraws: dict[str, int] = {}
    edge_masks: dict[str, np.ndarray] = {}
    used_edges: set[str] = set()
    for name, rows in job.edge_redraws.items():
        redraws[name] = len(rows)
    for problem in job.problems:
        edge_masks |= problem.edge_masks
        if problem.edge_tensor and problem.edge_tensor not in used_edges:
            used_edges.add(problem.edge_tensor)
            edge_masks[problem.edge_tensor] = np.zeros(network.random_tensors[problem.edge_tensor].shape, bool)
    for chunk in job.chunks:
        problem, masks = chunk.problem, result.masks(chunk)
        chunks.setdefault(problem.tensor, []).append(chunk)
        redraws[problem.tensor] = redraws.get(problem.tensor, 0) + len(masks.redraws)
        if problem.edge_tensor:
            # An edge is kept if a weight of its group uses it.
            width = problem.random_tensor.width
            mask = np.unpackbits(masks.bits, count=chunk.weights * width, bitorder="little").reshape(-1, width)
            order, groups, first = problem.sort_by_group(chunk.rows)
            edge_masks[problem.edge_tensor][groups] |= np.bitwise_or.reduceat(mask[order], first).astype(bool)
    for name in used_edges:
        # A locked weight may use an absent edge.
        forced = forced_mask(network.random_tensors[name], job.seed, job.edge_redraws.get(name, NO_REDRAWS))
        edge_masks[name] = (edge_masks[name] | (forced == 1)) & (forced >= 0)
    found = []
    for name, drawn in network.random_tensors.items():
        found.append(TensorInfo(f"mask.{name}", "U8", ((drawn.size + 7) // 8,)))
        if redraws.get(name):
            found.append(TensorInfo(f"redraws.{name}", "I64", (redraws[name], 2)))
    for name, tensor in job.target.tensors.tensors.items():
        if name in network.approximated:
            found.append(TensorInfo(f"target.{name}", tensor.dtype, tensor.shape))
        else:
            found.append(TensorInfo(f"stored.{name}", "F32", tensor.shape))
    tensors = {}
    for tensor in found:
        tensors[tensor.name] = tensor
    objective = job.settings["objective"]
    header = Header(
        network,
        job.seed,
        job.construction.name + ("" if objective == "least-error" else f"-{objective}"),
        source_digest(network, job.seed),
        result.tolerance,
        result.kept_budget,
        {**job.settings, **result.settings, "job": job.identity},
        result.relative,
    )
    return _Parts(header, tensors, result, chunks, edge_masks)


def _content(job: Job, parts: _Parts, tensor: str) -> Iterator[np.ndarray]:
    """The values of a ticket's tensor in order, one-dimensional, in parts."""
    kind, _, name = tensor.partition(".")
    if kind == "mask" and name in parts.edge_masks:
        yield np.packbits(parts.edge_masks[name], bitorder="little")
    elif kind == "redraws" and name in job.edge_redraws:
        yield job.edge_redraws[name].reshape(-1)
    elif kind in ("mask", "redraws"):
        for chunk in parts.chunks[name]:
            masks = parts.result.masks(chunk)
            yield masks.bits if kind == "mask" else masks.redraws.reshape(-1)
    else:
        target, sha = job.target, hashlib.sha256()
        stored = target.tensors.tensors[name]
        for start in range(0, stored.size, _SLICE):
            values = target.tensors.read(name, start, min(_SLICE, stored.size - start))
            sha.update(values.data)
            values = values.view(DTYPES[stored.dtype])
            yield values if kind == "target" else values.astype(np.float32)
        if sha.hexdigest() != target.scan(name).sha256:
            raise InputError(
                f"tensor {name!r} of the target changed while it was approximated; start again from a copy of its file"
            )
