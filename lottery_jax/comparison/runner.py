"""The comparison: every method goes the same way from task to ticket file to record.

A ticket is saved, read from its file, verified against the task's own target and rebuilt before it is measured.
Finished records are never recomputed, and a stopped run resumes.
"""

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lottery_jax.comparison.check_tickets import check_tickets
from lottery_jax.comparison.methods import Method
from lottery_jax.comparison.protocol import Protocol, configuration
from lottery_jax.comparison.record_units import SharedRecorder, Tickets
from lottery_jax.comparison.recording import Recorder
from lottery_jax.comparison.records import (
    Key,
    Record,
    append_records,
    faults_in_words,
    name_of_run,
    read_records,
    run_folder,
    ticket_faults,
)
from lottery_jax.comparison.report import write_report
from lottery_jax.errors import InputError
from lottery_jax.io.files import check_writable, write_atomically
from lottery_jax.io.locks import folder_lock
from lottery_jax.progress import Stages, log, no_stages
from lottery_jax.tasks import Task
from lottery_jax.workers.executors import run_units
from lottery_jax.workers.shared_objects import LocalObject, SharedObject
from lottery_jax.workers.units import Share, Unit


def _ignore(*arguments: object) -> None:
    """A callback that does nothing."""


@dataclasses.dataclass(frozen=True)
class Callbacks:
    """Functions that a comparison calls while it runs."""

    stages: Stages = no_stages
    opened: Callable[[Path], None] = _ignore
    """Called once with the run folder."""
    overall: Callable[[int, int, float | None], None] = _ignore
    """Called before each method and seed with (done, total, estimated seconds left or None)."""
    recorded: Callable[[Sequence[Record]], None] = _ignore
    """Called with the records of each method and seed."""


class Results(list[Record]):
    """The records of a comparison.

    Attributes:
        folder: The run folder.
        report: The report page; None for a share.
        requested: Number of requested records.
        missing: For a share, the requested records that are neither recorded nor pending.
        faults: What is wrong with the tickets of records, by key.
    """

    def __init__(
        self,
        records: Sequence[Record],
        folder: Path,
        requested: int,
        *,
        report: Path | None = None,
        missing: Sequence[Key] = (),
        faults: Mapping[Key, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(records)
        self.folder, self.report, self.requested, self.missing = folder, report, requested, tuple(missing)
        self.faults = dict(faults)


def run_comparison(
    task: Task,
    protocol: Protocol,
    out: Path,
    *,
    command: str,
    callbacks: Callbacks | None = None,
    executor: Any = None,
    share: Share | None = None,
    join_only: bool = False,
    check: bool = False,
) -> Results:
    """Compute the missing records of a comparison, and write its report; raises ``InputError``.

    Args:
        task: The target and its data.
        protocol: Methods, seeds, kept fractions and settings.
        out: Folder in which the configuration has its run folder.
        command: The command or call that the report names to repeat the comparison.
        callbacks: Functions to call while it runs.
        executor: Computes the records on its workers, which see the folder (see ``run_units``). Default: this process.
        share: The share of the records that this process computes; it writes no report.
        join_only: Join finished records without computing any.
        check: Verify the tickets of all finished records again, without computing any record.

    Returns:
        All requested records in order; none for a share. With ``check``, all finished records.
    """
    if (join_only or check) and (executor is not None or share is not None):
        name = "join_only" if join_only else "check"
        raise InputError(f"{name} must be used without an executor or a share. Omit one of the two.")
    callbacks = callbacks or Callbacks()
    comparison = Comparison(task, protocol, out, stages=callbacks.stages)
    callbacks.opened(comparison.folder)
    with comparison.locked(shared=share is not None):
        if check:
            if not (found := list(comparison.finished.values())):
                raise InputError(
                    f"{str(comparison.folder)!r} has no records to check; give the options of a finished comparison"
                )
            faults = check_tickets(comparison.folder, found, task, protocol.tolerance, stages=callbacks.stages)
            return Results(found, comparison.folder, len(comparison.numbers), faults=faults)
        if share is not None:
            comparison.run_share(share)
            return Results((), comparison.folder, len(comparison.numbers), missing=comparison.missing())
        if executor is not None:
            comparison.run_on(executor)
        if join_only:
            comparison.refuse_missing()
        seconds = dict[str, float]()
        for done, (method, seed) in enumerate(comparison.pairs):
            left: float | None = 0.0
            for other, _ in comparison.pairs[done:]:
                left = None if left is None or other.label not in seconds else left + seconds[other.label]
            callbacks.overall(done, len(comparison.pairs), left)
            start, search = time.perf_counter(), 0.0
            found = comparison.run(method, seed)
            for record in found:
                search += record.seconds or 0  # resumed runs were searched by earlier processes
            seconds[method.label] = max(time.perf_counter() - start, search, seconds.get(method.label, 0.0))
            callbacks.recorded(found)
        records = comparison.records()
        for note in task.accuracy_notes(records[0].target_accuracy):
            log.warning("%s", note)
        _remove(comparison.folder / "unfinished" / "dense")  # trainings that several methods share
        if faults := ticket_faults(comparison.folder, records):
            log.warning("%s; compare --check verifies all tickets again", faults_in_words(faults))
        report = comparison.report(records, command, faults)
    return Results(records, comparison.folder, len(comparison.numbers), report=report, faults=faults)


class Comparison:
    """The run folder of one configuration: its records, the missing ones, and the work that computes them.

    The arguments are those of ``run_comparison``. Records are computed in any order, by workers as pending records, and
    joined in order by ``run``.
    """

    def __init__(self, task: Task, protocol: Protocol, out: Path, *, stages: Stages = no_stages) -> None:
        check_writable(out)
        self.configuration = configuration(protocol, task)
        self.folder = run_folder(out, self.configuration)
        self.recorder = Recorder(task, protocol, self.folder.absolute(), stages)
        self.protocol, self.stages = protocol, stages
        self.pairs: list[tuple[Method, int]] = []  # all methods for the first seed come first
        self.records_file, self.pending = self.folder / "records.jsonl", self.recorder.pending
        (self.folder / "tickets").mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.configuration, indent=2, sort_keys=True) + "\n"
        write_atomically(self.folder / "configuration.json", text.encode())
        self.finished = read_records(self.records_file)
        self.numbers: dict[Key, int] = {}
        for seed in protocol.seeds:
            for method in protocol.methods:
                self.pairs.append((method, seed))
                for key in protocol.keys(method, seed):
                    self.numbers[key] = len(self.numbers)

    @contextlib.contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """While the block runs, only the workers of this comparison write into the folder."""
        with folder_lock(self.folder, "the run folder", shared=shared):
            self.finished = read_records(self.records_file)  # another process may have written before
            yield

    def records(self, keys: Iterable[Key] | None = None) -> list[Record]:
        """The finished records of these keys, or of the protocol, in order."""
        found = []
        for key in self.numbers if keys is None else keys:
            if key in self.finished:
                found.append(self.finished[key])
        return found

    def missing(self) -> list[Key]:
        """Requested records that are neither recorded nor pending."""
        return [key for key in self.numbers if key not in self.finished and not self.pending.has(key)]

    def refuse_missing(self) -> None:
        """Raise ``InputError`` with the names of missing records, if any are missing."""
        if keys := self.missing():
            names = ", ".join(name_of_run(*key) for key in keys[:8]) + (", ..." if len(keys) > 8 else "")
            raise InputError(
                f"{len(keys)} of {len(self.numbers)} records are missing ({names}). Start the unfinished shares again,"
                " or omit --join-only to compute the records here."
            )

    def run(self, method: Method, seed: int) -> list[Record]:
        """The records of a method and seed; pending ones are joined, missing ones are computed now."""
        missing = self._missing(method, seed)
        run_units(self._units(LocalObject(self.recorder), [(method, seed)], splits=False))
        if missing and method.depends_on is not None:
            self._join(self.recorder.known[method.depends_on], seed, may_be_unfinished=True)
        self._join(method, seed)
        return self.records(self.protocol.keys(method, seed))

    def run_on(self, executor: Any) -> None:
        """Compute the pending records on the workers of an executor."""
        if not self.missing():
            return
        recorder = dataclasses.replace(self.recorder, stages=no_stages)
        shared = SharedObject.write(recorder, recorder.folder / "unfinished")
        try:
            run_units(self._units(shared), executor=executor, progress=self.stages("units of all workers"))
        finally:
            shared.remove()
        for key in self.numbers:
            if key not in self.finished:
                self.pending.wait(key)

    def run_share(self, share: Share) -> None:
        """Compute the pending records of a share."""
        units = self._units(LocalObject(self.recorder))
        # Each share starts with another method, so that they compile different programs.
        first = (share.number - 1) * len(units) // share.of
        run_units(units[first:] + units[:first], share=share)

    def report(self, records: Sequence[Record], command: str, faults: Mapping[Key, str]) -> Path:
        """Write the report of records into the run folder; ``command`` repeats the comparison."""
        task = self.recorder.task
        return write_report(
            self.folder,
            records,
            title=f"Strong lottery tickets on {task.name}",
            lead=(
                f"A trained network of {self.recorder.target.weights:,} weights on {task.name} is the target. Each"
                " method prunes a random network; the table shows whether the kept weights stayed random or were"
                " trained. Every ticket was saved, read back, verified against the target and rebuilt before it was"
                " measured."
            ),
            configuration=self.configuration,
            command=command,
            methods=self.recorder.known,
            tickets=faults_in_words(faults),
        )

    def _units(
        self, shared: SharedRecorder, pairs: Sequence[tuple[Method, int]] | None = None, *, splits: bool = True
    ) -> list[Unit]:
        """The units of the missing records of methods and seeds, by default all.

        `splits` is False to train all runs of a method in one unit.
        """
        units = list[Unit]()
        for number, (method, seed) in enumerate(pairs or self.pairs):
            keys = self._missing(method, seed)
            keeps = tuple(keep for *_, keep in keys)
            tickets = Tickets(shared, method.label, seed, keeps, number, splits and method.shares)
            left = [key for key in keys if self.pending.read(key) is None and not self.pending.has(key)]
            if left:
                units += [tickets.unit(), *(tickets.record_unit(key[-1]) for key in left)]
        return units

    def _join(self, method: Method, seed: int, *, may_be_unfinished: bool = False) -> None:
        """Move pending records into the file of all records, and remove the unfinished trainings."""
        found = {}
        for key in self._missing(method, seed):
            if record := self.pending.read(key):
                found[key] = record
        if found:
            append_records(self.records_file, found.values())
            self.finished |= found
        if may_be_unfinished and self._missing(method, seed):
            return
        for key in self.protocol.keys(method, seed):
            self.pending.remove(key)
        _remove(self.recorder.unfinished(method.label, seed))

    def _missing(self, method: Method, seed: int) -> list[Key]:
        missing = []
        for key in self.protocol.keys(method, seed):
            if key not in self.finished:
                missing.append(key)
        return missing


def _remove(folder: Path) -> None:
    """Remove a folder of unfinished work, and its parent with the last one."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # the parent is not empty
        folder.parent.rmdir()
