"""Who does the units of a job: one process, a fixed share of the units each (`Share`), or a cluster of processes.

A unit is a piece of work with a durable result: a chunk of weights, a group of training runs, the rows of an
experiment. Names and numbers of units do not depend on the processes, so that others can resume the job.
"""

import dataclasses
import datetime
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from lottery_jax.errors import ClusterError, InputError

T = TypeVar("T")


class Pending(Exception):
    """A needed result is made by another process; `units` are the names of its units."""

    def __init__(self, units: Collection[str]) -> None:
        super().__init__(", ".join(units))
        self.units = tuple(units)


@dataclasses.dataclass(frozen=True)
class Standing:
    """Progress of a job: all units, finished ones, those found finished, running ones, and a host per live process."""

    total: int
    done: int
    found: int
    running: int
    hosts: tuple[str, ...]

    def words(self, seconds: float) -> str:
        """The progress on one line, `seconds` after the job began.

        >>> Standing(40, 12, 2, 4, ("n1", "n1", "n2")).words(100.0)
        '12 of 40 done, 4 running, 28 left, 0:04:40 left; 3 processes on n1, n2'
        """
        left, worked = self.total - self.done, self.done - self.found
        clock = f", {datetime.timedelta(seconds=round(left * seconds / worked))} left" if worked and left else ""
        are, hosts = "es" if len(self.hosts) > 1 else "", ", ".join(dict.fromkeys(self.hosts))
        far = f"{self.done:,} of {self.total:,} done, {self.running:,} running, {left:,} left{clock}"
        return f"{far}; {len(self.hosts):,} process{are} on {hosts}"


class Workers:
    """One process, which does every unit; base class of `Share` and `Cluster`.

    >>> with SERIAL as workers:
    ...     list(workers.units("chunks", 3))
    [0, 1, 2]
    """

    process: int = 0
    processes: int = 1
    leads: bool = True
    """Whether this process writes the result of all units."""
    opens: bool = True
    """Whether this process makes the folder of the job."""
    meets: bool = False
    """Whether the processes communicate."""

    def begin(self, facts: Mapping[str, str], folder: Path, says: str = "") -> str:
        """Check that all processes run the same job, in a folder of process 0 that all of them see.

        Args:
            facts: Facts of the job by name, equal in all processes.
            folder: Folder of the job, made by process 0.
            says: Message of process 0 to all, which is returned.
        """
        return says

    def own(self, count: int) -> Iterable[int]:
        """Numbers of the units of a list that this process may do."""
        return range(count)

    def take(self, unit: str, number: int | None = None) -> bool:
        """Claim a unit; True if this process does it. `number` is None for a unit that every share does for itself."""
        return True

    def units(self, name: str, count: int) -> Iterator[int | None]:
        """Numbers of the units of a list that this process does; None while others do the rest.

        The name of a unit is `unit_of(name, number)`.
        """
        for number in range(count):
            if self.take(unit_of(name, number), number):
                yield number

    def expect(self, name: str, count: int) -> None:
        """Count a list of units in the progress of the job; `units` does so itself."""

    def done(self, unit: str, note: str = "") -> None:
        """Tell the others that a unit is finished, with a note."""

    def found(self, unit: str) -> None:
        """Tell the others that a unit was found finished, unless its maker is about to."""
        if self.take(unit):
            self.done(unit, FOUND)

    def release(self, unit: str) -> None:
        """Release a claimed unit that cannot be done yet."""

    def note(self, unit: str) -> str | None:
        """The note of a finished unit; None if it is not known to be finished."""
        return None

    def notes(self, name: str) -> dict[int, str]:
        """The notes of the finished units of a list, by number."""
        return {}

    def hear(self, unit: str) -> str:
        """Wait for a unit of process 0; returns its note."""
        raise NotImplementedError("a single process waits for no other")

    def ready(self, units: Collection[str]) -> bool:
        """Whether one of these units is finished, or can be claimed."""
        return True

    def wait(self, units: Collection[str]) -> None:
        """Wait until `ready`; a single process never waits."""

    def finish(self, work: Callable[[], T]) -> T:
        """The result of `work`, which is called again after each unit of others that it needs.

        It raises `Pending` if the processes do not communicate.
        """
        return work()

    def gather(self, name: str) -> None:
        """A barrier for the process that leads: it waits until all live processes have called this."""

    def standing(self) -> "Standing | None":
        """Progress of all processes; None for a single process."""
        return None

    def abandon(self) -> None:
        """Tell the others, before this process ends at once, not to wait for it."""

    def fail(self, sentence: str) -> None:
        """Tell the others that this process failed, and why; the job ends."""

    def leave(self) -> None:
        """Leave after the result is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.leave()
        elif isinstance(error, Exception) and not isinstance(error, ClusterError):
            self.fail(str(error))


SERIAL = Workers()

FOUND = "found"
"""The note of a unit that was found finished."""


def unit_of(name: str, number: int) -> str:
    """The name of a unit of a list.

    >>> unit_of("chunks", 3)
    'chunks/3'
    """
    return f"{name}/{number}"


class Share(Workers):
    """Share `number` of `of`, from 1: the units number, number + of, ...; the processes do not communicate.

    >>> list(Share.read("3/8").units("chunks", 20))
    [2, 10, 18]
    """

    leads = False

    def __init__(self, number: int, of: int) -> None:
        if not 1 <= number <= of:
            raise InputError(f"share must be from 1/{max(of, 1)} to {max(of, 1)}/{max(of, 1)}, got {number}/{of}")
        self.process, self.processes = number - 1, of

    @classmethod
    def read(cls, words: str) -> "Share":
        """Parse K/N; raises `InputError`."""
        if not re.fullmatch(r"[0-9]{1,9}/[0-9]{1,9}", words):
            raise InputError(f"share must be K/N, as in 3/8 for the third of eight, got {words!r}")
        return cls(*map(int, words.split("/")))

    def take(self, unit: str, number: int | None = None) -> bool:
        return number is None or number % self.processes == self.process

    def own(self, count: int) -> Iterable[int]:
        return range(self.process, count, self.processes)

    def __str__(self) -> str:
        return f"{self.process + 1}/{self.processes}"


def run_units(units: Sequence[T], contribute: Callable[[T], None], workers: Workers) -> list[T]:
    """Contribute to each unit of work what comes to this process; returns the units that are left to other shares.

    Args:
        units: The units, each of which several processes may share.
        contribute: Raises ``Pending`` if other processes do the rest of a unit.
        workers: Processes that meet continue until all units are done; shares try each unfinished unit once more.

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
