"""`lottery-jax status`: the progress of a job, running or dead, read from its folder."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from lottery_jax.approximation.chunk_store import FolderChunkStore
from lottery_jax.approximation.run import CHUNKS_SUFFIX
from lottery_jax.cli.settings import JobStatus
from lottery_jax.comparison.records import PendingRecords, read_records
from lottery_jax.errors import InputError
from lottery_jax.io.locks import lock_holder, read_lock_status

UNITS = ".units"
"""Ending of the name of an experiment's folder of units."""

_Reader = Callable[[Path], dict[str, Any]]
"""Reads the progress of a folder's job: counts by name, and `words`."""


def run_status(command: JobStatus, results: TextIO) -> int:
    """Print the finished units of each folder, the process that uses it, and its last change."""
    for folder, read in _job_folders(command.folder):
        row = {"folder": str(folder), **read(folder)}
        row |= {"process": lock_holder(folder), "last_message": read_lock_status(folder)}
        row["changed"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_last_change(folder)))
        words = row.pop("words")
        if command.json:
            print(json.dumps(row), file=results)
            continue
        print(f"{folder}: {words}", file=results)
        if row["last_message"]:
            print(f"  {row['last_message']}", file=results)
        print(f"  in use by {row['process'] or 'nobody'}; last changed {row['changed']}", file=results)
    return 0


def _job_folders(path: Path) -> list[tuple[Path, _Reader]]:
    """Folders of chunks, of units or of a comparison: this one, those of an output file, or those in it."""
    own = [path] if path.is_dir() else [path.with_name(f"{path.name}{suffix}") for suffix in _SUFFIXES]
    for folders in (own, sorted(path.glob("*"))):
        if found := [(folder, read) for folder in folders if (read := _reader(folder)) is not None]:
            return found
    if path.is_file():
        raise InputError(f"{str(path)!r} is finished; see lottery-jax verify")
    raise InputError(
        f"{str(path)!r} has no unfinished job and no comparison; name the --out of approximate, of compare or of an"
        " experiment, a folder of chunks or units, or a run folder"
    )


def _reader(folder: Path) -> _Reader | None:
    """The function that reads a folder's progress; None if there is no job in it."""
    if not folder.is_dir():
        return None
    if (folder / "configuration.json").is_file():
        return _comparison
    # Chunks may have been moved into a folder of another name.
    return _SUFFIXES.get(folder.resolve().suffix, _approximation if FolderChunkStore(folder).finished() else None)


def _approximation(folder: Path) -> dict[str, Any]:
    finished, whole = FolderChunkStore(folder).finished(), FolderChunkStore(folder).total()
    missing = None if whole is None else max(whole - finished, 0)
    # Chunks of an older version do not have the total.
    words = f"{finished:,} of {whole:,} chunks are finished" if whole is not None else f"{finished:,} finished chunks"
    return {"finished_chunks": finished, "chunks": whole, "missing_chunks": missing, "words": words}


def _comparison(folder: Path) -> dict[str, Any]:
    records = read_records(folder / "records.jsonl")
    by_method = Counter(method for method, _, _ in records)
    unfinished = sorted(path.name for path in (folder / "unfinished").glob("*/"))
    words = f"{len(records):,} records" + "".join(f", {count} of {name}" for name, count in by_method.items())
    pending = PendingRecords(folder / "records").count()
    words += f"; {pending:,} pending records" if pending else ""
    words += f"; unfinished: {', '.join(unfinished)}" if unfinished else ""
    row = {"records": len(records), "records_by_method": dict(by_method), "pending_records": pending}
    return {**row, "unfinished": unfinished, "words": words}


def finished_units(folder: Path) -> int:
    """Number of finished units in an experiment's folder."""
    return len(list(folder.glob("*.json")))


def _experiment(folder: Path) -> dict[str, Any]:
    finished = finished_units(folder)
    return {"finished_units": finished, "words": f"{finished:,} finished units"}


_SUFFIXES = {CHUNKS_SUFFIX: _approximation, UNITS: _experiment}
"""Endings of the folder of an unfinished job, after the name of its output."""


def _last_change(folder: Path) -> float:
    """Time of the last change in a folder, in seconds."""
    last = 0.0
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):  # it may have been removed
            last = max(last, path.stat().st_mtime)
    return last
