"""Records: one row of results per method, seed and kept fraction, written once and never edited.

A run folder has the records of one configuration and is named by its hash, so that the same command finds its earlier
results. Records are JSON lines that are only appended; reading skips the torn last line of a killed run. Processes that
must not append to one file write pending records, one file each.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lottery_jax.errors import InputError
from lottery_jax.io.files import wait_for_file, write_atomically
from lottery_jax.progress import log

Key = tuple[str, int, float | None]


@dataclasses.dataclass(frozen=True)
class Record:
    """One result; None if a number has no meaning (the dense target has no source and no ticket)."""

    method: str
    task: str
    seed: int
    keep: float | None
    """The requested kept fraction; None if the method does not sweep."""
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """The 95 % interval of `accuracy` over the test images."""
    target_accuracy: float
    agreement: float
    """Fraction of test images with the target's prediction."""
    max_deviation: float | None
    """Largest |f - g| over test images and outputs."""
    target_weights: int
    source_weights: int | None = None
    kept_weights: int | None = None
    kept_per_target_weight: float | None = None
    kept_fractions: Mapping[str, float] | None = None
    """The kept fraction of each random tensor, by its name."""
    outcome: str | None = None
    """Outcome of the verifier: holds, broken or no guarantee."""
    within_tolerance: int | None = None
    """Target weights within the tolerance, counted by the verifier."""
    worst_residual: float | None = None
    description_bits: int | None = None
    """Bits that describe the network: its structure, seed, redraws, coded masks and stored tensors."""
    bits_per_target_weight: float | None = None
    """These bits per weight of the target; the target itself is not counted."""
    rounding_bits_per_target_weight: float | None = None
    """Bits per weight of the target after rounding to a grid with the same largest residual; None without residuals."""
    ticket_bytes: int | None = None
    seconds: float | None = None
    """Seconds to find the ticket, with compilation; those of a sweep are divided equally among its kept fractions."""
    search_seconds: float | None = None
    """Of these, seconds without compilation."""
    compilation_seconds: float | None = None
    """Of these, seconds of tracing, compiling and reading the cache of compiled programs."""
    evaluated: str | None = None
    """The evaluated network and its number of test images."""
    source: str | None = None
    """Description of the source network."""
    trained: bool | None = None
    """Whether the weights were trained, not only selected among random ones."""
    learning_rate: float | None = None
    """The learning rate selected on the validation split, if one was."""
    output_bound: float | None = None
    """Bound of |f - g| on all inputs in [0, 1], if the data are in [0, 1] and the bound takes seconds."""
    device: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Method, seed and kept fraction, recorded once in a run folder."""
        return self.method, self.seed, self.keep

    def to_json(self) -> str:
        """One line of JSON without the line end; raises ``ValueError`` for non-finite numbers, which JSON lacks."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Inverse of ``to_json``; fields that this version does not know are omitted.

        >>> row = Record("dense", "digits", 0, None, 0.97, 0.95, 0.98, 0.97, 1.0, 0.0, 2368)
        >>> Record.from_json(row.to_json()) == row
        True
        """
        values = json.loads(line)
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values})


def read_records(path: Path) -> dict[Key, Record]:
    """All complete lines of a file by key, in order, the first of equal keys; a torn last line is omitted."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    records: dict[Key, Record] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            record = Record.from_json(line.decode())
        except (ValueError, TypeError, AttributeError):
            raise InputError(
                f"line {number} of {str(path)!r} is not a record. Remove the line, or the file to start again."
            ) from None
        records.setdefault(record.key, record)
    return records


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Append complete lines and wait for the disk; the torn last line of a killed run is cut off first."""
    lines = b""
    for record in records:
        lines += f"{record.to_json()}\n".encode()
    # Unbuffered: a buffer would write its rest again on closing, after the clean-up below.
    with path.open("a+b", buffering=0) as file:
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.truncate(end)
        try:
            while lines:
                lines = lines[file.write(lines) :]
            os.fsync(file.fileno())
        except OSError:  # a full disk: remove what was written, so that no record is incomplete
            file.truncate(end)
            raise


def run_folder(out: Path, configuration: Mapping[str, Any]) -> Path:
    """The run folder of a configuration in ``out``: "<task>-<hash>", the hash over its sorted JSON.

    >>> run_folder(Path("runs"), {"task": "digits", "tolerance": 0.01}).as_posix()
    'runs/digits-612b21f8ad'
    """
    canonical = json.dumps(configuration, sort_keys=True, allow_nan=False)
    return out / f"{configuration['task']}-{hashlib.sha256(canonical.encode()).hexdigest()[:10]}"


_NO_TICKET = "no ticket\n"


def name_of_run(method: str, seed: int, keep: float | None = None) -> str:
    """The stem of the files of a method, seed and kept fraction.

    >>> name_of_run("pensia", 0), name_of_run("edge-popup-wide", 3, 0.5)
    ('pensia-seed0', 'edge-popup-wide-seed3-keep0.5')
    """
    return f"{method}-seed{seed}" + ("" if keep is None else f"-keep{keep}")


class PendingRecords:
    """Records that are not yet joined to the others, one file each in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, key: Key, record: Record | None) -> None:
        """Write a record atomically, or None for a kept fraction without a ticket; raises ``InputError``."""
        self.folder.mkdir(exist_ok=True)
        content = _NO_TICKET if record is None else f"{record.to_json()}\n"
        write_atomically(self._file(key), content.encode())

    def has(self, key: Key) -> bool:
        """Whether a record or its absence was written."""
        return self._file(key).exists()

    def wait(self, key: Key) -> None:
        """Wait until a network file system shows a record that another host wrote."""
        wait_for_file(self._file(key))

    def read(self, key: Key) -> Record | None:
        """A pending record; None if it is missing, or a kept fraction without a ticket. A damaged file is removed."""
        path = self._file(key)
        if not path.exists():
            return None
        try:
            content = path.read_text()
            if content == _NO_TICKET:
                return None
            record = Record.from_json(content)
            if record.key == key:
                return record
        except (OSError, ValueError, TypeError, AttributeError):
            pass
        log.warning("the record %r is damaged and is computed again", str(path))
        path.unlink(missing_ok=True)
        return None

    def count(self) -> int:
        """Number of pending records."""
        return len(list(self.folder.glob("*.json")))

    def remove(self, key: Key) -> None:
        """Remove a record, and the folder with the last one."""
        self._file(key).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the folder is not empty, or does not exist
            self.folder.rmdir()

    def _file(self, key: Key) -> Path:
        return self.folder / f"{name_of_run(*key)}.json"


def count_finished(folder: Path) -> int:
    """Number of finished records in a run folder, pending ones included."""
    return len(read_records(folder / "records.jsonl")) + PendingRecords(folder / "records").count()
