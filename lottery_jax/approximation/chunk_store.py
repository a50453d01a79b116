"""Where finished chunks are kept: in memory, or as durable files, so that a killed job goes on where it was.

A chunk's file carries the job's fingerprint and its own number under a digest. A file that is cut off, changed or in
another's place is solved again, and said; one of another job or version is never touched, but refused.
"""

import contextlib
from pathlib import Path
from typing import Protocol

from lottery_jax.approximation.job import Chunk, Job, Solved
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import ChecksummedFile, checksummed_bytes
from lottery_jax.io.files import write_atomically
from lottery_jax.io.tensor_file import FormatError, read_array
from lottery_jax.workers.cluster import SEEN

_FORMAT = "lottery_jax chunk"

_VERSION = 2

_ENTRY = "chunk"


class ChunkStore(Protocol):
    """Finished chunks by number."""

    def has(self, chunk: Chunk) -> bool:
        """Whether something is there for a chunk, whole or not."""
        ...

    def read(self, job: Job, chunk: Chunk) -> Solved | None:
        """What a chunk came to, None if it is not there; raises `DamagedChunk`, or `InputError` for another job's."""
        ...

    def write(self, job: Job, chunk: Chunk, arrays: Solved) -> None:
        """Keep a chunk, whole or not at all."""
        ...


class MemoryChunkStore:
    """Finished chunks of one job in memory."""

    def __init__(self) -> None:
        self._chunks: dict[int, Solved] = {}

    def has(self, chunk: Chunk) -> bool:
        return chunk.number in self._chunks

    def read(self, job: Job, chunk: Chunk) -> Solved | None:
        return self._chunks.get(chunk.number)

    def write(self, job: Job, chunk: Chunk, arrays: Solved) -> None:
        self._chunks[chunk.number] = arrays


class DamagedChunk(Exception):
    """A chunk's file that is not what was written as this chunk: it is solved again."""


class FolderChunkStore:
    """Finished chunks as files of a folder that other processes may share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Make the folder if it is not there; raises `InputError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the folder {str(self.path)!r} cannot be made ({error.strerror}); choose another place with --out"
            ) from None

    def file(self, number: int) -> Path:
        """The file of a chunk.

        >>> FolderChunkStore(Path("t.chunks")).file(3).name
        'chunk-00000003.safetensors'
        """
        return self.path / f"chunk-{number:08d}.safetensors"

    def has(self, chunk: Chunk) -> bool:
        return self.file(chunk.number).exists()

    def write(self, job: Job, chunk: Chunk, arrays: Solved) -> None:
        header = {"format": _FORMAT, "version": _VERSION, "job": job.fingerprint, "number": chunk.number}
        header["chunks"] = len(job.chunks)  # for whoever only looks, and does not know the job
        write_atomically(self.file(chunk.number), checksummed_bytes(_ENTRY, header, arrays))

    def read(self, job: Job, chunk: Chunk) -> Solved | None:
        path = self.file(chunk.number)
        if not path.exists():
            return None
        try:
            with ChecksummedFile(path, _ENTRY) as file:
                file.check_digest()
                header = file.header
                arrays = {name: read_array(file, name) for name in file.tensors}
        except FormatError as error:
            raise DamagedChunk(str(error)) from None
        if (header.get("format"), header.get("version")) != (_FORMAT, _VERSION):
            raise InputError(
                f"{str(path)!r} is a chunk of version {header.get('version')}, and this program reads {_VERSION};"
                f" finish it with the program that began it, or remove {str(self.path)!r}"
            )
        if header.get("job") != job.fingerprint:
            raise InputError(
                f"{str(path)!r} belongs to another job (another target, seed or option); finish that one with its own"
                f" command, remove {str(self.path)!r}, or choose another --out"
            )
        if header.get("number") != chunk.number:
            raise DamagedChunk(f"the file {str(path)!r} holds chunk {header.get('number')}")
        wrong = job.objective.validation_error(job, chunk, arrays)
        if wrong:
            raise DamagedChunk(f"the file {str(path)!r} holds {wrong}")
        return arrays

    def is_of(self, job: Job) -> bool:
        """False where a chunk of another job is there."""
        for chunk in job.chunks:
            try:
                self.read(job, chunk)
            except DamagedChunk:
                continue
            except InputError:
                return False
        return True

    def finished(self) -> int:
        """How many chunks there are."""
        return len(list(self.path.glob("chunk-*")))

    def whole(self) -> int | None:
        """How many chunks the job has, as one that is there says; None where none says it."""
        for path in sorted(self.path.glob("chunk-*")):
            with contextlib.suppress(OSError, FormatError, InputError), ChecksummedFile(path, _ENTRY) as file:
                if type(number := file.header.get("chunks")) is int and number > 0:
                    return number
        return None

    def remove_unfinished(self) -> None:
        """Remove the folder if no chunk was finished."""
        if not self.finished():
            self.remove()

    def remove(self) -> None:
        """Remove the chunks, what killed processes left half written, and the folder if nothing else is in it."""
        if not self.path.is_dir():
            return
        for path in self.path.iterdir():
            if path.name.startswith(("chunk-", ".chunk-", ".ticket-", SEEN, "lock")):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()
