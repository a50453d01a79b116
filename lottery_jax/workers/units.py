"""Units of work with durable results: run by this process, or as a share K/N of processes that never communicate.

A unit is a plain function with plain data. It may run twice without harm, and it returns the units that it needs first.
Names and numbers of units do not depend on the processes, so that others can resume the job.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from lottery_jax.errors import InputError
from lottery_jax.io.files import VISIBILITY_TIMEOUT
from lottery_jax.progress import Progress, no_progress

PAUSE = 0.2
"""Seconds between two calls of a unit whose needed results are finished, but not visible yet."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """The call ``function(*arguments)``, which writes a result unless it exists.

    Args:
        name: Name of the unit, equal in all processes of the job.
        function: A function of a module. It returns the unfinished units whose results it needs, or None if its own
            result exists.
        arguments: Plain data, which is sent to the worker.
        number: Share K/N runs the units with number % N == K - 1. None: every share that needs the unit runs it.
    """

    name: str
    function: Callable[..., "Iterable[Unit] | None"]
    arguments: tuple[Any, ...] = ()
    number: int | None = None

    def __call__(self) -> tuple["Unit", ...]:
        return tuple(self.function(*self.arguments) or ())


@dataclasses.dataclass(frozen=True)
class Share:
    """Share `number` of `of`, counted from 1: it runs the units `number` - 1, `number` - 1 + `of`, ...

    >>> list(Share.read("3/8").own(20))
    [2, 10, 18]
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            last = max(self.of, 1)
            raise InputError(f"share must be from 1/{last} to {last}/{last}, got {self.number}/{self.of}")

    @classmethod
    def read(cls, words: str) -> "Share":
        """Parse K/N; raises ``InputError``."""
        if not re.fullmatch(r"[0-9]{1,9}/[0-9]{1,9}", words):
            raise InputError(f"share must be K/N, as in 3/8 for the third of eight, got {words!r}")
        return cls(*map(int, words.split("/")))

    def own(self, count: int) -> range:
        """The numbers of its units of `count`."""
        return range(self.number - 1, count, self.of)

    def has(self, unit: Unit) -> bool:
        """Whether it runs a unit."""
        return unit.number is None or unit.number % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def run_units(
    units: Sequence[Unit], *, executor: Any = None, share: Share | None = None, progress: Progress = no_progress
) -> list[Unit]:
    """Run units, and those that they need before them.

    Args:
        units: The units of a job, with different names.
        executor: An object with the ``submit`` of ``concurrent.futures.Executor``, or a client of Dask; its workers run
            the units. Default: this process.
        share: The share of the units that this process runs.
        progress: Called with (finished units, known units).

    Returns:
        The units that are left to other shares.

    Raises:
        InputError: A unit was refused; the other units are cancelled.
        ClusterError: The executor, or a worker with the unit that it ran, was lost again and again.

    >>> shelf = []
    >>> flour = Unit("flour", lambda: shelf.append("flour"))
    >>> cake = Unit("cake", lambda: shelf.append("cake") if "flour" in shelf else [flour])
    >>> run_units([cake]), shelf
    ([], ['flour', 'cake'])
    """
    if executor is not None:
        from lottery_jax.workers.executors import run_on_executor

        run_on_executor(executor, units, progress=progress)
        return []
    finished, left = set[str](), list(units)
    # Other shares may have finished what the first attempt lacked.
    for _ in range(1 if share is None else 2):
        waiting, left = left, []
        for done, unit in enumerate(waiting):
            progress(len(units) - len(waiting) + done - len(left), len(units))
            if not _run_here(unit, share, finished):
                left.append(unit)
    progress(len(units) - len(left), len(units))
    return left


def _run_here(unit: Unit, share: Share | None, finished: set[str]) -> bool:
    """Run a unit and what it needs; False if it is left to another share. `finished` has the names of all others."""
    if unit.name in finished:
        return True
    if share is not None and not share.has(unit):
        return False
    deadline = time.monotonic() + VISIBILITY_TIMEOUT
    while needed := unit():
        new = [each for each in needed if each.name not in finished]
        if not new:
            if time.monotonic() > deadline:
                refuse_invisible(unit)
            time.sleep(PAUSE)
        # A unit without a number is run with all that it needs, because another share may not finish it in time.
        done = [_run_here(each, None if each.number is None else share, finished) for each in new]
        if not all(done):
            return False
    finished.add(unit.name)
    return True


def refuse_invisible(unit: Unit) -> NoReturn:
    """Refuse a folder in which needed results stay invisible; raises ``InputError``."""
    raise InputError(
        f"{unit.name} does not see the results of other units; name a folder with --out that all hosts see"
    )
