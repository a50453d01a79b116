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
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lottery_jax.errors import InputError, quoted, shown
from lottery_jax.io.files import file_digest, read_regular, wait_for_file, write_atomically
from lottery_jax.progress import log

Key = tuple[str, int, float | None]

_MAX_FLOAT = 1e300
_SHOWN = 8  # names in a message
_OTHER_METRIC = ("metric", "metric_value", "target_metric_value", "rms_deviation", "loss")


@dataclasses.dataclass(frozen=True)
class Record:
    """One result; None if a number has no meaning (the dense target has no source and no ticket)."""

    method: str
    task: str
    seed: int
    keep: float | None
    """The requested kept fraction; None if the method does not sweep."""
    accuracy: float | None
    """Like the next four fields None if the task has another metric."""
    accuracy_low: float | None
    accuracy_high: float | None
    """The 95 % interval of `accuracy` over the test images."""
    target_accuracy: float | None
    agreement: float | None
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
    ticket_sha256: str | None = None
    """Digest of the ticket's file; None in records of an older version."""
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
    metric: str | None = None
    """Name of the metric that replaces the accuracy, such as R^2; the next three fields are None without one."""
    metric_value: float | None = None
    """The metric on the test examples; None if it is not finite."""
    target_metric_value: float | None = None
    rms_deviation: float | None = None
    """Root mean square of |f - g| over test examples and outputs."""
    loss: Mapping[str, str] | None = None
    """Names of loss and metric, with digests of functions of the user; None for a plain classification."""
    device: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Method, seed and kept fraction, recorded once in a run folder."""
        return self.method, self.seed, self.keep

    def to_json(self) -> str:
        """One line of JSON without the line end; raises ``ValueError`` for non-finite numbers, which JSON lacks."""
        values = dataclasses.asdict(self)
        if self.metric is None and self.loss is None:  # a classification, whose lines older versions wrote too
            for name in _OTHER_METRIC:
                del values[name]
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Inverse of ``to_json`` for an untrusted line; fields that this version does not know are omitted.

        Raises:
            InputError: It is not a record, or a field has a wrong type.

        >>> row = Record("dense", "digits", 0, None, 0.97, 0.95, 0.98, 0.97, 1.0, 0.0, 2368)
        >>> Record.from_json(row.to_json()) == row
        True
        """
        try:
            values = json.loads(line)
            known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
            for name, hint in typing.get_type_hints(cls).items():
                if name in known and not _fits(known[name], hint):
                    raise InputError(f"the field {name} of a record must not be {shown(known[name])}")
            record = cls(**known)
        except (ValueError, TypeError, RecursionError) as error:
            raise error if isinstance(error, InputError) else InputError("it must be a record in JSON") from None
        if not record.method or {"/", "\0"} & set(record.method):
            raise InputError(f"the method of a record must be the name of a file too, got {shown(record.method)}")
        return record


def _fits(value: Any, hint: Any) -> bool:
    """True if a JSON value has the type of a field; a number is finite and not beyond 64 bits or 1e300."""
    if typing.get_origin(hint) is Mapping:
        return isinstance(value, dict) and all(_fits(part, typing.get_args(hint)[1]) for part in value.values())
    if kinds := typing.get_args(hint):
        return any(_fits(value, kind) for kind in kinds)
    if hint is float:
        return type(value) in (int, float) and abs(value) <= _MAX_FLOAT  # false for NaN
    return type(value) is hint and (hint is not int or abs(value) < 2**64)


def read_records(path: Path) -> dict[Key, Record]:
    """All complete lines of a file by key, in order, the first of equal keys; a torn last line is omitted."""
    content = read_regular(path) if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    records: dict[Key, Record] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            record = Record.from_json(line.decode())
        except ValueError as error:
            raise InputError(
                f"line {number} of {str(path)!r} is not a record: {error}. Remove the line, or the file to start again."
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


def ticket_path(folder: Path, key: Key) -> Path:
    """The ticket of a record in a run folder."""
    return folder / "tickets" / f"{name_of_run(*key)}.safetensors"


def ticket_faults(folder: Path, records: Iterable[Record]) -> dict[Key, str]:
    """What is wrong with the tickets of records, by key: files that are missing, or not those that were measured."""
    faults = {}
    for record in records:
        if record.outcome is None:  # the target itself, which has no ticket
            continue
        path = ticket_path(folder, record.key)
        if not path.is_file():
            faults[record.key] = "is missing"
        elif record.ticket_sha256 is None:
            faults[record.key] = "has no digest in its record of an older version"
        elif file_digest(path) != record.ticket_sha256:
            faults[record.key] = "was changed after it was recorded"
    return faults


def faults_in_words(faults: Mapping[Key, str]) -> str:
    """Faults of tickets in words, grouped by what is wrong.

    >>> faults_in_words({("pensia", 0, None): "is missing", ("random", 0, None): "is missing"})
    'the ticket is missing: pensia-seed0, random-seed0'
    """
    groups: dict[str, list[str]] = {}
    for key, fault in faults.items():
        groups.setdefault(fault, []).append(quoted(name_of_run(*key)))
    parts = []
    for fault, names in groups.items():
        more = f" and {len(names) - _SHOWN:,} others" if len(names) > _SHOWN else ""
        parts.append(f"the ticket {fault}: {', '.join(names[:_SHOWN])}{more}")
    return "; ".join(parts)


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
            content = read_regular(path).decode()
            if content == _NO_TICKET:
                return None
            record = Record.from_json(content)
            if record.key == key:
                return record
        except (OSError, ValueError):
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
