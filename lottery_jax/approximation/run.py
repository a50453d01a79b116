"""Running a job: solve the chunks that are missing, put them together; alone or with the others of a crew.

A part of a job for processes that never meet: they see one folder, and a last command joins what is there.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from lottery_jax import environment
from lottery_jax.approximation.assemble import in_memory, to_file
from lottery_jax.approximation.chunk_store import ChunkStore, DamagedChunk, FolderChunkStore, MemoryChunkStore
from lottery_jax.approximation.job import Chunk, Job, Solved
from lottery_jax.errors import InputError, TicketError
from lottery_jax.io.checksummed_file import ChecksummedFile
from lottery_jax.io.files import VISIBILITY_TIMEOUT, check_overwrite, sync_folder
from lottery_jax.io.locks import folder_lock
from lottery_jax.io.tensor_file import FormatError
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.tickets.ticket import ENTRY, Ticket, load_ticket, stores_coded
from lottery_jax.tickets.verify import verify
from lottery_jax.workers.workers import FOUND, SERIAL, Share, Workers, unit_of

_POLL = 0.2  # seconds between two looks for chunks of other processes

CHUNKS = ".chunks"
"""What the name of the folder of chunks ends with."""

_WRITERS = 2  # threads that wait for the disk

_LONG = 5.0  # seconds of search that are announced


@dataclasses.dataclass(frozen=True)
class Done:
    """Weights that were found solved and weights solved now, the damaged files that were replaced, and the file that
    the ticket is in; in the process that leads, weights of all processes."""

    found: int
    solved: int
    damaged: tuple[str, ...] = ()
    path: Path | None = None


def run_in_memory(job: Job, *, finished: MemoryChunkStore | None = None, progress: Progress = no_progress) -> Ticket:
    """The ticket of a job, nothing of it on a disk.

    finished: chunks that are solved already and are added to: jobs that differ in their budgets alone share them.
    """
    finished = finished or MemoryChunkStore()
    solve_chunks(job, finished, progress=progress)
    return in_memory(job, _reader(job, finished))


def chunk_folder(out: Path) -> Path:
    """Where the chunks of a ticket are until it is written: beside it.

    >>> chunk_folder(Path("runs/ticket.safetensors")).as_posix()
    'runs/ticket.safetensors.chunks'
    """
    return out.with_name(f"{out.name}{CHUNKS}")


def broken_file(out: Path) -> Path:
    """Where a ticket goes that does not hold, and may not replace what is at its place.

    >>> broken_file(Path("ticket.safetensors")).name
    'ticket.broken.safetensors'
    """
    return out.with_name(f"{out.stem}.broken{out.suffix}")


def run_to_file(
    job: Job,
    out: Path,
    *,
    force: bool = False,
    coded: bool = False,
    progress: Progress = no_progress,
    workers: Workers = SERIAL,
) -> Done:
    """Write the ticket of a job to `out`, going on where an earlier call was stopped; memory depends on the chunk
    alone.

    Finished chunks are files beside `out`. A file that is there is refused, or with `force` replaced if the new ticket
    holds. coded: whether its masks are stored as an entropy coder has them. The processes of a crew each solve chunks
    that no other one does, and meet in that folder; process 0 writes the ticket, of the same bytes as one process
    would. All return when it is there.
    """
    check_output(job, out)
    place, folder = None, FolderChunkStore(chunk_folder(out))
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_if_empty, folder.path)  # where nothing was finished, nothing is left
        # Process 0 decides alone: on a network's file system the others may still see what was there before.
        if workers.leads:
            place = next((path for path in (out, broken_file(out)) if is_finished(job, path)), None)
            if place is None:
                check_overwrite(out, force=force)
                check_space(job, out, folder)
                folder.make()
            if folder.path.is_dir():
                stack.enter_context(folder_lock(folder.path, "the folder of chunks"))
                stack.callback(folder.remove_unfinished)
        found = workers.begin(facts_of(job), folder.path, "" if place is None else str(place))
        done = Done(job.weights, 0) if found else solve_chunks(job, folder, workers=workers, progress=progress)
        written = f"ticket {job.fingerprint}"
        if not workers.leads:
            return dataclasses.replace(done, path=Path(workers.hear(written)))
        if place is None:
            wait = VISIBILITY_TIMEOUT if workers.processes > 1 else 0.0
            place = _write_ticket(job, _reader(job, folder, wait), out, folder, coded=coded)
        elif stores_coded(place) != coded:
            load_ticket(place).save(place, coded=coded)
        if not found or folder.is_of(job):
            folder.remove()
        workers.done(written, str(place))
    return dataclasses.replace(done, path=place)


def facts_of(job: Job) -> dict[str, str]:
    """What the processes of a crew must have in common, by name."""
    return {
        **environment.version_facts(),
        "target": job.target.digest[:16],
        "job (seed or options)": job.fingerprint[:16],
    }


def _write_ticket(
    job: Job, solved: Callable[[Chunk], Solved], out: Path, folder: FolderChunkStore, *, coded: bool
) -> Path:
    """Write the ticket and give it its place, there whole or not at all; a file that is there only makes room for a
    ticket that holds. Until then it is in the folder, so that what a killed process leaves goes with it."""
    temporary, place = folder.path / f".ticket-{os.getpid()}", out
    to_file(job, solved, temporary)
    if coded:
        load_ticket(temporary).save(temporary, coded=True)
    if out.exists() and not verify(temporary, target=job.target).holds:
        place = broken_file(out)
        log.warning("the ticket does not hold: %r stays as it was, and this one is %r", str(out), str(place))
    try:
        temporary.chmod(0o644)
        temporary.replace(place)
    except OSError as error:
        raise InputError(
            f"cannot write {str(place)!r} ({error.strerror}); free some space or choose a writable folder"
        ) from None
    sync_folder(place.parent)  # before the chunks go, the ticket is on the disk
    return place


def solve_chunks(
    job: Job, finished: ChunkStore, *, workers: Workers = SERIAL, progress: Progress = no_progress
) -> Done:
    """Solve the chunks that are not finished yet, of those that come to this process.

    Kill it at any moment and call it again: what is finished is not solved again. Raises `InputError` where the
    folder holds chunks of another job, or cannot be written.
    """
    chunks, name, damaged = job.chunks, f"chunks {job.fingerprint}", list[str]()
    own = [chunks[number] for number in workers.own(len(chunks))]
    there = {chunk.number for chunk in own if finished.has(chunk)}
    total, found, solved = sum(map(job.chunk_size, own)), sum(job.chunk_size(chunks[number]) for number in there), 0
    _say_cost(job, total - found)
    progress(told := found, total)
    written = collections.deque[tuple[Chunk, concurrent.futures.Future[None]]]()

    def keep(chunk: Chunk, arrays: Solved) -> None:
        finished.write(job, chunk, arrays)
        workers.done(unit_of(name, chunk.number))

    # Whatever ends this, an interrupt too, the pool ends with the chunks that were solved on the disk.
    with concurrent.futures.ThreadPoolExecutor(_WRITERS) as pool:
        for number in itertools.chain(workers.units(name, len(chunks)), [None]):
            if number is not None:
                chunk = chunks[number]
                if chunk.number in there and _read(job, finished, chunk, damaged) is not None:
                    workers.done(unit_of(name, number), FOUND)
                else:
                    found -= job.chunk_size(chunk) if chunk.number in there else 0
                    written.append((chunk, pool.submit(keep, chunk, job.objective.solve(job, chunk))))
            while written and (number is None or len(written) > _WRITERS or written[0][1].done()):
                oldest, future = written.popleft()
                future.result()
                solved += job.chunk_size(oldest)
                progress(told := max(told, found + solved), total)
    if workers.leads and (notes := workers.notes(name)):
        solved = sum(job.chunk_size(chunks[number]) for number, note in notes.items() if note != FOUND)
        found = total - solved
    return Done(found, solved, tuple(damaged))


def _read(job: Job, finished: ChunkStore, chunk: Chunk, damaged: list[str]) -> Solved | None:
    """A chunk that is there as it was written; if it is not, that is said, and noted as damaged."""
    try:
        return finished.read(job, chunk)
    except DamagedChunk as error:
        log.warning("%s; this chunk is solved again", error)
        damaged.append(str(error))
        return None


def _say_cost(job: Job, weights: int) -> None:
    """Where the search of so many candidates takes long, say how long before it begins."""
    each = job.objective.seconds_each(job) if weights else None
    if each is not None and weights * each > _LONG:
        minutes = math.ceil(weights * each / 60)
        log.info(
            "%d candidates for each of %s weights: the search takes about %s here, %.3g ms a weight, and twice as long"
            " for every two candidates more; up to 24 take microseconds",
            job.construction.candidates,
            f"{weights:,}",
            f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h",
            1e3 * each,
        )


def check_output(job: Job, out: Path) -> None:
    """Refuse a place where the ticket cannot be, before the work."""
    if out.is_dir():
        raise InputError(f"{str(out)!r} is a folder; name the ticket file to write inside it")
    if job.path is not None and out.exists() and out.samefile(job.path):
        raise InputError(f"{str(out)!r} is the target's own file; choose another place for the ticket")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(out.parent)!r} cannot be made ({error.strerror}); choose another") from None


def is_finished(job: Job, out: Path) -> bool:
    """True where `out` is the whole ticket of this very job."""
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


def check_space(job: Job, out: Path, folder: FolderChunkStore) -> None:
    """Refuse a disk that cannot hold the chunks still to come and the ticket beside them."""
    missing = [chunk for chunk in job.chunks if not folder.has(chunk)]
    needed = sum(map(job.objective.chunk_bytes(job), missing)) + job.ticket_bytes
    place = next(parent for parent in (out.parent, *out.parent.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"the ticket and its chunks need {needed / 1e9:.2f} GB, and {str(place)!r} has {free / 1e9:.2f} GB free;"
            " free some space or choose another place with --out"
        )


def _reader(job: Job, finished: ChunkStore, wait: float = 0.0) -> Callable[[Chunk], Solved]:
    """Reads chunks that must be there, or come within `wait` seconds from other processes.

    One that is damaged, or does not come, is solved again.
    """
    end = time.monotonic() + wait

    def read(chunk: Chunk) -> Solved:
        while time.monotonic() < end and not finished.has(chunk):
            time.sleep(_POLL)
        arrays = _read(job, finished, chunk, [])
        if arrays is None:
            arrays = job.objective.solve(job, chunk)
            finished.write(job, chunk, arrays)
        return arrays

    return read


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


_NAMED = 8  # missing chunks that are listed


def run_share(job: Job, out: Path, share: Share, *, force: bool = False, progress: Progress = no_progress) -> Done:
    """Solve the chunks of a share that are not in the folder beside `out` yet; the ticket is left to `run_to_file`.

    Shares work at the same time, each as often as it is started. While one does, no ticket is written; where the ticket
    of this very job is there already, nothing is done.
    """
    check_output(job, out)
    for path in (out, broken_file(out)):
        if is_finished(job, path):
            return Done(job.weights, 0, path=path)
    check_overwrite(out, force=force)
    folder = FolderChunkStore(chunk_folder(out))
    check_space(job, out, folder)
    folder.make()
    with folder_lock(folder.path, "the folder of chunks", shared=True):
        return solve_chunks(job, folder, workers=share, progress=progress)


def missing(job: Job, out: Path) -> list[int]:
    """Numbers of the chunks of a job that have no file beside `out`."""
    folder = FolderChunkStore(chunk_folder(out))
    return [chunk.number for chunk in job.chunks if not folder.has(chunk)]


def refuse_missing(job: Job, out: Path) -> None:
    """Raise `InputError`, which says what is missing, unless every chunk or the ticket is there whole."""
    if any(is_finished(job, path) for path in (out, broken_file(out))):
        return
    numbers = missing(job, out) or [chunk.number for chunk in job.chunks if not _whole(job, chunk, out)]
    if numbers:
        listed = ", ".join(map(str, numbers[:_NAMED])) + (", ..." if len(numbers) > _NAMED else "")
        raise InputError(
            f"{len(numbers)} of {len(job.chunks)} chunks are missing (number {listed}, from 0); start again the shares"
            " that did not come to their end, or leave --join-only out to solve what is missing here"
        )


def _whole(job: Job, chunk: Chunk, out: Path) -> bool:
    try:
        return FolderChunkStore(chunk_folder(out)).read(job, chunk) is not None
    except DamagedChunk:
        return False
