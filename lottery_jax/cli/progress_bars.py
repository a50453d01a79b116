"""Progress on stderr: bars on a terminal, a line now and then elsewhere, nothing where it is asked to be quiet.

Of processes that share the work only the one that leads speaks, a line a minute about all of them.
"""

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from lottery_jax.cli import messages as interrupt
from lottery_jax.cli.messages import print_message
from lottery_jax.errors import ClusterError
from lottery_jax.io import locks as lock
from lottery_jax.progress import Progress, log
from lottery_jax.workers.workers import SERIAL, Workers

_EVERY, _MINUTE = 10.0, 60.0  # seconds between two lines, of a process alone and of many; the folder is told as often


@dataclasses.dataclass
class Part:
    """A part of the work. first: what was done when it was told for the first time, which is no part of the speed."""

    name: str
    done: int = 0
    total: int | None = None
    first: int = 0
    start: float = 0.0

    def tell(self, done: int, total: int) -> None:
        """How far it is; a bar never goes back."""
        if self.total is None:
            self.first, self.start = done, time.perf_counter()
        self.done, self.total = max(self.done, done), total

    def speed(self) -> str:
        """Its speed and the time left."""
        worked, left = self.done - self.first, (self.total or 0) - self.done
        return speed(worked, left, time.perf_counter() - self.start) if self.total is not None else ""


class ProgressReporter:
    """What is shown of the work: `whole` of it, and the `part` at hand; of a crew, how far all are."""

    def __init__(self, *, aloud: bool = False) -> None:
        self.done, self.total, self.left = 0, 0, ""
        self.current = Part("starting")
        self.aloud, self.every = aloud, _EVERY
        self._crew, self._start = SERIAL, time.perf_counter()

    @property
    def tells(self) -> bool:
        """Whether it is for this process to say how far the work is."""
        return self._crew.leads

    def follow(self, workers: Workers) -> None:
        """From here on it is the work of a crew, of which this process says something if it leads."""
        self._crew, self._start, self.every = workers, time.perf_counter(), _MINUTE
        if not workers.leads:
            log.setLevel(logging.ERROR)
        elif self.aloud:
            print_message(f"{workers.processes} processes share the work")

    def whole(self, done: int, total: int, seconds_left: float | None = None) -> None:
        """How many of how many parts are done, and the time left where it is known."""
        self.done, self.total = done, total
        self.left = "" if seconds_left is None else f"{clock(seconds_left)} left"
        self.refresh()

    def part(self, name: str) -> Progress:
        """A part begins; gives what is told how far it is."""
        part = self.current = Part(name)
        self.refresh()

        def tell(done: int, total: int) -> None:
            part.tell(done, total)
            self.refresh()

        return tell

    def refresh(self) -> None:
        """Something was told."""

    def line(self) -> str:
        """All of it on one line.

        >>> shown = ProgressReporter()
        >>> shown.whole(1, 4)
        >>> shown.part("pensia, seed 0: finding")(2000, 8000)
        >>> shown.line()
        '1 of 4 done; pensia, seed 0: finding, 2,000 of 8,000'
        """
        standing = self._crew.standing()
        if standing is not None and standing.total:
            return standing.words(time.perf_counter() - self._start)
        part = self.current
        whole = f"{self.done} of {self.total} done" + (f", {self.left}" if self.left else "") if self.total else ""
        far = "" if part.total is None else f"{part.done:,} of {part.total:,}"
        return "; ".join(filter(None, (whole, ", ".join(filter(None, (part.name, far, part.speed()))))))


class _Terminal(ProgressReporter):
    """Two bars, gone when the work is done."""

    def __init__(self, display: Any) -> None:
        super().__init__()
        self.every = _MINUTE
        self._display = display
        self._rows = [display.add_task("", total=None, words="", visible=False) for _ in range(2)]

    def refresh(self) -> None:
        part, (above, below) = self.current, self._rows
        if self.total:
            update = {"completed": self.done, "total": self.total, "words": self.left, "visible": True}
            self._display.update(above, description="comparing", **update)
        if part.total is None:
            self._display.reset(below, total=None, description=part.name, words="", visible=True)
        else:
            update = {"completed": part.done, "total": part.total, "words": part.speed(), "visible": True}
            self._display.update(below, description=part.name, **update)


@contextlib.contextmanager
def progress_bars(*, quiet: bool = False, shared: bool = False) -> Iterator[ProgressReporter]:
    """What is told here is shown on stderr while the block runs; what the package notes is printed there, too.

    shared: with other processes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_notes(logging.ERROR if quiet else logging.INFO))
        if console.is_terminal and not (quiet or shared):
            text, words = TextColumn("{task.description}"), TextColumn("{task.fields[words]}")
            display = Progress(text, BarColumn(), MofNCompleteColumn(), words, console=console, transient=True)
            stack.enter_context(display)
            stack.enter_context(interrupt.closing(display.stop))
            shown: ProgressReporter = _Terminal(display)
        else:
            shown = ProgressReporter(aloud=not quiet)
        stack.enter_context(_lines(shown))
        yield shown


@contextlib.contextmanager
def _lines(shown: ProgressReporter) -> Iterator[None]:
    """Says where the work is every few seconds, also while nothing is told, as in a long compilation: on stderr if it
    shall be aloud, and to `lottery-jax status`."""
    over = threading.Event()

    def tell_lines() -> None:
        said = time.perf_counter()
        while not over.wait(_EVERY):
            if not shown.tells:
                continue
            with contextlib.suppress(ClusterError):
                line, now = shown.line(), time.perf_counter()
                lock.write_lock_status(line)
                if shown.aloud and now - said >= shown.every:
                    said = now
                    print_message(line)

    thread = threading.Thread(target=tell_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Printer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_message(record.getMessage())


@contextlib.contextmanager
def _notes(level: int) -> Iterator[None]:
    """Notes of the package from this level on are printed as sentences."""
    printer, before = _Printer(), (log.level, log.propagate)
    log.addHandler(printer)
    log.setLevel(level)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(printer)
        log.level, log.propagate = before


def speed(worked: int, left: int, seconds: float) -> str:
    """Steps per second, where they are many, and the time left, in words.

    >>> speed(1_000_000, 3_000_000, 2.0), speed(3, 12, 6.0)
    ('500,000/s, 0:00:06 left', '0:00:24 left')
    >>> speed(0, 10, 0.0)
    ''
    """
    if worked <= 0 or seconds <= 0:
        return ""
    rate = worked / seconds
    return (f"{rate:,.0f}/s, " if rate >= 10 else "") + f"{clock(left / rate)} left"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725.4)
    '1:02:05'
    """
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours}:{minutes:02d}:{round(seconds) % 60:02d}"
