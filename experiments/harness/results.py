"""The rows of an experiment: found unit after unit, each durable when it is finished, by this process or by many.

A unit's rows are a file beside the output, in the folder OUT.units, until all are there; then they are put together in
the order of the units, and the folder goes. So an experiment that was stopped goes on where it was.
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
from lottery_jax.comparison.recording import run_units
from lottery_jax.errors import InputError
from lottery_jax.io.files import check_writable, wait_for_file, write_atomically
from lottery_jax.io.locks import folder_lock
from lottery_jax.progress import log
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.workers.workers import SERIAL, Pending, Workers, unit_of

_T = TypeVar("_T")
_Row = dict[str, Any]


class Results(list[_Row]):
    """Rows of JSON, with the device and versions that made them.

    path: the output. crew: who finds them. facts: by name, what they depend on beside the versions. shown: told how far
    they are. join_only: refuse to find any.
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
        self._crew, self._facts, self._shown = (
            workers,
            environment.version_facts() | dict(facts or {}),
            shown or ProgressReporter(),
        )
        self._made_by = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:16]
        self._join_only, self._opened = join_only, False
        self._unit: list[_Row] | None = None
        self._checkpoints: Checkpoints | None = None
        self._stack = contextlib.ExitStack()

    def each(self, name: str, tasks: Sequence[_T], do: Callable[[_T], None], *, shares: bool = False) -> None:
        """Call `do(task)` for each task that is not finished, and `keep` what it finds; the tasks are units of work.

        Afterwards the rows of all tasks are here, in their order, whoever found them. shares: whether several processes
        do a task together, by the trainings of its learners alone, which are given `checkpoints`. Raises `Pending`
        where tasks are left to shares that this process does not meet.
        """
        self._open()
        self._crew.expect(name, len(tasks))
        numbers = range(len(tasks))

        def contribute(number: int) -> None:
            self._shown.whole(sum(self._file(name, each).exists() for each in numbers), len(tasks))
            self._contribute(name, number, tasks[number], do, shares)

        if self._join_only and (missing := [number for number in numbers if self._read(name, number) is None]):
            raise InputError(
                f"{len(missing)} of {len(tasks)} {name} are missing (number {', '.join(map(str, missing[:8]))}, from"
                " 0); start again the shares that did not come to their end, or leave --join-only out to do them here"
            )
        turned = self._crew.process * len(tasks) // self._crew.processes if shares else 0
        if left := run_units([*numbers[turned:], *numbers[:turned]], contribute, self._crew):
            raise Pending([unit_of(name, number) for number in left])
        for number in numbers:
            self += self._rows(name, number, tasks[number], do)

    def keep(self, **row: Any) -> None:
        """One more row."""
        made = {**row, "device": environment.device(), "versions": environment.versions()}
        (self if self._unit is None else self._unit).append(made)

    @property
    def checkpoints(self) -> Checkpoints:
        """Where the trainings of a task's learners are kept while they are unfinished."""
        assert self._checkpoints is not None, "asked for outside of a task"
        return self._checkpoints

    def write(self) -> None:
        """Write the output, and forget what was kept for it; by the process that leads."""
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self).encode())
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of the folder of units."""
        self._stack.close()

    def finished(self) -> int:
        """How many units are finished and not put together yet."""
        return finished_units(self.folder)

    def _open(self) -> None:
        """The folder, held, and seen by all; at the first task, when the settings are known to be good."""
        if self._opened:
            return
        self._opened = True
        if self._crew.opens:
            self.folder.mkdir(parents=True, exist_ok=True)
            what = "the folder of finished units"
            self._stack.enter_context(folder_lock(self.folder, what, shared=not self._crew.leads))
        self._crew.begin(self._facts, self.folder)

    def _contribute(self, name: str, number: int, task: _T, do: Callable[[_T], None], shares: bool) -> None:
        unit = unit_of(name, number)
        if self._crew.note(unit) is not None:
            return
        if self._read(name, number) is not None:
            self._crew.found(unit)
            return
        if not shares and not self._crew.take(unit, number):
            raise Pending([unit])
        self._made(name, number, task, do, self._crew if shares else SERIAL)
        self._crew.done(unit)

    def _made(self, name: str, number: int, task: _T, do: Callable[[_T], None], workers: Workers) -> list[_Row]:
        """The rows of a unit, found now and kept; crew: who does it together."""
        unit, rows = unit_of(name, number), list[_Row]()
        self._unit, self._checkpoints = rows, Checkpoints(self.folder / "trainings" / f"{number}", workers, number)
        try:
            do(task)
            if not workers.take(unit):
                raise Pending([unit])
        finally:
            self._unit = self._checkpoints = None
        content = json.dumps({"made_by": self._made_by, "unit": unit, "rows": rows})
        write_atomically(self._file(name, number), content.encode())
        if workers is SERIAL:
            shutil.rmtree(self.folder / "trainings" / f"{number}", ignore_errors=True)
        return rows

    def _rows(self, name: str, number: int, task: _T, do: Callable[[_T], None]) -> list[_Row]:
        """The rows of a unit that is done, by this process or another one; made anew where its file is damaged."""
        rows = self._read(name, number, comes=True)
        return self._made(name, number, task, do, SERIAL) if rows is None else rows

    def _file(self, name: str, number: int) -> Path:
        return self.folder / f"{name.replace(' ', '-')}-{number:04d}.json"

    def _read(self, name: str, number: int, *, comes: bool = False) -> list[_Row] | None:
        path = self._file(name, number)
        if comes:
            wait_for_file(path)
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_bytes())
            made_by, unit, rows = found["made_by"], found["unit"], list(found["rows"])
        except (ValueError, KeyError, TypeError):
            log.warning("the file %r is damaged, and is made anew", str(path))
            return None
        if made_by != self._made_by or unit != unit_of(name, number):
            raise InputError(
                f"{str(path)!r} belongs to a run with other settings, versions or program; finish that one with its own"
                f" command, remove {str(self.folder)!r}, or choose another --out"
            )
        return rows
