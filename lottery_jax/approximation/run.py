"""Running a job: solve the missing chunks, here, in shares or on workers of an executor, and assemble the ticket."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lottery_jax.approximation.assemble import assemble, assemble_to_file
from lottery_jax.approximation.chunk_store import ChunkStore, DamagedChunk, FolderChunkStore, MemoryChunkStore
from lottery_jax.approximation.job import Chunk, ChunkResult, Job
from lottery_jax.errors import InputError, TicketError
from lottery_jax.io.checksummed_file import ChecksummedFile
from lottery_jax.io.files import check_overwrite, sync_folder, wait_for_file
from lottery_jax.io.locks import folder_lock
from lottery_jax.io.tensor_file import FormatError
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.tickets.ticket import ENTRY, Ticket, load_ticket, stores_coded
from lottery_jax.tickets.verify import verify
from lottery_jax.workers.executors import run_units
from lottery_jax.workers.shared_objects import SharedObject
from lottery_jax.workers.units import Share, Unit

CHUNKS_SUFFIX = ".chunks"
"""End of the name of the folder of chunks."""

_WRITER_THREADS = 2  # they wait for the disk
_ANNOUNCED_SECONDS = 5.0  # a search of at least this time is announced
_LISTED = 8  # missing chunks in a message


@dataclasses.dataclass(frozen=True)
class JobResult:
    """Target weights found solved, and solved in this run.

    `damaged` are messages about damaged chunk files, which were replaced; `path` is None if no ticket is written yet.
    """

    found: int
    solved: int
    damaged: tuple[str, ...] = ()
    path: Path | None = None


def run_in_memory(job: Job, *, store: MemoryChunkStore | None = None, progress: Progress = no_progress) -> Ticket:
    """The ticket of a job, without any file.

    `store` has solved chunks to reuse and extend; jobs that differ only in the budget share them.
    """
    chunks = store or MemoryChunkStore()
    solve_job(job, chunks, progress=progress)
    return assemble(job, functools.partial(_read_or_solve, job, chunks))


def run_to_file(
    job: Job,
    out: Path,
    *,
    force: bool = False,
    coded: bool = False,
    progress: Progress = no_progress,
    executor: Any = None,
) -> JobResult:
    """Write the ticket of a job to a file; after an interruption the same call resumes.

    Solved chunks are files in `chunk_folder(out)`; memory depends only on the chunk size.

    Args:
        out: The ticket's file.
        force: True replaces an existing file, provided that the new ticket holds.
        coded: True stores the masks entropy-coded.
        executor: Solves the chunks on its workers, which see the folder of `out` (see `run_units`). Default: this
            process.

    Raises:
        InputError: If `out` is not possible, exists, or its folder has chunks of another job.
        ClusterError: If the executor is lost.
    """
    check_output(job, out)
    folder = FolderChunkStore(chunk_folder(out))
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty_folder, folder.path)
        place = _finished_ticket(job, out)
        if place is None:
            _prepare_folder(job, out, folder, force=force)
        if folder.path.is_dir():
            stack.enter_context(folder_lock(folder.path, "the folder of chunks"))
            stack.callback(folder.remove_if_empty)
        if place is not None:
            if stores_coded(place) != coded:
                load_ticket(place, limit=math.inf).save(place, coded=coded)
            if folder.belongs_to(job):
                folder.remove()
            return JobResult(job.weights, 0, path=place)
        if executor is None:
            result = solve_job(job, folder, progress=progress)
        else:
            result = _solve_on_executor(job, folder, executor, progress=progress)
        place = _write_ticket(job, out, folder, coded=coded)
        folder.remove()
    return dataclasses.replace(result, path=place)


def run_share(job: Job, out: Path, share: Share, *, force: bool = False, progress: Progress = no_progress) -> JobResult:
    """Solve the chunks of a share that are missing in the folder of `out`; `run_to_file` assembles the ticket later.

    Shares may run at the same time, and be restarted. If the ticket of this job exists, nothing is solved.
    """
    check_output(job, out)
    if (path := _finished_ticket(job, out)) is not None:
        return JobResult(job.weights, 0, path=path)
    folder = FolderChunkStore(chunk_folder(out))
    _prepare_folder(job, out, folder, force=force)
    with folder_lock(folder.path, "the folder of chunks", shared=True):
        return solve_job(job, folder, share.own(len(job.chunks)), progress=progress)


def solve_job(
    job: Job, store: ChunkStore, numbers: Iterable[int] | None = None, *, progress: Progress = no_progress
) -> JobResult:
    """Solve the chunks that the store does not have.

    After a kill at any moment, the same call resumes without solving a finished chunk again.

    Args:
        numbers: Numbers of the chunks to solve; default all.

    Raises:
        InputError: If the store has chunks of another job, or cannot be written.
    """
    chunks, damaged = job.chunks if numbers is None else [job.chunks[number] for number in numbers], list[str]()
    stored = {chunk.number for chunk in chunks if store.has(chunk)}
    total = sum(chunk.weights for chunk in chunks)
    found, solved = sum(chunk.weights for chunk in chunks if chunk.number in stored), 0
    _log_cost(job, total - found)
    progress(shown := found, total)
    pending = collections.deque[tuple[Chunk, concurrent.futures.Future[None]]]()
    # However this ends, also by an interrupt, the pool first writes all chunks that are solved.
    with concurrent.futures.ThreadPoolExecutor(_WRITER_THREADS) as pool:
        for chunk in itertools.chain(chunks, [None]):
            if chunk is not None and not (chunk.number in stored and _read(job, store, chunk, damaged) is not None):
                found -= chunk.weights if chunk.number in stored else 0
                pending.append((chunk, pool.submit(store.write, job, chunk, job.objective.solve_chunk(job, chunk))))
            while pending and (chunk is None or len(pending) > _WRITER_THREADS or pending[0][1].done()):
                oldest, future = pending.popleft()
                future.result()
                solved += oldest.weights
                progress(shown := max(shown, found + solved), total)
    return JobResult(found, solved, tuple(damaged))


def _solve_on_executor(job: Job, folder: FolderChunkStore, executor: Any, *, progress: Progress) -> JobResult:
    """As `solve_job`, on the workers of an executor; a unit is a chunk."""
    damaged, missing = list[str](), list[Chunk]()
    for chunk in job.chunks:
        if _read(job, folder, chunk, damaged) is None:
            missing.append(chunk)
    left = sum(chunk.weights for chunk in missing)
    found = job.weights - left
    progress(found, job.weights)
    if missing:
        shared = SharedObject.write(job, folder.path)
        units = [Unit(f"chunk {chunk.number}", solve_chunk, (shared, folder.path, chunk.number)) for chunk in missing]
        run_units(
            units,
            executor=executor,
            progress=lambda done, total: progress(found + left * done // total, job.weights),
        )
        for chunk in missing:
            wait_for_file(folder.file(chunk.number))
    return JobResult(found, left, tuple(damaged))


def solve_chunk(shared: SharedObject, folder: Path, number: int) -> None:
    """The unit of a chunk: solve it, unless the folder has it."""
    solve_job(shared.load(), FolderChunkStore(folder), [number])


def _read(job: Job, store: ChunkStore, chunk: Chunk, damaged: list[str]) -> ChunkResult | None:
    """The result of a chunk, None if it is missing; a damaged one is reported, appended to `damaged`, and None."""
    try:
        return store.read(job, chunk)
    except DamagedChunk as error:
        log.warning("%s; this chunk is solved again", error)
        damaged.append(str(error))
        return None


def _read_or_solve(job: Job, store: ChunkStore, chunk: Chunk) -> ChunkResult:
    """The result of a chunk; solves it if it is damaged or missing."""
    arrays = _read(job, store, chunk, [])
    if arrays is None:
        arrays = job.objective.solve_chunk(job, chunk)
        store.write(job, chunk, arrays)
    return arrays


def _log_cost(job: Job, weights: int) -> None:
    """Announce the time of a long search before it begins."""
    seconds = job.objective.seconds_per_weight(job) if weights else None
    if seconds is not None and weights * seconds > _ANNOUNCED_SECONDS:
        minutes = math.ceil(weights * seconds / 60)
        log.info(
            "%d candidates for each of %s weights: the search takes about %s here, %.3g ms a weight. Two more"
            " candidates double the time; up to 24 candidates take microseconds",
            job.construction.candidates,
            f"{weights:,}",
            f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h",
            1e3 * seconds,
        )


def _write_ticket(job: Job, out: Path, folder: FolderChunkStore, *, coded: bool) -> Path:
    """Write the ticket atomically and return its file: `out`, or `broken_file(out)` for one that would replace a file
    and is broken."""
    # In the folder, so that it is removed with the chunks after a kill.
    temporary, place = folder.path / f".ticket-{os.getpid()}", out
    assemble_to_file(job, lambda chunk: _read_or_solve(job, folder, chunk), temporary)
    if coded:
        load_ticket(temporary, limit=math.inf).save(temporary, coded=True)
    if out.exists() and verify(temporary, target=job.target, limit=math.inf).outcome == "broken":
        place = broken_file(out)
        log.warning("the ticket is broken: %r is unchanged, and the new ticket is %r", str(out), str(place))
    try:
        temporary.chmod(0o644)
        temporary.replace(place)
    except OSError as error:
        raise InputError(
            f"cannot write {str(place)!r} ({error.strerror}); free some space or choose a writable folder"
        ) from None
    sync_folder(place.parent)  # the ticket is on the disk before the chunks are removed
    return place


def chunk_folder(out: Path) -> Path:
    """The folder of a ticket's chunks, next to the ticket's file.

    >>> chunk_folder(Path("runs/ticket.safetensors")).as_posix()
    'runs/ticket.safetensors.chunks'
    """
    return out.with_name(f"{out.name}{CHUNKS_SUFFIX}")


def broken_file(out: Path) -> Path:
    """The file of a ticket that does not hold and would replace an existing file.

    >>> broken_file(Path("ticket.safetensors")).name
    'ticket.broken.safetensors'
    """
    return out.with_name(f"{out.stem}.broken{out.suffix}")


def check_output(job: Job, out: Path) -> None:
    """Refuse an impossible output file before the work, and create its folder; raises `InputError`."""
    if out.is_dir():
        raise InputError(f"{str(out)!r} is a folder; name the ticket file to write inside it")
    if job.path is not None and out.exists() and out.samefile(job.path):
        raise InputError(f"{str(out)!r} is the target's own file; choose another file for the ticket")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {str(out.parent)!r} ({error.strerror}); choose another") from None


def is_ticket_of(job: Job, out: Path) -> bool:
    """True if `out` is the complete, undamaged ticket of this job."""
    if not out.is_file():
        return False
    try:
        with ChecksummedFile(out, ENTRY) as file:
            if file.header.get("settings", {}).get("job") != job.identity:
                return False
            file.check_digest()
            return True
    except (TicketError, InputError, FormatError, AttributeError):
        return False


def _finished_ticket(job: Job, out: Path) -> Path | None:
    return next((path for path in (out, broken_file(out)) if is_ticket_of(job, path)), None)


def _prepare_folder(job: Job, out: Path, folder: FolderChunkStore, *, force: bool) -> None:
    """Create the folder of chunks; raises `InputError` if `out` exists, or the disk lacks space for what is missing."""
    check_overwrite(out, force=force)
    needed = sum(job.objective.result_bytes(chunk) for chunk in job.chunks if not folder.has(chunk))
    needed += sum((drawn.size + 7) // 8 for drawn in job.network.random_tensors.values())
    needed += sum(tensor.nbytes for tensor in job.target.tensors.tensors.values())
    place = next(parent for parent in (out.parent, *out.parent.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"the ticket and its chunks need {needed / 1e9:.2f} GB, and {str(place)!r} has {free / 1e9:.2f} GB free;"
            " free some space or choose another --out"
        )
    folder.make()


def _remove_empty_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def missing_chunks(job: Job, out: Path) -> list[int]:
    """Numbers of the chunks without a file in the folder of `out`."""
    folder = FolderChunkStore(chunk_folder(out))
    return [chunk.number for chunk in job.chunks if not folder.has(chunk)]


def check_chunks_complete(job: Job, out: Path) -> None:
    """Raise `InputError` with the missing chunks, unless all chunks or the ticket exist and are undamaged."""
    if _finished_ticket(job, out) is not None:
        return
    numbers, folder = missing_chunks(job, out), FolderChunkStore(chunk_folder(out))
    if not numbers:
        for chunk in job.chunks:
            try:
                folder.read(job, chunk)
            except DamagedChunk:
                numbers.append(chunk.number)
    if numbers:
        listed = ", ".join(map(str, numbers[:_LISTED])) + (", ..." if len(numbers) > _LISTED else "")
        raise InputError(
            f"{len(numbers)} of {len(job.chunks)} chunks are missing (number {listed}, from 0); restart the unfinished"
            " shares, or omit --join-only to solve the missing chunks here"
        )
