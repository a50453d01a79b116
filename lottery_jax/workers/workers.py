"""Who does the units of a job: a process alone, a share of them in each of several, or whoever is free.

A unit is a piece of work whose result is durable when it is finished: a chunk of weights, a group of runs of one sweep
program, the rows of an experiment. Units have names, and numbers that know nothing of processes, so that a job that was
begun by some processes is finished by any others.

A share of a job for processes that never meet: they see one folder, and a last command joins what is there.
"""

import dataclasses
import datetime
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from lottery_jax.errors import ClusterError, InputError

T = TypeVar("T")


class Pending(Exception):
    """What is needed is being made by another process, or left to one; `units` are its names."""

    def __init__(self, units: Collection[str]) -> None:
        super().__init__(", ".join(units))
        self.units = tuple(units)


@dataclasses.dataclass(frozen=True)
class Standing:
    """How far a job is: units in all and done, of these how many were there before, units that are under way, and the
    hosts of the processes that are alive, one for each."""

    total: int
    done: int
    found: int
    running: int
    hosts: tuple[str, ...]

    def words(self, seconds: float) -> str:
        """All of it on a line, `seconds` after the job began.

        >>> Standing(40, 12, 2, 4, ("n1", "n1", "n2")).words(100.0)
        '12 of 40 done, 4 running, 28 left, 0:04:40 left; 3 processes on n1, n2'
        """
        left, worked = self.total - self.done, self.done - self.found
        clock = f", {datetime.timedelta(seconds=round(left * seconds / worked))} left" if worked and left else ""
        are, hosts = "es" if len(self.hosts) > 1 else "", ", ".join(dict.fromkeys(self.hosts))
        far = f"{self.done:,} of {self.total:,} done, {self.running:,} running, {left:,} left{clock}"
        return f"{far}; {len(self.hosts):,} process{are} on {hosts}"


class Workers:
    """A process alone: every unit is its own. What others there may be is said by what is derived from this.

    process, processes: its number, from 0, and how many there are. leads: whether it writes what all units come to.
    opens: whether it makes the job's folder. meets: whether processes tell each other what they do.

    >>> with SERIAL as workers:
    ...     list(workers.units("chunks", 3))
    [0, 1, 2]
    """

    process: int = 0
    processes: int = 1
    leads: bool = True
    opens: bool = True
    meets: bool = False

    def begin(self, facts: Mapping[str, str], folder: Path, says: str = "") -> str:
        """See that all processes mean the same job, by facts with their names, in a folder that all of them see.

        says: what process 0 has to say; all get it. Where it is none yet, the folder is process 0's to make before.
        Raises `InputError`, which names the host that means another job, or does not see the folder.
        """
        return says

    def own(self, count: int) -> Iterable[int]:
        """Numbers of the units of a list that may come to this process."""
        return range(count)

    def take(self, unit: str, number: int | None = None) -> bool:
        """Whether this process does a unit now; once it is true, no other living process is told so.

        number: of the unit; None for what every share needs, and makes for itself.
        """
        return True

    def units(self, name: str, count: int) -> Iterator[int | None]:
        """Numbers of the units of a list that this process has to do, until there is nothing left for it.

        None is a pause: all are taken, and not all of them are done. A unit's name is `unit_of(name, number)`.
        """
        for number in range(count):
            if self.take(unit_of(name, number), number):
                yield number

    def expect(self, name: str, count: int) -> None:
        """Say that a list of units is what the job consists of, for who asks how far it is; `units` says so itself."""

    def done(self, unit: str, note: str = "") -> None:
        """Tell the others that a unit's result is there; they are told the note, too."""

    def found(self, unit: str) -> None:
        """Tell the others that a unit's result was there before; not where its maker is about to tell them of it."""
        if self.take(unit):
            self.done(unit, FOUND)

    def release(self, unit: str) -> None:
        """Give a unit back that was taken and cannot be done yet."""

    def note(self, unit: str) -> str | None:
        """What was told of a unit that is done; None where it is not known to be."""
        return None

    def notes(self, name: str) -> dict[int, str]:
        """What was told of the units of a list that are known to be done, by number."""
        return {}

    def hear(self, unit: str) -> str:
        """Wait until a unit is done that process 0 does alone; what is told of it."""
        raise NotImplementedError("a process alone does everything itself")

    def ready(self, units: Collection[str]) -> bool:
        """Whether one of some units is done, or can be taken."""
        return True

    def wait(self, units: Collection[str]) -> None:
        """Go on when `ready`. Nobody else would do them for a process alone."""

    def finish(self, work: Callable[[], T]) -> T:
        """What a piece of work comes to, also where others do parts of it: called again whenever something is done.

        Raises `Pending` where processes do not meet, and parts are left to others.
        """
        return work()

    def gather(self, name: str) -> None:
        """Say that this process is here; the one that leads waits until all that are alive have said so."""

    def standing(self) -> "Standing | None":
        """How far all processes are; None where that is asked of nobody."""
        return None

    def abandon(self) -> None:
        """Say, before this process ends at once, that it is not to be waited for."""

    def fail(self, sentence: str) -> None:
        """Tell the others that this process cannot go on, and why; the job ends."""

    def leave(self) -> None:
        """Part in peace: all is done, and what it comes to is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.leave()
        elif isinstance(error, Exception) and not isinstance(error, ClusterError):
            self.fail(str(error))


SERIAL = Workers()

FOUND = "found"
"""The note of a unit whose result was there before."""


def unit_of(name: str, number: int) -> str:
    """The name of a unit of a list.

    >>> unit_of("chunks", 3)
    'chunks/3'
    """
    return f"{name}/{number}"


class Share(Workers):
    """The units number, number + of, ... of a job, counted from 1; `of` shares are the whole.

    >>> list(Share.read("3/8").units("chunks", 20))
    [2, 10, 18]
    """

    leads = False

    def __init__(self, number: int, of: int) -> None:
        if not 1 <= number <= of:
            raise InputError(f"there is no share {number}/{of}; count from 1/{max(of, 1)}")
        self.process, self.processes = number - 1, of

    @classmethod
    def read(cls, words: str) -> "Share":
        """From K/N; raises `InputError`."""
        if not re.fullmatch(r"[0-9]{1,9}/[0-9]{1,9}", words):
            raise InputError(f"a share is K/N, as in 3/8 for the third of eight, not {words!r}")
        return cls(*map(int, words.split("/")))

    def take(self, unit: str, number: int | None = None) -> bool:
        return number is None or number % self.processes == self.process

    def own(self, count: int) -> Iterable[int]:
        return range(self.process, count, self.processes)

    def __str__(self) -> str:
        return f"{self.process + 1}/{self.processes}"
