"""Durable chunks: each finished chunk is a sealed file in a folder, so that a killed job goes on where it was.

A chunk's file carries the job's fingerprint and its own number under a digest. A file that is cut off, changed or in
another's place is solved again, and said; one of another job or version is never touched, but refused.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lottery_jax.constructions.model.job import Chunk, Job
from lottery_jax.constructions.model.solve_chunk import Solved, solve_chunk
from lottery_jax.errors import InputError
from lottery_jax.files import write_atomically
from lottery_jax.sealed import SealedFile, seal
from lottery_jax.tensor_file import FormatError, TensorFile

FORMAT = "lottery_jax chunk"
VERSION = 1
ENTRY = "chunk"
_WRITERS = 2  # threads that wait for the disk

Progress = Callable[[int, bool], None]
"""Called for each chunk of this process with its number of weights, and whether they were solved now (or found)."""


class DamagedChunk(Exception):
    """A chunk's file that is not what was written as this chunk: it is solved again."""


@dataclasses.dataclass(frozen=True)
class Done:
    """What `solve_chunks` did: weights found solved, weights solved now, and what was wrong with files it replaced."""

    found: int
    solved: int
    damaged: tuple[str, ...] = ()


def chunk_path(folder: Path, number: int) -> Path:
    """
    The file of a chunk.

    >>> chunk_path(Path("t.chunks"), 3).name
    'chunk-00000003.safetensors'
    """
    return folder / f"chunk-{number:08d}.safetensors"


def solve_chunks(
    job: Job, folder: Path, *, process: int = 0, processes: int = 1, progress: Progress | None = None
) -> Done:
    """Solve the chunks c with c % processes == process whose files are not in `folder` yet.

    Kill it at any moment and call it again: what is finished is not solved again. Raises `InputError` where the
    folder holds chunks of another job, or cannot be written.
    """
    if not 0 <= process < processes:
        raise InputError(f"process {process} of {processes} does not exist; count from 0")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {str(folder)!r} cannot be made ({error.strerror}); choose another place with --out"
        ) from None
    mine, open_, damaged = job.chunks[process::processes], [], []
    found = solved = 0
    for chunk in mine:
        try:
            present = read_chunk(job, folder, chunk) is not None
        except DamagedChunk as error:
            damaged.append(str(error))
            present = False
        if not present:
            open_.append(chunk)
            continue
        found += job.chunk_size(chunk)
        if progress is not None:
            progress(job.chunk_size(chunk), False)
    if open_:
        solved = _solve_and_write(job, folder, open_, progress)
    return Done(found, solved, tuple(damaged))


def _solve_and_write(job: Job, folder: Path, chunks: list[Chunk], progress: Progress | None) -> int:
    """Solve and write chunks in order, the last few written while the next is solved; returns the weights."""
    written, weights = collections.deque[tuple[Chunk, concurrent.futures.Future[None]]](), 0

    def wait_for_oldest() -> None:
        nonlocal weights
        chunk, future = written.popleft()
        future.result()
        weights += job.chunk_size(chunk)
        if progress is not None:
            progress(job.chunk_size(chunk), True)

    # Whatever ends this, an interrupt too, the pool ends with the chunks that were solved on the disk.
    with concurrent.futures.ThreadPoolExecutor(_WRITERS) as pool, TensorFile(job.source) as file:
        for chunk in chunks:
            solved = solve_chunk(job, chunk, file)
            written.append((chunk, pool.submit(write_chunk, job, folder, chunk, solved)))
            while len(written) > _WRITERS or (written and written[0][1].done()):
                wait_for_oldest()
        while written:
            wait_for_oldest()
    return weights


def write_chunk(job: Job, folder: Path, chunk: Chunk, solved: Solved) -> None:
    """Write a chunk's file, whole or not at all."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "job": job.fingerprint,
        "number": chunk.number,
        "failures": solved.failures,
        "kept": solved.kept,
    }
    content = seal(ENTRY, header, {"mask": solved.mask, "redraws": solved.redraws})
    write_atomically(chunk_path(folder, chunk.number), content)


def read_chunk(job: Job, folder: Path, chunk: Chunk) -> Solved | None:
    """A chunk from its file, None if there is none; raises `DamagedChunk`, or `InputError` for another job's."""
    path = chunk_path(folder, chunk.number)
    if not path.exists():
        return None
    try:
        with SealedFile(path, ENTRY) as file:
            file.check_digest()
            header = file.header
            arrays = {name: file.array(name) for name in file.tensors}
    except FormatError as error:
        raise DamagedChunk(str(error)) from None
    if (header.get("format"), header.get("version")) != (FORMAT, VERSION):
        raise InputError(
            f"{str(path)!r} is a chunk of version {header.get('version')}, and this program reads {VERSION};"
            f" finish it with the program that began it, or remove {str(folder)!r}"
        )
    if header.get("job") != job.fingerprint:
        raise InputError(
            f"{str(path)!r} belongs to another job (another model, seed or option); finish that one with its own"
            f" command, remove {str(folder)!r}, or choose another --out"
        )
    if header.get("number") != chunk.number:
        raise DamagedChunk(f"the file {str(path)!r} holds chunk {header.get('number')}")
    mask, redraws = arrays["mask"], arrays["redraws"]
    if mask.shape != (job.mask_bytes(chunk),) or redraws.shape[1:] != (2,) or redraws.dtype != np.int64:
        raise DamagedChunk(f"the file {str(path)!r} holds arrays of other shapes than chunk {chunk.number}")
    return Solved(mask, redraws, header["failures"], header["kept"])
