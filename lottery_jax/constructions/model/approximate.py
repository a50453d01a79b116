"""`approximate_model`: from a safetensors file to a ticket, streaming, and going on where it was stopped."""

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path

from lottery_jax.cluster import Cluster
from lottery_jax.constructions.model.chunks import Done, Progress, chunk_path, solve_chunks
from lottery_jax.constructions.model.job import Job, plan_job
from lottery_jax.constructions.model.merge import merge, remove_folder
from lottery_jax.errors import InputError, TicketError
from lottery_jax.subset_sum import Solver
from lottery_jax.tensor_file import FormatError
from lottery_jax.ticket import open_ticket

ALONE = Cluster()
_VISIBLE = 180.0  # seconds in which a network's file system shows a file to another host, at the latest


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished job; weights that were found solved and weights solved now, and the damaged files replaced."""

    job: Job
    found: int
    solved: int
    damaged: tuple[str, ...] = ()


def chunk_folder(out: Path) -> Path:
    """Where the chunks of a ticket are until it is written: beside it.

    >>> chunk_folder(Path("runs/ticket.safetensors")).as_posix()
    'runs/ticket.safetensors.chunks'
    """
    return out.with_name(out.name + ".chunks")


def approximate_model(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
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
    progress: Progress | None = None,
) -> Finished:
    """Write the ticket of the tensors of a safetensors file; memory depends on the chunk alone.

    construction: `scalar` (n random copies of each weight) or `scalar-shared` (of each row, as published: Pensia et
    al. 2020, Experiment 1). pattern: approximate the float tensors whose names match it (shell wildcards) instead
    of all 2-D and 4-D ones. Finished chunks are files beside `out`: call it again after a kill and it goes on, to
    the same bytes. `solver` replaces the choice by `objective`. Raises `InputError`.

    >>> import numpy as np, tempfile
    >>> from safetensors.numpy import save_file
    >>> from lottery_jax.model_certificate import verify_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    ...     save_file({"fc.weight": weight}, f"{folder}/model.safetensors")
    ...     finished = approximate_model(f"{folder}/model.safetensors", f"{folder}/ticket", seed=0, candidates=12)
    ...     verify_file(f"{folder}/ticket").within_tolerance
    12
    """
    job = plan_job(
        source,
        seed=seed,
        construction=construction,
        candidates=candidates,
        tolerance=tolerance,
        objective=objective,
        pattern=pattern,
        max_redraws=max_redraws,
        solver=solver,
        chunk_weights=chunk_weights,
    )
    return run_job(job, out, progress=progress)


def run_job(
    job: Job, out: str | os.PathLike[str], *, progress: Progress | None = None, cluster: Cluster = ALONE
) -> Finished:
    """`approximate_model` for a job that is planned: solve what is missing, and write the ticket.

    The processes of a cluster each solve their share and meet in the folder beside `out`; process 0 writes the
    ticket, of the same bytes as one process would. All return when it is there.
    """
    out = Path(out)
    folder = chunk_folder(out)
    check_output(job, out)
    finished = is_finished(job, out)
    done = Done(job.weights, 0)
    try:
        if not finished:
            check_space(job, out, folder)
            process, processes = cluster.process, cluster.processes
            done = solve_chunks(job, folder, process=process, processes=processes, progress=progress)
        cluster.wait("solved")
        # Process 0 decides alone: on a network's file system the others may still see what was there before.
        if cluster.process == 0 and finished:
            remove_folder(folder)
        elif cluster.process == 0:
            merge(job, folder, out, timeout=_VISIBLE if cluster.processes > 1 else 0.0)
        cluster.wait("written")
    finally:
        with contextlib.suppress(OSError):  # where nothing was finished, nothing is left
            folder.rmdir()
    return Finished(job, done.found, done.solved, done.damaged)


def check_output(job: Job, out: Path) -> None:
    """Refuse a place where the ticket cannot be, before the work."""
    if out.is_dir():
        raise InputError(f"{str(out)!r} is a folder; name the ticket file to write inside it")
    if out.exists() and out.samefile(job.source):
        raise InputError(f"{str(out)!r} is the model's own file; choose another place for the ticket")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(out.parent)!r} cannot be made ({error.strerror}); choose another") from None


def is_finished(job: Job, out: Path) -> bool:
    """True where `out` is the whole ticket of this very job."""
    if not out.is_file():
        return False
    try:
        with open_ticket(out) as file:
            if file.header.get("settings", {}).get("job") != job.identity:
                return False
            file.check_digest()
            return True
    except (TicketError, InputError, FormatError, AttributeError):
        return False


def check_space(job: Job, out: Path, folder: Path) -> None:
    """Refuse a disk that cannot hold the chunks still to come and the ticket beside them."""
    missing = [chunk for chunk in job.chunks if not chunk_path(folder, chunk.number).exists()]
    needed = sum(map(job.mask_bytes, missing)) + sum(map(job.mask_bytes, job.chunks)) + job.target_bytes
    place = next(parent for parent in (out.parent, *out.parent.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"the ticket and its chunks need {needed / 1e9:.2f} GB, and {str(place)!r} has {free / 1e9:.2f} GB free;"
            " free some space or choose another place with --out"
        )
