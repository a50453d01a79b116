"""Units of work with durable results, and shares K/N of them for processes that never communicate.

A unit is a plain function with plain data. It may run twice without harm, and it returns the units that it needs first.
Names and numbers of units do not depend on the processes, so that others can resume the job.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from lottery_jax.errors import InputError

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


def refuse_invisible(unit: Unit) -> NoReturn:
    """Refuse a folder in which needed results stay invisible; raises ``InputError``."""
    raise InputError(
        f"{unit.name} does not see the results of other units; name a folder with --out that all hosts see"
    )
