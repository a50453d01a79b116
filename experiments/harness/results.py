"""The rows of an experiment, found unit by unit by one process or by many; a finished unit is durable.

The rows of a unit are a file in the folder OUT.units until all units are finished. Then they are joined in the order of
the units, and the folder is removed. A stopped experiment resumes.
"""

import contextlib
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
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.workers.workers import SERIAL, Pending, Workers, run_units, unit_of

_Task = TypeVar("_Task")
_Row = dict[str, Any]


class Results(list[_Row]):
    """Rows of JSON with the device and versions that computed them.

    Args:
        path: The output file.
        workers: Processes that share the units.
        facts: Settings that the rows depend on, by name; the versions are added.
        shown: Reporter of the progress.
        join_only: Join finished units without computing any.
    """

    def __init__(
        self,
        path: Path,
        *,
        workers: Workers = SERIAL,
        facts: Mapping[str, str] | None = None,
        shown: ProgressReporter | None = None,
        join_only: bool = False,
    ) -> None:
        if workers.opens:
            check_writable(path.parent)
        self.path, self.folder = path, path.with_name(f"{path.name}{UNITS}")
        self._workers, self._shown, self._join_only = workers, shown or ProgressReporter(), join_only
        self._facts = environment.version_facts() | dict(facts or {})
        self._made_by = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:16]
        self._unit: list[_Row] | None = None
        self._checkpoints: Checkpoints | None = None
        self._stack: contextlib.ExitStack | None = None

    def each(self, name: str, tasks: Sequence[_Task], run: Callable[[_Task], None], *, shares: bool = False) -> None:
        """Run each unfinished task, then append the rows of all tasks in their order.

        Args:
            name: What the tasks are, in the plural.
            tasks: The units of work.
            run: Runs a task and calls ``keep`` for each of its rows.
            shares: Whether several processes run a task together, through learners that get ``checkpoints``.

        Raises:
            Pending: Tasks are left to other shares.
            InputError: ``join_only``, and tasks are missing.
        """
        self._open()
        self._workers.expect(name, len(tasks))
        numbers = range(len(tasks))

        def contribute(number: int) -> None:
            self._shown.whole(sum(self._file(name, each).exists() for each in numbers), len(tasks))
            unit = unit_of(name, number)
            if self._workers.note(unit) is not None:
                return
            if self._read(name, number) is not None:
                self._workers.found(unit)
                return
            if not shares and not self._workers.take(unit, number):
                raise Pending([unit])
            self._run(name, number, tasks[number], run, self._workers if shares else SERIAL)
            self._workers.done(unit)

        if self._join_only and (missing := [number for number in numbers if self._read(name, number) is None]):
            raise InputError(
                f"{len(missing)} of {len(tasks)} {name} are missing (number {', '.join(map(str, missing[:8]))}, from"
                " 0). Start the unfinished shares again, or omit --join-only to compute them here."
            )
        first = self._workers.process * len(tasks) // self._workers.processes if shares else 0
        if left := run_units([*numbers[first:], *numbers[:first]], contribute, self._workers):
            raise Pending([unit_of(name, number) for number in left])
        for number in numbers:
            wait_for_file(self._file(name, number))
            rows = self._read(name, number)
            self += self._run(name, number, tasks[number], run, SERIAL) if rows is None else rows  # damaged

    def keep(self, **row: Any) -> None:
        """Append a row."""
        row |= {"device": environment.device(), "versions": environment.versions()}
        (self if self._unit is None else self._unit).append(row)

    @property
    def checkpoints(self) -> Checkpoints:
        """The folder of the unfinished trainings of the current task."""
        assert self._checkpoints is not None, "outside of a task"
        return self._checkpoints

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
        self._stack = contextlib.ExitStack()
        if self._workers.opens:
            self.folder.mkdir(parents=True, exist_ok=True)
            what = "the folder of finished units"
            self._stack.enter_context(folder_lock(self.folder, what, shared=not self._workers.leads))
        self._workers.begin(self._facts, self.folder)

    def _run(self, name: str, number: int, task: _Task, run: Callable[[_Task], None], workers: Workers) -> list[_Row]:
        """Run a task with the workers that share its trainings, and write its rows."""
        unit, rows, trainings = unit_of(name, number), list[_Row](), self.folder / "trainings" / f"{number}"
        self._unit, self._checkpoints = rows, Checkpoints(trainings, workers, number)
        try:
            run(task)
            if not workers.take(unit):
                raise Pending([unit])
        finally:
            self._unit = self._checkpoints = None
        content = json.dumps({"made_by": self._made_by, "unit": unit, "rows": rows})
        write_atomically(self._file(name, number), content.encode())
        if workers is SERIAL:
            shutil.rmtree(trainings, ignore_errors=True)
        return rows

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
        if made_by != self._made_by or unit != unit_of(name, number):
            raise InputError(
                f"{str(path)!r} belongs to a run with other settings, versions or program. Finish that run with its own"
                f" command, remove {str(self.folder)!r}, or choose another --out."
            )
        return rows
