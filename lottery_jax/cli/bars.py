"""Progress on a terminal: what the whole work is at, and the part at hand with its speed and the time left."""

import contextlib
import time
from collections.abc import Iterator


class Bars:
    """Two bars; `whole` and `part` are told (done, total), `begin` names the part that comes now."""

    def __init__(self, shown, whole, part) -> None:
        self._shown, self._whole, self._part = shown, whole, part
        self._start, self._first = time.perf_counter(), 0

    def whole(self, done: int, total: int, now: str) -> None:
        """The whole work."""
        self._shown.update(self._whole, completed=done, total=total, description=now, visible=True)
        self.begin("")

    def begin(self, name: str) -> None:
        """A part of the work begins."""
        self._shown.reset(self._part, total=None, description=name, speed="", visible=bool(name))
        self._first = -1

    def part(self, done: int, total: int) -> None:
        """The part at hand; what is done when it is told for the first time does not count in the speed."""
        if self._first < 0:
            self._start, self._first = time.perf_counter(), done
        words = speed(done - self._first, total - done, time.perf_counter() - self._start)
        self._shown.update(self._part, completed=done, total=total, speed=words, visible=True)


@contextlib.contextmanager
def bars(first: str) -> Iterator[Bars]:
    """Bars on stderr, gone when the work is done; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        whole = shown.add_task(first, total=None, speed="", visible=False)
        part = shown.add_task(first, total=None, speed="")
        yield Bars(shown, whole, part)


def speed(worked: int, left: int, seconds: float) -> str:
    """Steps per second and the time left, in words.

    >>> speed(1_000_000, 3_000_000, 2.0)
    '500,000/s, 0:00:06 left'
    >>> speed(0, 10, 0.0)
    ''
    """
    if worked <= 0 or seconds <= 0:
        return ""
    remaining = round(left * seconds / worked)
    hours, minutes = divmod(remaining // 60, 60)
    return f"{worked / seconds:,.0f}/s, {hours}:{minutes:02d}:{remaining % 60:02d} left"
