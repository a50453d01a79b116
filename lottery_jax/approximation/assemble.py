"""All chunks into one ticket: in memory, or written as a stream."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lottery_jax.approximation.job import Chunk, Job, ObjectiveResult, Solved
from lottery_jax.constructions.base import Plan
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import ChecksummedWriter
from lottery_jax.io.tensor_file import DTYPES, InMemoryTensors, TensorInfo
from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.rng.forced_entries import forced_mask
from lottery_jax.tickets.header import Header
from lottery_jax.tickets.ticket import ENTRY, Ticket, source_digest

_SLICE = 1 << 20  # values of a target copied at once


class Assembly:
    """A ticket's header, the tensors of its file, and the bytes of each, in order."""

    def __init__(self, job: Job, solved: Callable[[Chunk], Solved]) -> None:
        self.job = job
        self.settled: ObjectiveResult = job.objective.finalise(job, solved)
        self._chunks = {plan.tensor: [c for c in job.chunks if c.plan == at] for at, plan in enumerate(job.plans)}
        self._redraws = {name: len(rows) for name, rows in job.edge_redraws.items()}
        self._edges = {
            plan.edges: np.zeros(job.network.random_tensors[plan.edges].shape, bool) for plan in job.plans if plan.edges
        }
        self._edges |= {name: mask for plan in job.plans for name, mask in plan.built.items()}
        edges = {plan.edges for plan in job.plans if plan.edges}
        # One look at every chunk before anything is written: sizes must be known, and edges follow from masks.
        for plan in job.plans:
            for chunk in self._chunks[plan.tensor]:
                masks = self.settled.masks(chunk)
                self._redraws[plan.tensor] = self._redraws.get(plan.tensor, 0) + len(masks.redraws)
                if plan.edges:
                    _keep_edges(self._edges[plan.edges], plan, chunk, masks.bits)
        for name in edges:
            # A locked weight may stand behind an edge that is not there.
            forced = forced_mask(job.network.random_tensors[name], job.seed, job.edge_redraws.get(name, NO_REDRAWS))
            self._edges[name] = (self._edges[name] | (forced == 1)) & (forced >= 0)
        settings = {**job.settings, **self.settled.settings, "job": job.identity}
        self.header = Header(
            job.network,
            job.seed,
            job.method,
            source_digest(job.network, job.seed),
            self.settled.tolerance,
            self.settled.kept_budget,
            settings,
            self.settled.relative,
        )

    def tensors(self) -> list[TensorInfo]:
        """The tensors of the ticket's file."""
        job, found = self.job, []
        for name, drawn in job.network.random_tensors.items():
            found.append(TensorInfo(f"mask.{name}", "U8", ((drawn.size + 7) // 8,)))
            if self._redraws.get(name):
                found.append(TensorInfo(f"redraws.{name}", "I64", (self._redraws[name], 2)))
        for name, tensor in job.target.tensors.tensors.items():
            if name in job.network.approximated:
                found.append(TensorInfo(f"target.{name}", tensor.dtype, tensor.shape))
            else:
                found.append(TensorInfo(f"stored.{name}", "F32", tensor.shape))
        return found

    def content(self, tensor: TensorInfo) -> Iterator[np.ndarray]:
        """The values of one tensor in order, one-dimensional, in parts."""
        kind, _, name = tensor.name.partition(".")
        if kind == "mask" and name in self._edges:
            yield np.packbits(self._edges[name], bitorder="little")
        elif kind == "redraws" and name in self.job.edge_redraws:
            yield self.job.edge_redraws[name].reshape(-1)
        elif kind in ("mask", "redraws"):
            for chunk in self._chunks[name]:
                masks = self.settled.masks(chunk)
                yield masks.bits if kind == "mask" else masks.redraws.reshape(-1)
        else:
            values = self._target(name)
            yield from values if kind == "target" else (part.astype(np.float32) for part in values)

    def _target(self, name: str) -> Iterator[np.ndarray]:
        """A tensor of the target in parts; raises `InputError` where it is not what was approximated."""
        target, sha = self.job.target, hashlib.sha256()
        tensor = target.tensors.tensors[name]
        for start in range(0, tensor.size, _SLICE):
            stored = target.tensors.read(name, start, min(_SLICE, tensor.size - start))
            sha.update(stored.data)
            yield stored.view(DTYPES[tensor.dtype])
        if sha.hexdigest() != target.scan(name).sha256:
            raise InputError(
                f"tensor {name!r} of the target changed while it was approximated; start again from a copy of its file"
            )


def _keep_edges(edges: np.ndarray, plan: Plan, chunk: Chunk, bits: np.ndarray) -> None:
    """An edge is kept where some weight behind it is: rows of a chunk's mask, put together by group."""
    assert plan.group is not None
    each = plan.random_tensor.rows_per_block
    rows = np.arange(chunk.first * each, (chunk.first + chunk.count) * each)
    mask = np.unpackbits(bits, count=len(rows) * plan.random_tensor.width, bitorder="little").reshape(len(rows), -1)
    group = plan.group(rows)
    order = np.argsort(group, kind="stable")
    groups, first = np.unique(group[order], return_index=True)
    edges[groups] |= np.bitwise_or.reduceat(mask[order], first).astype(bool)


def in_memory(job: Job, solved: Callable[[Chunk], Solved]) -> Ticket:
    """The ticket of a job whose chunks are all solved."""
    assembly = Assembly(job, solved)
    content = {}
    for tensor in assembly.tensors():
        parts = list(assembly.content(tensor))
        content[tensor.name] = np.concatenate(parts).reshape(tensor.shape)
    return Ticket(assembly.header, InMemoryTensors(content))


def to_file(job: Job, solved: Callable[[Chunk], Solved], path: Path) -> None:
    """Write the ticket of a job. The same job gives the same bytes, however it was cut, interrupted or shared out."""
    assembly = Assembly(job, solved)
    tensors = assembly.tensors()
    with ChecksummedWriter(path, ENTRY, assembly.header.to_json(), tensors) as writer:
        for tensor in sorted(tensors, key=lambda tensor: tensor.name):
            for part in assembly.content(tensor):
                writer.write(tensor.name, np.ascontiguousarray(part).view(np.uint8).data)
        writer.finish()
