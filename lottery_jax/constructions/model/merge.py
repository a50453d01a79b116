"""The merge: all chunks into one ticket, written as a stream and renamed, so that it is there whole or not at all."""

import contextlib
import hashlib
import os
import time
from pathlib import Path

import numpy as np

from lottery_jax.constructions.model.chunks import DamagedChunk, chunk_path, read_chunk
from lottery_jax.constructions.model.job import Chunk, Job
from lottery_jax.constructions.model.solve_chunk import Solved
from lottery_jax.errors import InputError
from lottery_jax.files import sync_folder
from lottery_jax.sealed import SealedWriter
from lottery_jax.tensor_file import Tensor, TensorFile
from lottery_jax.ticket import ENTRY, model_source_digest, ticket_header

_SLICE = 1 << 22  # bytes of the target copied at once
_POLL = 0.2  # seconds between two looks for chunks of other processes


def merge(job: Job, folder: Path, out: Path, *, timeout: float = 0.0) -> None:
    """Write the ticket of a job whose chunks are all in `folder`, and remove the folder.

    Waits up to `timeout` seconds for chunks that other processes still write. One process alone may merge. The same
    job gives the same bytes, however it was cut, interrupted or shared out. Raises `InputError` for a chunk that is
    missing, damaged, or of another job, and then leaves everything as it is.
    """
    redraws, failures = _wait(job, folder, timeout)
    source = model_source_digest(job.tensors, job.seed)
    settings = {**job.settings, "failures": failures, "job": job.identity}
    header = ticket_header(job.tensors, job.seed, job.method, job.tolerance, settings, source)
    tensors = []
    for place, layer in enumerate(job.tensors):
        tensors.append(Tensor(f"mask.{place}.kernel", "U8", ((layer.weights * layer.copies + 7) // 8,)))
        tensors.append(Tensor(f"target.{place}", job.dtypes[place], layer.shape))
        if redraws[place]:
            tensors.append(Tensor(f"redraws.{place}.kernel", "I64", (redraws[place], 2)))
    # In the chunks' folder: what a killed merge leaves goes with it.
    temporary = folder / f".ticket-{os.getpid()}"
    with SealedWriter(temporary, ENTRY, header, tensors) as writer, TensorFile(job.source) as file:
        for tensor in sorted(tensors, key=lambda tensor: tensor.name):
            kind, place = tensor.name.split(".")[:2]
            if kind == "target":
                _copy_target(job, int(place), file, writer, tensor.name)
                continue
            for chunk in job.chunks_of(int(place)):
                solved = _chunk(job, folder, chunk)
                content = solved.mask if kind == "mask" else solved.redraws
                writer.write(tensor.name, content.reshape(-1).view(np.uint8).data)
        writer.finish()
        try:
            temporary.chmod(0o644)
            temporary.replace(out)
        except OSError as error:
            raise InputError(
                f"cannot write {str(out)!r} ({error.strerror}); free some space or choose a writable folder"
            ) from None
    sync_folder(out.parent)  # before the chunks go, the ticket is on the disk
    remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove the chunks, what killed processes left half written, and the folder if nothing else is in it."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(("chunk-", ".chunk-", ".ticket-")):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _wait(job: Job, folder: Path, timeout: float) -> tuple[list[int], int]:
    """Number of redraw rows of each tensor, and failures, once every chunk is there and valid."""
    redraws, failures = [0] * len(job.tensors), 0
    end = time.monotonic() + timeout
    for chunk in job.chunks:
        while not chunk_path(folder, chunk.number).exists() and time.monotonic() < end:
            time.sleep(_POLL)
        solved = _chunk(job, folder, chunk)
        redraws[chunk.tensor] += len(solved.redraws)
        failures += solved.failures
    return redraws, failures


def _chunk(job: Job, folder: Path, chunk: Chunk) -> Solved:
    try:
        solved = read_chunk(job, folder, chunk)
    except DamagedChunk as error:
        raise InputError(f"{error}; run the same command again, which solves this chunk anew") from None
    if solved is None:
        raise InputError(
            f"chunk {chunk.number} of {len(job.chunks)} is missing in {str(folder)!r}; run the same command again,"
            " on every process"
        )
    return solved


def _copy_target(job: Job, place: int, file: TensorFile, writer: SealedWriter, name: str) -> None:
    tensor, sha = file.tensors[job.tensors[place].name], hashlib.sha256()
    for start in range(0, tensor.nbytes, _SLICE):
        content = file.read_bytes(tensor.start + start, min(_SLICE, tensor.nbytes - start))
        sha.update(content)
        writer.write(name, content)
    if sha.hexdigest() != job.digests[place]:
        raise InputError(
            f"tensor {tensor.name!r} of {file.where} changed while it was approximated; start again from a copy"
        )
