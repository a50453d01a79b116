"""A part of a job for processes that never meet: they see one folder, and a last command joins what is there."""

from pathlib import Path

from lottery_jax.cluster.share import Share
from lottery_jax.constructions.chunks import DamagedChunk, Folder
from lottery_jax.constructions.job import Chunk, Job
from lottery_jax.constructions.run import (
    Done,
    broken_file,
    check_output,
    check_space,
    chunk_folder,
    is_finished,
    solve_chunks,
)
from lottery_jax.errors import InputError
from lottery_jax.progress import Progress, unseen
from lottery_jax.storage.files import check_replaceable
from lottery_jax.storage.lock import locked

_NAMED = 8  # missing chunks that are listed


def run_share(job: Job, out: Path, share: Share, *, force: bool = False, progress: Progress = unseen) -> Done:
    """Solve the chunks of a share that are not in the folder beside `out` yet; the ticket is left to `run_to_file`.

    Shares work at the same time, each as often as it is started. While one does, no ticket is written; where the ticket
    of this very job is there already, nothing is done.
    """
    check_output(job, out)
    for path in (out, broken_file(out)):
        if is_finished(job, path):
            return Done(job.weights, 0, path=path)
    check_replaceable(out, force=force)
    folder = Folder(chunk_folder(out))
    check_space(job, out, folder)
    folder.make()
    with locked(folder.path, "the folder of chunks", shared=True):
        return solve_chunks(job, folder, crew=share, progress=progress)


def missing(job: Job, out: Path) -> list[int]:
    """Numbers of the chunks of a job that have no file beside `out`."""
    folder = Folder(chunk_folder(out))
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
        return Folder(chunk_folder(out)).read(job, chunk) is not None
    except DamagedChunk:
        return False
