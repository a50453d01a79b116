"""The comparison: every method goes the same way from task to ticket file to record.

A ticket is saved, read from its file, verified against the task's own target and rebuilt before it is measured.
Finished records are never recomputed, and a stopped run resumes.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import jax

from lottery_jax import environment
from lottery_jax.comparison.check_tickets import check_tickets
from lottery_jax.comparison.methods import Method, MethodContext
from lottery_jax.comparison.protocol import Protocol, configuration
from lottery_jax.comparison.recording import FoundTickets, find_tickets, make_record
from lottery_jax.comparison.records import (
    Key,
    PendingRecords,
    Record,
    append_records,
    faults_in_words,
    name_of_run,
    read_records,
    run_folder,
    ticket_faults,
    ticket_path,
)
from lottery_jax.comparison.report import write_report
from lottery_jax.errors import InputError
from lottery_jax.io.files import check_writable, wait_for_file, write_atomically
from lottery_jax.io.locks import folder_lock
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.progress import Stages, log, no_stages
from lottery_jax.tasks import Task
from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.workers.workers import FOUND, SERIAL, Pending, Share, Workers, run_units, unit_of


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
        report: The report page; None if this process did not write it.
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
    workers: Workers = SERIAL,
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
        workers: Processes that share the work.
        join_only: Join finished records without computing any.
        check: Verify the tickets of all finished records again, without computing any record.

    Returns:
        All requested records in order; none in a process that does not lead. With ``check``, all finished records.
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
            return Results((), comparison.folder, len(comparison.units), missing=missing)
        if check:
            found = list(comparison.finished.values())
            faults = check_tickets(comparison.folder, found, task, protocol.tolerance, stages=callbacks.stages)
            return Results(found, comparison.folder, len(comparison.units), faults=faults)
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
        _remove(comparison.folder / "unfinished" / "dense")  # trainings that several methods share
        if faults := ticket_faults(comparison.folder, records):
            log.warning("%s; compare --check verifies all tickets again", faults_in_words(faults))
        report = comparison.report(records, command, faults)
    return Results(records, comparison.folder, len(comparison.units), report=report, faults=faults)


class Comparison:
    """The run folder of one configuration: its records, the missing ones, and the work that computes them.

    The arguments are those of ``run_comparison``. All processes ``contribute``; the leader joins the records with
    ``run``.
    """

    def __init__(
        self, task: Task, protocol: Protocol, out: Path, *, stages: Stages = no_stages, workers: Workers = SERIAL
    ) -> None:
        if workers.opens:
            check_writable(out)
        self.task, self.protocol, self.stages, self.workers = task, protocol, stages, workers
        self.target = fold_batch_norm(task.target)
        self.known = dict(protocol.selection.known)
        self.pairs: list[tuple[Method, int]] = []  # all methods for the first seed come first
        self.configuration = configuration(protocol, task)
        self.folder = run_folder(out, self.configuration)
        self.records_file, self.pending = self.folder / "records.jsonl", PendingRecords(self.folder / "records")
        if workers.opens:
            (self.folder / "tickets").mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.configuration, indent=2, sort_keys=True) + "\n"
            write_atomically(self.folder / "configuration.json", text.encode())
        self.finished = read_records(self.records_file)
        self._list = f"records {self.folder.name}"
        self.units: dict[Key, str] = {}
        for seed in protocol.seeds:
            for method in protocol.methods:
                self.known[method.label] = method
                self.pairs.append((method, seed))
                for key in protocol.keys(method, seed):
                    self.units[key] = unit_of(self._list, len(self.units))

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
            self.finished = read_records(self.records_file)  # another process may have written before
            yield

    def records(self, keys: Iterable[Key] | None = None) -> list[Record]:
        """The finished records of these keys, or of the protocol, in order."""
        found = []
        for key in self.units if keys is None else keys:
            if key in self.finished:
                found.append(self.finished[key])
        return found

    def missing(self) -> list[Key]:
        """Requested records that are neither recorded nor pending."""
        return [key for key in self.units if key not in self.finished and not self.pending.has(key)]

    def refuse_missing(self) -> None:
        """Raise ``InputError`` with the names of missing records, if any are missing."""
        if keys := self.missing():
            names = ", ".join(name_of_run(*key) for key in keys[:8]) + (", ..." if len(keys) > 8 else "")
            raise InputError(
                f"{len(keys)} of {len(self.units)} records are missing ({names}). Start the unfinished shares again, or"
                " omit --join-only to compute the records here."
            )

    def run(self, method: Method, seed: int) -> list[Record]:
        """The records of a method and seed; pending ones are joined, missing ones are computed now."""
        missing, left = self._missing(method, seed), []
        for key in missing:
            if self._pending_record(key) is None:
                left.append(key)
        if left:
            self._compute(method, seed, missing, left, SERIAL)
        if missing and method.depends_on is not None:
            self._join(self.known[method.depends_on], seed, may_be_unfinished=True)
        self._join(method, seed)
        return self.records(self.protocol.keys(method, seed))

    def contribute_all(self) -> None:
        """Compute the pending records that come to this process, until none is left for it."""
        seeds, methods, process = self.protocol.seeds, list(self.protocol.methods), self.workers.process
        # Each process starts with another method, so that they compile different programs; the first seed is first.
        first = process * len(methods) // self.workers.processes
        pairs = [(method, seed) for seed in seeds for method in methods[first:] + methods[:first]]
        run_units(pairs, lambda pair: self.contribute(*pair), self.workers)
        self.workers.gather(self._list)  # from here on, no process reads the files that are removed

    def contribute(self, method: Method, seed: int) -> None:
        """Compute the pending records that come to this process; raises ``Pending`` if others compute the rest."""
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

    def report(self, records: Sequence[Record], command: str, faults: Mapping[Key, str]) -> Path:
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
            methods=self.known,
            tickets=faults_in_words(faults),
        )

    def _compute(self, method: Method, seed: int, missing: list[Key], left: list[Key], workers: Workers) -> None:
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
        number = self.pairs.index((method, seed)) if (method, seed) in self.pairs else len(self.pairs)
        paths = {key[-1]: self._ticket_path(key) for key in keys}
        context = MethodContext(
            self.target,
            self.task.dataset,
            self.protocol.tolerance,
            self.protocol.candidates,
            self.protocol.epochs,
            lambda label, seed: load_ticket(self._ticket_path((label, seed, None)), limit=math.inf),
            self._stages((method.label, seed, None))("finding"),
            self.protocol.tune,
            Checkpoints(self._unfinished(method, seed), workers, number),
            self.protocol.transforms,
        )
        return find_tickets(method, context, seed, paths)

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
        found = {}
        for key in self._missing(method, seed):
            if record := self._pending_record(key):
                found[key] = record
        if found:
            append_records(self.records_file, found.values())
            self.finished |= found
        if may_be_unfinished and self._missing(method, seed):
            return
        for key in self.protocol.keys(method, seed):
            self.pending.remove(key)
        _remove(self._unfinished(method, seed))

    def _pending_record(self, key: Key) -> Record | None:
        return self.pending.read(key, announced=self.workers.note(self._unit(key)) not in (None, FOUND))

    def _missing(self, method: Method, seed: int) -> list[Key]:
        missing = []
        for key in self.protocol.keys(method, seed):
            if key not in self.finished:
                missing.append(key)
        return missing

    def _unit(self, key: Key) -> str:
        return self.units.get(key) or f"record {name_of_run(*key)}"

    def _unfinished(self, method: Method, seed: int) -> Path:
        return self.folder / "unfinished" / name_of_run(method.label, seed)

    def _ticket_path(self, key: Key) -> Path:
        return ticket_path(self.folder, key)

    def _stages(self, key: Key) -> Stages:
        label, seed, keep = key
        kept = "" if keep is None else f", keep {keep:g}"
        return lambda part: self.stages(f"{label}{kept}, seed {seed}: {part}")


def _remove(folder: Path) -> None:
    """Remove a folder of unfinished work, and its parent with the last one."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # the parent is not empty
        folder.parent.rmdir()
