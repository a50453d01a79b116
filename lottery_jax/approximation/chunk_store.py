"""Stores of solved chunks: in memory, or as durable files, so that a killed job resumes.

A damaged file is solved again with a warning. A file of another job or version is refused, and never changed.
"""

import contextlib
from pathlib import Path

from lottery_jax.approximation.job import Chunk, ChunkResult, Job
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import ChecksummedFile, checksummed_bytes
from lottery_jax.io.files import write_atomically
from lottery_jax.io.tensor_file import FormatError, read_array
from lottery_jax.workers.shared_objects import PREFIX

_FORMAT = "lottery_jax chunk"
_VERSION = 2
_ENTRY = "chunk"


class DamagedChunk(Exception):
    """A chunk's file with other content than was written; the chunk is solved again."""


class MemoryChunkStore:
    """Results of one job's chunks in memory, as `FolderChunkStore` keeps them in files."""

    def __init__(self) -> None:
        self._results: dict[int, ChunkResult] = {}

    def has(self, chunk: Chunk) -> bool:
        return chunk.number in self._results

    def read(self, job: Job, chunk: Chunk) -> ChunkResult | None:
        return self._results.get(chunk.number)

    def write(self, job: Job, chunk: Chunk, arrays: ChunkResult) -> None:
        self._results[chunk.number] = arrays


class FolderChunkStore:
    """Results of chunks as files of a folder, which several processes may share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Create the folder if it is missing; raises `InputError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot create the folder {str(self.path)!r} ({error.strerror}); choose another --out"
            ) from None

    def file(self, number: int) -> Path:
        """The file of a chunk.

        >>> FolderChunkStore(Path("t.chunks")).file(3).name
        'chunk-00000003.safetensors'
        """
        return self.path / f"chunk-{number:08d}.safetensors"

    def has(self, chunk: Chunk) -> bool:
        """True if the folder has a chunk, damaged or not."""
        return self.file(chunk.number).exists()

    def write(self, job: Job, chunk: Chunk, arrays: ChunkResult) -> None:
        """Store the result of a chunk, atomically."""
        header = {"format": _FORMAT, "version": _VERSION, "job": job.fingerprint, "number": chunk.number}
        header["chunks"] = len(job.chunks)  # for readers without the job, such as `lottery-jax status`
        write_atomically(self.file(chunk.number), checksummed_bytes(_ENTRY, header, arrays))

    def read(self, job: Job, chunk: Chunk) -> ChunkResult | None:
        """The result of a chunk, None if missing; raises `DamagedChunk`, or `InputError` for another job's chunk."""
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
                f" finish it with the program that wrote it, or remove {str(self.path)!r}"
            )
        if header.get("job") != job.fingerprint:
            raise InputError(
                f"{str(path)!r} belongs to another job (another target, seed or option); finish that job with its own"
                f" command, remove {str(self.path)!r}, or choose another --out"
            )
        if header.get("number") != chunk.number:
            raise DamagedChunk(f"the file {str(path)!r} holds chunk {header.get('number')}")
        error = job.objective.validation_error(chunk, arrays)
        if error:
            raise DamagedChunk(f"the file {str(path)!r} holds {error}")
        return arrays

    def belongs_to(self, job: Job) -> bool:
        """False if the folder has a chunk of another job."""
        for chunk in job.chunks:
            try:
                self.read(job, chunk)
            except DamagedChunk:
                continue
            except InputError:
                return False
        return True

    def finished(self) -> int:
        """Number of chunks in the folder."""
        return len(list(self.path.glob("chunk-*")))

    def total(self) -> int | None:
        """Number of chunks of the job, read from any chunk; None if no chunk is readable."""
        for path in sorted(self.path.glob("chunk-*")):
            with contextlib.suppress(OSError, FormatError, InputError), ChecksummedFile(path, _ENTRY) as file:
                if type(number := file.header.get("chunks")) is int and number > 0:
                    return number
        return None

    def remove_if_empty(self) -> None:
        """Remove the folder if it has no finished chunk."""
        if not self.finished():
            self.remove()

    def remove(self) -> None:
        """Remove the chunks and temporary files of killed processes, then the folder unless it has other files."""
        if not self.path.is_dir():
            return
        for path in self.path.iterdir():
            if path.name.startswith(("chunk-", ".chunk-", ".ticket-", PREFIX, f".{PREFIX}", "lock")):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()


ChunkStore = MemoryChunkStore | FolderChunkStore
