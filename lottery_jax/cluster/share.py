"""A share of a job for processes that never meet: they see one folder, and a last command joins what is there."""

import re
from collections.abc import Iterable

from lottery_jax.cluster.crew import Crew
from lottery_jax.errors import InputError


class Share(Crew):
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
