"""Records: one row of results per finished method, seed and keep; written once, never edited.

A run folder holds everything of one configuration and is named by its hash, so the same command finds its own
earlier results. Records are JSON lines: appending is the only write, so a killed run loses at most the line
it was writing, and reading skips that torn line.

Records that wait to be joined to the others: a file each, for processes that may not append to one file.
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
    """One result; None where a number has no meaning (the dense target has no source and no ticket)."""

    method: str
    task: str
    seed: int
    keep: float | None
    """The kept fraction asked for, where the method has one."""
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
    """What the verifier says: holds, broken or no guarantee."""
    within_tolerance: int | None = None
    """Target weights within the tolerance, counted by the verifier."""
    worst_residual: float | None = None
    description_bits: int | None = None
    """Bits that describe the network: tree, seed, redraws and masks as they are coded, and stored tensors."""
    bits_per_target_weight: float | None = None
    """These bits for each weight of the target, which is not counted itself."""
    rounding_bits_per_target_weight: float | None = None
    """What the target takes, rounded to a grid with the same largest residual and coded alike; None without one."""
    ticket_bytes: int | None = None
    seconds: float | None = None
    """Seconds to find the ticket, compilation included; those of a sweep are shared equally between its keeps."""
    search_seconds: float | None = None
    """Seconds of these without compilation."""
    compilation_seconds: float | None = None
    """Seconds in which programs were traced, compiled, or read from the cache of compiled programs."""
    evaluated: str | None = None
    """Which network was run on how many test images."""
    source: str | None = None
    """The source network in words."""
    trained: bool | None = None
    """Whether its weights were trained, and not only chosen among random ones."""
    learning_rate: float | None = None
    """The learning rate that was chosen on the validation split, where one was."""
    output_bound: float | None = None
    """Bound of |f - g| on all inputs in [0, 1], where all data are there and it takes seconds."""
    device: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What may be recorded only once in a run folder."""
        return self.method, self.seed, self.keep

    def to_json(self) -> str:
        """One line of JSON without the line's end; non-finite numbers are refused, for JSON has none."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Inverse of `to_json`; fields that this version does not know are left out.

        >>> row = Record("dense", "digits", 0, None, 0.97, 0.95, 0.98, 0.97, 1.0, 0.0, 2368)
        >>> Record.from_json(row.to_json()) == row
        True
        """
        values = json.loads(line)
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def read_records(path: Path) -> list[Record]:
    """All whole lines of a file in order, the first of equal keys; a torn last line is left out."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    records: dict[Key, Record] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            record = Record.from_json(line.decode())
        except (ValueError, TypeError, AttributeError):
            raise InputError(
                f"line {number} of {str(path)!r} is no record; remove that line, or the file to start again"
            ) from None
        records.setdefault(record.key, record)
    return list(records.values())


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Append whole lines and wait for the disk; the torn last line of a killed run is cut off first."""
    lines = "".join(record.to_json() + "\n" for record in records).encode()
    # Unbuffered: a buffer would write its rest again on closing, after the clean-up below.
    with path.open("a+b", buffering=0) as file:
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.truncate(end)
        try:
            while lines:
                lines = lines[file.write(lines) :]
            os.fsync(file.fileno())
        except OSError:  # a full disk: take back what was written of these records, so that none is half there
            file.truncate(end)
            raise


def run_folder(out: Path, configuration: Mapping[str, Any]) -> Path:
    """The folder of a configuration under `out`: "<task>-<hash>", the hash over its sorted JSON.

    >>> run_folder(Path("runs"), {"task": "digits", "tolerance": 0.01}).as_posix()
    'runs/digits-612b21f8ad'
    """
    canonical = json.dumps(configuration, sort_keys=True, allow_nan=False)
    return out / f"{configuration['task']}-{hashlib.sha256(canonical.encode()).hexdigest()[:10]}"


def write_configuration(folder: Path, configuration: Mapping[str, Any]) -> None:
    """Store the configuration that the folder is named by, for people to read."""
    text = json.dumps(configuration, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / "configuration.json", text.encode())


_NO_TICKET = "no ticket\n"


def name_of_run(method: str, seed: int, keep: float | None = None) -> str:
    """The name of what belongs to a method, a seed and a kept fraction.

    >>> name_of_run("pensia", 0), name_of_run("edge-popup-wide", 3, 0.5)
    ('pensia-seed0', 'edge-popup-wide-seed3-keep0.5')
    """
    return f"{method}-seed{seed}" + ("" if keep is None else f"-keep{keep}")


class PendingRecords:
    """The folder of such records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, record: Record) -> None:
        """Keep a record, whole or not at all; raises `InputError`."""
        self.folder.mkdir(exist_ok=True)
        write_atomically(self._file(record.key), f"{record.to_json()}\n".encode())

    def give_up(self, key: Key) -> None:
        """Note that there is no ticket, and will be no record."""
        self.folder.mkdir(exist_ok=True)
        write_atomically(self._file(key), _NO_TICKET.encode())

    def has(self, key: Key) -> bool:
        """Whether there is a record, or none will be."""
        return self._file(key).exists()

    def read(self, key: Key, *, comes: bool = False) -> Record | None:
        """A record, None where there is none; comes: whether it is known to be written, and only not seen yet."""
        path = self._file(key)
        if not (path.exists() or (comes and wait_for_file(path))):
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
        log.warning("the record %r is damaged, and is made anew", str(path))
        return None

    def count(self) -> int:
        """How many there are."""
        return len(list(self.folder.glob("*.json")))

    def remove(self, key: Key) -> None:
        """Remove a record, and the folder with the last one."""
        self._file(key).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are there, or it never was
            self.folder.rmdir()

    def _file(self, key: Key) -> Path:
        return self.folder / f"{name_of_run(*key)}.json"
