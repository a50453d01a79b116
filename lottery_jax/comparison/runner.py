"""The comparison: every method goes the same way from task to ticket file to record.

A ticket is saved, read from its file, verified against the task's own target and rebuilt before it is measured.
Finished records are never recomputed, and a stopped run resumes.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import jax

from lottery_jax import environment
from lottery_jax.comparison.methods import Method, MethodContext
from lottery_jax.comparison.protocol import Protocol, configuration
from lottery_jax.comparison.recording import FoundTickets, find_tickets, make_record
from lottery_jax.comparison.records import (
    Key,
    PendingRecords,
    Record,
    append_records,
    name_of_run,
    read_records,
    run_folder,
    write_configuration,
)
from lottery_jax.comparison.report import write_report
from lottery_jax.errors import InputError
from lottery_jax.io.files import check_writable, wait_for_file
from lottery_jax.io.locks import folder_lock
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.progress import Stages, log, no_stages
from lottery_jax.tasks import Task
from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.workers.workers import FOUND, SERIAL, Pending, Share, Workers, unit_of

_LISTED = 8  # missing records that an error names


def _ignore(*arguments: object) -> None:
    """A callback that does nothing."""


@dataclasses.dataclass(frozen=True)
class Callbacks:
    """Functions that a comparison calls while it runs.

    Attributes:
        stages: Called with the name of each part of the work; returns its progress function.
        opened: Called once with the run folder.
        overall: Called before each method and seed with (done, total, estimated seconds left or None).
        recorded: Called with the records of each method and seed.
    """

    stages: Stages = no_stages
    opened: Callable[[Path], None] = _ignore
    overall: Callable[[int, int, float | None], None] = _ignore
    recorded: Callable[[Sequence[Record]], None] = _ignore


class Results(list[Record]):
    """The records of a comparison.

    Attributes:
        folder: The run folder.
        report: The report page; None if this process did not write it.
        requested: Number of requested records.
        missing: For a share, the requested records that are neither recorded nor pending.
    """

    def __init__(
        self,
        records: Sequence[Record],
        folder: Path,
        *,
        report: Path | None = None,
        requested: int = 0,
        missing: Sequence[Key] = (),
    ) -> None:
        super().__init__(records)
        self.folder, self.report, self.requested, self.missing = folder, report, requested, tuple(missing)


def run_comparison(
    task: Task,
    protocol: Protocol,
    out: Path,
    *,
    command: str,
    callbacks: Callbacks | None = None,
    workers: Workers = SERIAL,
    join_only: bool = False,
) -> Results:
    """Compute the missing records of a comparison, and write its report.

    Args:
        task: The target and its data.
        protocol: Methods, seeds, kept fractions and settings.
        out: Folder in which the configuration has its run folder.
        command: The command or call that the report names to repeat the comparison.
        callbacks: Functions to call while it runs.
        workers: Processes that share the work.
        join_only: Join finished records without computing any.

    Returns:
        All requested records in order; none in a process that does not lead.

    Raises:
        InputError: The folder is in use or cannot be written, or records are missing for ``join_only``.
    """
    if join_only and workers is not SERIAL:
        raise InputError("join_only must be used by one process without workers. Omit one of the two.")
    callbacks = callbacks or Callbacks()
    comparison = Comparison(task, protocol, out, stages=callbacks.stages, workers=workers)
    callbacks.opened(comparison.folder)
    with comparison.locked():
        if workers is not SERIAL:
            comparison.contribute_all()
        if not workers.leads:
            missing = () if workers.meets else comparison.missing()
            return Results((), comparison.folder, requested=len(comparison.units), missing=missing)
        if join_only:
            comparison.refuse_missing()
        seconds = dict[str, float]()
        for done, (method, seed) in enumerate(comparison.pairs):
            rest = [seconds.get(each.label) for each, _ in comparison.pairs[done:]]
            callbacks.overall(done, len(comparison.pairs), None if None in rest else sum(filter(None, rest)))
            start = time.perf_counter()
            found = comparison.run(method, seed)
            took = max(time.perf_counter() - start, sum(record.seconds or 0 for record in found))
            seconds[method.label] = max(took, seconds.get(method.label, 0.0))
            callbacks.recorded(found)
        records = comparison.records()
        _remove(comparison.folder / "unfinished" / "dense")  # trainings that several methods share
        report = comparison.report(records, command)
    return Results(records, comparison.folder, report=report, requested=len(comparison.units))


class Comparison:
    """The run folder of one configuration: its records, the missing ones, and the work that computes them.

    Args:
        task: The target and its data.
        protocol: Methods, seeds, kept fractions and settings.
        out: Folder in which the configuration has its run folder.
        stages: Called with the name of each part of the work.
        workers: Processes that share the work: all ``contribute``, and the leader joins the records with ``run``.
    """

    def __init__(
        self, task: Task, protocol: Protocol, out: Path, *, stages: Stages = no_stages, workers: Workers = SERIAL
    ) -> None:
        if workers.opens:
            check_writable(out)
        self.task, self.protocol, self.stages, self.workers = task, protocol, stages, workers
        self.target = fold_batch_norm(task.target)
        self.known = {**protocol.selection.known, **{method.label: method for method in protocol.methods}}
        # All methods for the first seed come first.
        self.pairs = [(method, seed) for seed in protocol.seeds for method in protocol.methods]
        self.configuration = configuration(protocol, task)
        self.folder = run_folder(out, self.configuration)
        self.records_file, self.pending = self.folder / "records.jsonl", PendingRecords(self.folder / "records")
        if workers.opens:
            (self.folder / "tickets").mkdir(parents=True, exist_ok=True)
            write_configuration(self.folder, self.configuration)
        self._read_finished()
        self._list = f"records {self.folder.name}"
        self.units: dict[Key, str] = {}
        for method, seed in self.pairs:
            for key in protocol.keys(method, seed):
                self.units[key] = unit_of(self._list, len(self.units))

    def _read_finished(self) -> None:
        self.finished = {record.key: record for record in read_records(self.records_file)}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While the block runs, only the workers of this comparison write into the folder."""
        with contextlib.ExitStack() as stack:
            if self.workers.opens:
                stack.enter_context(folder_lock(self.folder, "the run folder", shared=not self.workers.leads))
            device, requested = jax.local_devices()[0], json.dumps([self.configuration, list(self.units)]).encode()
            facts = {
                **environment.version_facts(),
                "target": self.task.target.digest[:16],
                "comparison (data, methods, seeds, keeps or options)": hashlib.sha256(requested).hexdigest()[:16],
                # The number of runs that share a step depends on them.
                "number or kind of devices": f"{jax.local_device_count()} {device.platform} {device.device_kind}",
            }
            self.workers.begin(facts, self.folder)
            self.workers.expect(self._list, len(self.units))
            self._read_finished()  # another process may have written before
            yield

    def records(self) -> list[Record]:
        """The finished records of the protocol, in order."""
        return [self.finished[key] for key in self.units if key in self.finished]

    def missing(self) -> list[Key]:
        """Requested records that are neither recorded nor pending."""
        return [key for key in self.units if key not in self.finished and not self.pending.has(key)]

    def refuse_missing(self) -> None:
        """Raise ``InputError`` with the names of missing records, if any are missing."""
        if keys := self.missing():
            names = ", ".join(name_of_run(*key) for key in keys[:_LISTED]) + (", ..." if len(keys) > _LISTED else "")
            raise InputError(
                f"{len(keys)} of {len(self.units)} records are missing ({names}). Start the unfinished shares again, or"
                " omit --join-only to compute the records here."
            )

    def run(self, method: Method, seed: int) -> list[Record]:
        """The records of a method and seed; pending ones are joined, missing ones are computed now."""
        missing = self._missing(method, seed)
        left = [key for key in missing if self._pending_record(key) is None]
        if left:
            self._compute(method, seed, missing, left, SERIAL)
        if missing and method.depends_on is not None:
            self._join(self.known[method.depends_on], seed, may_be_unfinished=True)
        self._join(method, seed)
        return [self.finished[key] for key in self.protocol.keys(method, seed) if key in self.finished]

    def contribute_all(self) -> None:
        """Compute the pending records that come to this process, until none is left for it."""
        seeds, methods, process = self.protocol.seeds, list(self.protocol.methods), self.workers.process
        # Each process starts with another method, so that they compile different programs; the first seed is first.
        first = process * len(methods) // self.workers.processes
        pairs = [(method, seed) for seed in seeds for method in methods[first:] + methods[:first]]
        run_units(pairs, lambda pair: self.contribute(*pair), self.workers)
        self.workers.gather(self._list)  # from here on, no process reads the files that are removed

    def contribute(self, method: Method, seed: int) -> None:
        """Compute the pending records of a method and seed that come to this process.

        Raises:
            Pending: Other processes compute the rest.
        """
        missing, left = self._missing(method, seed), []
        for key in self.protocol.keys(method, seed):
            unit = self._unit(key)
            if self.workers.note(unit) is not None:
                continue
            if key not in missing or self.pending.has(key):
                self.workers.found(unit)
            else:
                left.append(key)
        if left:
            self._compute(method, seed, missing, left, self.workers)

    def report(self, records: Sequence[Record], command: str) -> Path:
        """Write the report of records into the run folder; ``command`` repeats the comparison."""
        return write_report(
            self.folder,
            records,
            title=f"Strong lottery tickets on {self.task.name}",
            lead=(
                f"A trained network of {self.target.weights:,} weights on {self.task.name} is the target. Each method"
                " prunes a random network; the table shows whether the kept weights stayed random or were trained."
                " Every ticket was saved, read back, verified against the target and rebuilt before it was measured."
            ),
            configuration=self.configuration,
            command=command,
            methods={record.method: self.known[record.method].about for record in records},
        )

    def _compute(
        self, method: Method, seed: int, missing: Sequence[Key], left: Sequence[Key], workers: Workers
    ) -> None:
        """Find the tickets of missing records, and write pending records of those that are ``left``."""
        found, elsewhere = self._find_tickets(method, seed, missing, workers), []
        for key in left:
            unit = self._unit(key)
            if key[-1] not in found.keeps:
                self.pending.write(key, None)
                workers.done(unit, "no ticket")
            elif workers.take(unit):
                path, stages = self._ticket_path(key), self._stages(key)
                record = make_record(path, found, key, self.task, self.target, self.protocol, stages=stages)
                self.pending.write(key, record)
                workers.done(unit, "measured")
            elif workers.note(unit) is None:
                elsewhere.append(unit)
        if elsewhere:
            raise Pending(elsewhere)

    def _find_tickets(self, method: Method, seed: int, keys: Sequence[Key], workers: Workers) -> FoundTickets:
        """Find and save the tickets of a method and seed, those of the method that it depends on first."""
        if method.depends_on is not None:
            self._find_dependency(self.known[method.depends_on], method, seed, workers)
        pair = (method, seed)
        number = self.pairs.index(pair) if pair in self.pairs else len(self.pairs)
        context = MethodContext(
            self.target,
            self.task.dataset,
            self.protocol.tolerance,
            self.protocol.candidates,
            self.protocol.epochs,
            lambda label, seed: load_ticket(self._ticket_path((label, seed, None))),
            self._stages((method.label, seed, None))("finding"),
            self.protocol.tune,
            Checkpoints(self._unfinished(method, seed), workers, number),
            self.protocol.transforms,
        )
        return find_tickets(method, context, seed, {key[-1]: self._ticket_path(key) for key in keys})

    def _find_dependency(self, model: Method, method: Method, seed: int, workers: Workers) -> None:
        """Find the ticket that ``method`` depends on; its record has its own label, like any other."""
        keys = self.protocol.keys(model, seed)
        path = self._ticket_path(keys[0])
        if path.exists():
            return
        log.info("%s depends on %s, which is found first (seed %d)", method.label, model.label, seed)
        own = Share(1, 1) if isinstance(workers, Share) else workers  # another share may not finish it in time
        if self._missing(model, seed):
            self._compute(model, seed, keys, keys, own)
        else:
            self._find_tickets(model, seed, keys, own)  # only its file was lost
        wait_for_file(path)

    def _join(self, method: Method, seed: int, *, may_be_unfinished: bool = False) -> None:
        """Move pending records into the file of all records, and remove the unfinished trainings."""
        found = [record for key in self._missing(method, seed) if (record := self._pending_record(key)) is not None]
        if found:
            append_records(self.records_file, found)
            self.finished |= {record.key: record for record in found}
        if may_be_unfinished and self._missing(method, seed):
            return
        for key in self.protocol.keys(method, seed):
            self.pending.remove(key)
        _remove(self._unfinished(method, seed))

    def _pending_record(self, key: Key) -> Record | None:
        return self.pending.read(key, announced=self.workers.note(self._unit(key)) not in (None, FOUND))

    def _missing(self, method: Method, seed: int) -> list[Key]:
        return [key for key in self.protocol.keys(method, seed) if key not in self.finished]

    def _unit(self, key: Key) -> str:
        return self.units.get(key) or f"record {name_of_run(*key)}"

    def _unfinished(self, method: Method, seed: int) -> Path:
        return self.folder / "unfinished" / name_of_run(method.label, seed)

    def _ticket_path(self, key: Key) -> Path:
        return self.folder / "tickets" / f"{name_of_run(*key)}.safetensors"

    def _stages(self, key: Key) -> Stages:
        label, seed, keep = key
        kept = "" if keep is None else f", keep {keep:g}"
        return lambda part: self.stages(f"{label}{kept}, seed {seed}: {part}")


_Unit = TypeVar("_Unit")


def run_units(units: Sequence[_Unit], contribute: Callable[[_Unit], None], workers: Workers) -> list[_Unit]:
    """Contribute to each unit of work what comes to this process.

    Args:
        units: The units, each of which several processes may share.
        contribute: Raises ``Pending`` if other processes do the rest of a unit.
        workers: The processes. Those that meet continue until all units are done; shares, which do not meet, try each
            unfinished unit once more.

    Returns:
        Units that are left to other shares.

    Example:
        >>> run_units(["a", "b"], print, SERIAL)
        a
        b
        []
    """
    waiting: dict[int, tuple[str, ...]] = dict.fromkeys(range(len(units)), ())
    attempts = 0
    while waiting and (workers.meets or attempts < 2):
        left, attempts = dict[int, tuple[str, ...]](), attempts + 1
        for number, needed in waiting.items():
            if needed and not workers.ready(needed):
                left[number] = needed
                continue
            try:
                contribute(units[number])
            except Pending as pending:
                left[number] = pending.units
        waiting = left
        workers.wait([unit for needed in left.values() for unit in needed])
    return [units[number] for number in waiting]


def _remove(folder: Path) -> None:
    """Remove a folder of unfinished work, and its parent with the last one."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # the parent is not empty
        folder.parent.rmdir()
