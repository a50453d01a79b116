"""Telling how far long work is: one kind of callback everywhere, and one place for notes.

The time that work takes, and how much of it was compilation: a user who runs it again waits for the rest only.
"""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import jax

log = logging.getLogger("lottery_jax")
"""What a user should know while work goes on; the command line prints it on stderr."""

Progress = Callable[[int, int], None]
"""Called with (done, total) each time some is done; `done` never falls, and ends at `total`."""

Stages = Callable[[str], Progress]
"""Called with the name of a part of the work that begins now; gives what is told how far that part is."""


def no_progress(done: int, total: int) -> None:
    """Nobody looks."""


def no_stages(name: str) -> Progress:
    """Nobody looks at any part."""
    return no_progress


_COMPILATION = "/jax/core/compile/"

_running: set["Stopwatch"] = set()


class Stopwatch:
    """Times a block.

    seconds: of the block. compilation: seconds of it in which something was traced, compiled, or read from the cache of
    compiled programs, by JAX or Numba.

    >>> with Stopwatch() as watch:
    ...     _ = jax.jit(lambda x: x + 1)(1.0)
    >>> 0 < watch.compilation <= watch.seconds
    True
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._spans: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        global _listening
        if not _listening:
            jax.monitoring.register_event_duration_secs_listener(_heard)
            _listening = True
        _running.add(self)
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._start
        _running.discard(self)

    def add(self, start: float, stop: float) -> None:
        """Something was compiled from `start` to `stop`, as `time.perf_counter` has them."""
        self._spans.append((max(start, self._start), stop))

    @property
    def compilation(self) -> float:
        # One compilation is part of another, and threads compile at the same time: what counts is that time passed.
        total, end = 0.0, 0.0
        for start, stop in sorted(self._spans):
            total += max(stop - max(start, end), 0.0)
            end = max(end, stop)
        return total

    @property
    def work(self) -> float:
        """Seconds without compilation."""
        return max(self.seconds - self.compilation, 0.0)


_listening = False


def compiled(seconds: float) -> None:
    """Tell all watches that run that the last `seconds` were compilation."""
    now = time.perf_counter()
    for watch in tuple(_running):
        watch.add(now - seconds, now)


def _heard(event: str, duration_secs: float, **_: Any) -> None:
    if event.startswith(_COMPILATION):
        compiled(duration_secs)
