"""Progress on stderr: bars on a terminal, else a line every ten seconds, and nothing with `--quiet`."""

import contextlib
import dataclasses
import datetime
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from lottery_jax.cli.messages import on_interrupt, print_message
from lottery_jax.io import locks
from lottery_jax.progress import Progress, log

_INTERVAL, _LONG_INTERVAL = 10.0, 60.0  # seconds between two lines: of one process; of several, or next to a bar


@dataclasses.dataclass
class Part:
    """A part of the work. first: units that were done before it began; they do not count in the speed."""

    name: str
    done: int = 0
    total: int | None = None
    first: int = 0
    start: float = 0.0

    def update(self, done: int, total: int) -> None:
        """Set the number of finished units, which never decreases."""
        if self.total is None:
            self.first, self.start = done, time.perf_counter()
        self.done, self.total = max(self.done, done), total

    def speed(self) -> str:
        """Speed and remaining time in words."""
        new, left = self.done - self.first, (self.total or 0) - self.done
        return speed(new, left, time.perf_counter() - self.start) if self.total is not None else ""


class ProgressReporter:
    """Progress of the `whole` work and of its current `part`; with several workers, of all of them.

    Args:
        prints: Print a line on stderr every `interval` seconds.
    """

    def __init__(self, *, prints: bool = False) -> None:
        self.done, self.total, self.left = 0, 0, ""
        self.current = Part("starting")
        self.prints, self.interval = prints, _INTERVAL
        self._client: Any = None

    @contextlib.contextmanager
    def following(self, client: Any) -> Iterator[None]:
        """While the block runs, report the number of a Dask client's workers."""
        self._client, self.interval = client, _LONG_INTERVAL
        log.info("%s; dashboard: %s", self._workers(), client.dashboard_link)
        try:
            yield
        finally:
            self._client = None

    def _workers(self) -> str:
        count = len(self._client.scheduler_info(n_workers=-1)["workers"])
        return f"{count} worker{'' if count == 1 else 's'}"

    def whole(self, done: int, total: int, seconds_left: float | None = None) -> None:
        """Set the finished parts, all parts, and the remaining time if it is known."""
        self.done, self.total = done, total
        self.left = "" if seconds_left is None else f"{datetime.timedelta(seconds=round(seconds_left))} left"
        self.refresh()

    def part(self, name: str) -> Progress:
        """Begin a part; returns the callback for its progress."""
        part = self.current = Part(name)
        self.refresh()

        def update(done: int, total: int) -> None:
            part.update(done, total)
            self.refresh()

        return update

    def refresh(self) -> None:
        """Show the new state."""

    def line(self) -> str:
        """The progress on one line.

        >>> reporter = ProgressReporter()
        >>> reporter.whole(1, 4)
        >>> reporter.part("pensia, seed 0: finding")(2000, 8000)
        >>> reporter.line()
        '1 of 4 done; pensia, seed 0: finding, 2,000 of 8,000'
        """
        part = self.current
        whole = f"{self.done} of {self.total} done" + (f", {self.left}" if self.left else "") if self.total else ""
        count = "" if part.total is None else f"{part.done:,} of {part.total:,}"
        workers = "" if self._client is None else self._workers()
        return "; ".join(filter(None, (whole, ", ".join(filter(None, (part.name, count, part.speed()))), workers)))


class _TerminalReporter(ProgressReporter):
    """Two bars, removed at the end."""

    def __init__(self, display: Any) -> None:
        super().__init__()
        self.interval = _LONG_INTERVAL
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
def progress_bars(*, quiet: bool = False) -> Iterator[ProgressReporter]:
    """Show progress and the package's log on stderr while the block runs; errors only if `quiet`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_log_messages(logging.ERROR if quiet else logging.INFO))
        if console.is_terminal and not quiet:
            text, words = TextColumn("{task.description}"), TextColumn("{task.fields[words]}")
            display = Progress(text, BarColumn(), MofNCompleteColumn(), words, console=console, transient=True)
            stack.enter_context(display)
            stack.enter_context(on_interrupt(display.stop))
            reporter: ProgressReporter = _TerminalReporter(display)
        else:
            reporter = ProgressReporter(prints=not quiet)
        stack.enter_context(_progress_lines(reporter))
        yield reporter


@contextlib.contextmanager
def _progress_lines(reporter: ProgressReporter) -> Iterator[None]:
    """Report the progress at intervals, on stderr and for `lottery-jax status`, also during a long compilation."""
    over = threading.Event()

    def report() -> None:
        last = time.perf_counter()
        while not over.wait(_INTERVAL):
            line, now = reporter.line(), time.perf_counter()
            locks.write_lock_status(line)
            if reporter.prints and now - last >= reporter.interval:
                last = now
                print_message(line)

    thread = threading.Thread(target=report, daemon=True)
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
def _log_messages(level: int) -> Iterator[None]:
    """Print the package's log from this level on."""
    printer, before = _Printer(), (log.level, log.propagate)
    log.addHandler(printer)
    log.setLevel(level)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(printer)
        log.level, log.propagate = before


def speed(done: int, left: int, seconds: float) -> str:
    """Units per second, if there are ten or more, and the remaining time, in words.

    >>> speed(1_000_000, 3_000_000, 2.0), speed(3, 12, 6.0)
    ('500,000/s, 0:00:06 left', '0:00:24 left')
    >>> speed(0, 10, 0.0)
    ''
    """
    if done <= 0 or seconds <= 0:
        return ""
    rate = done / seconds
    return (f"{rate:,.0f}/s, " if rate >= 10 else "") + f"{datetime.timedelta(seconds=round(left / rate))} left"
