"""`lottery-jax status`: how far a job is, running or dead, from what its folder holds; nothing is changed there."""

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
"""What the name of an experiment's folder of units ends with."""

_Look = Callable[[Path], dict[str, Any]]
"""Says of a folder how far its job is: in `words`, and for programs."""


def run_status(command: JobStatus, results: TextIO) -> int:
    """Say what is finished in each folder that is meant, who is at work there, and when something last changed."""
    for folder, look in _meant(command.folder):
        found = {
            "folder": str(folder),
            **look(folder),
            "held_by": lock_holder(folder),
            "said": read_lock_status(folder),
        }
        found["changed"] = _moment(_changed(folder))
        words = found.pop("words")
        if command.json:
            print(json.dumps(found), file=results)
            continue
        print(f"{folder}: {words}", file=results)
        if found["said"]:
            print(f"  {found['said']}", file=results)
        print(f"  in use by {found['held_by'] or 'nobody'}; last changed {found['changed']}", file=results)
    return 0


def _meant(path: Path) -> list[tuple[Path, _Look]]:
    """Folders of chunks, of units or of a comparison: this one, those beside an output, or those in it."""
    here = [path] if path.is_dir() else [path.with_name(f"{path.name}{suffix}") for suffix in _BESIDE]
    for places in (here, sorted(path.glob("*"))):
        if found := [(folder, look) for folder in places if (look := _look(folder)) is not None]:
            return found
    if path.is_file():
        raise InputError(f"{str(path)!r} is written, and nothing is unfinished beside it; see lottery-jax verify")
    raise InputError(
        f"{str(path)!r} holds no unfinished job and no comparison; name the --out of approximate, of compare or of an"
        " experiment, a folder of chunks or units, or a run folder"
    )


def _look(folder: Path) -> _Look | None:
    """What says how far the job of a folder is; None where there is none."""
    if not folder.is_dir():
        return None
    if (folder / "configuration.json").is_file():
        return _comparison
    # Chunks may have been moved into a folder of another name.
    return _BESIDE.get(folder.resolve().suffix, _approximation if FolderChunkStore(folder).finished() else None)


def _approximation(folder: Path) -> dict[str, Any]:
    finished, whole = FolderChunkStore(folder).finished(), FolderChunkStore(folder).total()
    missing = None if whole is None else max(whole - finished, 0)
    # Chunks of an older version do not say it.
    words = f"{finished:,} of {whole:,} chunks are finished" if whole is not None else f"{finished:,} finished chunks"
    return {"finished_chunks": finished, "chunks": whole, "missing_chunks": missing, "words": words}


def _comparison(folder: Path) -> dict[str, Any]:
    records = read_records(folder / "records.jsonl")
    by_method = Counter(record.method for record in records)
    begun = sorted(path.name for path in (folder / "unfinished").glob("*"))
    words = f"{len(records):,} records" + "".join(f", {count} of {name}" for name, count in by_method.items())
    aside = PendingRecords(folder / "records").count()
    words += f"; {aside:,} more wait to be joined to them" if aside else ""
    words += f"; begun: {', '.join(begun)}" if begun else ""
    found = {"records": len(records), "records_by_method": dict(by_method), "records_aside": aside, "begun": begun}
    return {**found, "words": words}


def finished_units(folder: Path) -> int:
    """How many units of an experiment are finished in its folder."""
    return len(list(folder.glob("*.json")))


def _experiment(folder: Path) -> dict[str, Any]:
    finished = finished_units(folder)
    return {"finished_units": finished, "words": f"{finished:,} finished units"}


_BESIDE = {CHUNKS_SUFFIX: _approximation, UNITS: _experiment}
"""What an unfinished job's folder beside its output ends with."""


def _changed(folder: Path) -> float:
    """When something in a folder was last written, as seconds."""
    last = 0.0
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):  # it may be gone by now
            last = max(last, path.stat().st_mtime)
    return last


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
