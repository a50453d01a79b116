"""`lottery-jax status`: how far a job is, running or dead, from what its folder holds; nothing is changed there."""

import contextlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from lottery_jax.cli.settings import JobStatus
from lottery_jax.comparison.aside import Aside
from lottery_jax.comparison.records import read_records
from lottery_jax.constructions.chunks import Folder
from lottery_jax.constructions.run import chunk_folder
from lottery_jax.errors import InputError
from lottery_jax.storage.lock import holder_of, told


def run_status(command: JobStatus, results: TextIO) -> int:
    """Say what is finished in each folder that is meant, who is at work there, and when something last changed."""
    for folder in _meant(command.folder):
        found = _comparison(folder) if _is_comparison(folder) else _approximation(folder)
        found = {"folder": str(folder), **found, "held_by": holder_of(folder), "said": told(folder)}
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


def _meant(path: Path) -> list[Path]:
    """Folders of chunks or of a comparison: this one, the one beside a ticket's file, or those in it."""
    beside = chunk_folder(path)
    if not path.is_dir() and beside.is_dir():
        return [beside]
    if path.is_dir() and (_is_comparison(path) or Folder(path).finished() or path.suffix == ".chunks"):
        return [path]
    inside = sorted(each for each in path.glob("*") if each.is_dir()) if path.is_dir() else []
    inside = [each for each in inside if _is_comparison(each) or each.suffix == ".chunks"]
    if inside:
        return inside
    if path.is_file():
        raise InputError(f"{str(path)!r} is written, and nothing is unfinished beside it; see lottery-jax verify")
    raise InputError(
        f"{str(path)!r} holds no unfinished job and no comparison; name the --out of approximate or of compare, a"
        " folder of chunks, or a run folder"
    )


def _is_comparison(folder: Path) -> bool:
    return (folder / "configuration.json").is_file()


def _approximation(folder: Path) -> dict[str, Any]:
    finished, whole = Folder(folder).finished(), Folder(folder).whole()
    missing = None if whole is None else max(whole - finished, 0)
    # Chunks of an older version do not say it.
    words = f"{finished:,} of {whole:,} chunks are finished" if whole is not None else f"{finished:,} finished chunks"
    return {"finished_chunks": finished, "chunks": whole, "missing_chunks": missing, "words": words}


def _comparison(folder: Path) -> dict[str, Any]:
    records = read_records(folder / "records.jsonl")
    by_method = Counter(record.method for record in records)
    begun = sorted(path.name for path in (folder / "unfinished").glob("*"))
    words = f"{len(records):,} records" + "".join(f", {count} of {name}" for name, count in by_method.items())
    aside = Aside(folder / "records").count()
    words += f"; {aside:,} more wait to be joined to them" if aside else ""
    words += f"; begun: {', '.join(begun)}" if begun else ""
    found = {"records": len(records), "records_by_method": dict(by_method), "records_aside": aside, "begun": begun}
    return {**found, "words": words}


def _changed(folder: Path) -> float:
    """When something in a folder was last written, as seconds."""
    last = 0.0
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):  # it may be gone by now
            last = max(last, path.stat().st_mtime)
    return last


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
