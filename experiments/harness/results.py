"""The rows of an experiment, found unit by unit by one process or by many; a finished unit is durable.

The rows of a unit are a file in the folder OUT.units until all units are finished. Then they are joined in the order of
the units, and the folder is removed. A stopped experiment resumes.
"""

import contextlib
import contextvars
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lottery_jax import environment
from lottery_jax.cli.progress_bars import ProgressReporter
from lottery_jax.cli.status import UNITS, finished_units
from lottery_jax.errors import InputError
from lottery_jax.io.files import check_writable, wait_for_file, write_atomically
from lottery_jax.io.locks import folder_lock
from lottery_jax.progress import log
from lottery_jax.training.checkpoints import Checkpoints, Group, Pending
from lottery_jax.workers.executors import run_units
from lottery_jax.workers.shared_objects import LocalObject, SharedObject
from lottery_jax.workers.units import Share, Unit

_Task = TypeVar("_Task")
_Row = dict[str, Any]


class UnitsLeft(Exception):
    """Units are left to other shares."""

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__(", ".join(unit.name for unit in units))
        self.units = tuple(units)


class Results(list[_Row]):
    """Rows of JSON with the device and versions that computed them.

    Args:
        path: The output file.
        facts: Settings that the rows depend on, by name; the versions are added.
        executor: Computes the units on its workers (see ``run_units``). Default: this process.
        share: The share of the units that this process computes.
        shown: Reporter of the progress.
        join_only: Join finished units without computing any.
    """

    def __init__(
        self,
        path: Path,
        *,
        facts: Mapping[str, str] | None = None,
        executor: Any = None,
        share: Share | None = None,
        shown: ProgressReporter | None = None,
        join_only: bool = False,
    ) -> None:
        self.path, self.folder = path, path.with_name(f"{path.name}{UNITS}")
        self._executor, self._share, self._join_only = executor, share, join_only
        self._shown = shown or ProgressReporter()
        self._facts = environment.version_facts() | dict(facts or {})
        self._made_by = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:16]
        self._stack: contextlib.ExitStack | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker writes the same files, and knows neither the rows nor the executor."""
        return _results_of_worker, (self.path.absolute(), self._facts)

    def each(self, name: str, tasks: Sequence[_Task], run: Callable[[_Task], None], *, splits: bool = False) -> None:
        """Run each unfinished task, then append the rows of all tasks in their order.

        Args:
            name: What the tasks are, in the plural.
            tasks: The units of work.
            run: Runs a task and calls ``keep`` for each of its rows.
            splits: Whether workers share the trainings of a task, through learners that get ``checkpoints``.

        Raises:
            UnitsLeft: Tasks are left to other shares.
            InputError: ``join_only``, and tasks are missing.
        """
        self._open()
        missing = [number for number in range(len(tasks)) if self._read(name, number) is None]
        if self._join_only and missing:
            raise InputError(
                f"{len(missing)} of {len(tasks)} {name} are missing (number {', '.join(map(str, missing[:8]))}, from"
                " 0). Start the unfinished shares again, or omit --join-only to compute them here."
            )
        splits = splits and (self._executor is not None or self._share is not None)
        job, finished = _Job(self, name, tasks, run, splits), len(tasks) - len(missing)
        if missing:
            shared = LocalObject(job) if self._executor is None else SharedObject.write(job, self.folder)
            left = run_units(
                [
                    Unit(f"{name} {number}", run_task, (shared, number), None if splits else number)
                    for number in missing
                ],
                executor=self._executor,
                share=self._share,
                progress=lambda done, total: self._shown.whole(finished + done, finished + total),
            )
            if left:
                raise UnitsLeft(left)
        for number in range(len(tasks)):
            wait_for_file(self._file(name, number))
            rows = self._read(name, number)
            self += job.rows_of(number) if rows is None else rows  # damaged

    def keep(self, **row: Any) -> None:
        """Append a row."""
        row |= {"device": environment.device(), "versions": environment.versions()}
        current = _CURRENT.get()
        (self if current is None else current.rows).append(row)

    @property
    def checkpoints(self) -> Checkpoints:
        """The folder of the unfinished trainings of the current task."""
        current = _CURRENT.get()
        assert current is not None, "outside of a task"
        return current.checkpoints

    def write(self) -> None:
        """Write the output and remove the folder of units; called by the process that leads."""
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self).encode())
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Unlock the folder of units."""
        if self._stack is not None:
            self._stack.close()

    def finished(self) -> int:
        """Number of finished units that are not yet joined."""
        return finished_units(self.folder)

    def _open(self) -> None:
        """Lock the folder of units at the first task, when the settings are known to be valid."""
        if self._stack is not None:
            return
        check_writable(self.path.parent)
        self._stack = contextlib.ExitStack()
        self.folder.mkdir(parents=True, exist_ok=True)
        what = "the folder of finished units"
        self._stack.enter_context(folder_lock(self.folder, what, shared=self._share is not None))

    def _write(self, name: str, number: int, rows: list[_Row]) -> None:
        content = json.dumps({"made_by": self._made_by, "unit": f"{name}/{number}", "rows": rows})
        write_atomically(self._file(name, number), content.encode())

    def _file(self, name: str, number: int) -> Path:
        return self.folder / f"{name.replace(' ', '-')}-{number:04d}.json"

    def _read(self, name: str, number: int) -> list[_Row] | None:
        """The rows of a finished unit; None if it is not finished or its file is damaged."""
        path = self._file(name, number)
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_bytes())
            made_by, unit, rows = found["made_by"], found["unit"], list(found["rows"])
        except (ValueError, KeyError, TypeError):
            log.warning("the file %r is damaged and is computed again", str(path))
            return None
        if made_by != self._made_by or unit != f"{name}/{number}":
            raise InputError(
                f"{str(path)!r} belongs to a run with other settings, versions or program. Finish that run with its own"
                f" command, remove {str(self.folder)!r}, or choose another --out."
            )
        return rows


def _results_of_worker(path: Path, facts: Mapping[str, str]) -> Results:
    return Results(path, facts=facts)


@dataclasses.dataclass(frozen=True)
class _Current:
    """The task that runs: its rows so far, and the folder of its trainings."""

    rows: list[_Row]
    checkpoints: Checkpoints


_CURRENT: contextvars.ContextVar[_Current | None] = contextvars.ContextVar("current task", default=None)


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """The tasks of one call of ``Results.each``."""

    results: Results
    name: str
    tasks: Sequence[Any]
    run: Callable[[Any], None]
    splits: bool

    def rows_of(self, number: int, groups: tuple[Group, ...] | None = None) -> list[_Row]:
        """Run a task and write its rows; raises ``Pending`` (see ``Checkpoints``)."""
        trainings = self.results.folder / "trainings" / f"{self.name.replace(' ', '-')}-{number}"
        current = _Current([], Checkpoints(trainings, groups, number))
        token = _CURRENT.set(current)
        try:
            self.run(self.tasks[number])
        finally:
            _CURRENT.reset(token)
        self.results._write(self.name, number, current.rows)
        shutil.rmtree(trainings, ignore_errors=True)
        return current.rows


def run_task(shared: SharedObject | LocalObject, number: int, group: Group | None = None) -> Sequence[Unit]:
    """The unit of a task, or of a group of its runs."""
    job: _Job = shared.load()
    if job.results._read(job.name, number) is not None:
        return ()
    groups = (group,) if group is not None else () if job.splits else None
    try:
        job.rows_of(number, groups)
    except Pending as pending:
        if group is not None and group.name in pending.trained:
            return ()
        return [
            Unit(f"{job.name} runs {other.name}", run_task, (shared, number, other), other.number)
            for other in pending.groups
        ]
    return ()
