"""Progress callbacks, the package's logger, and a stopwatch that separates compilation from work."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import jax

log = logging.getLogger("lottery_jax")
"""Messages during long work; the command line prints them on stderr."""

Progress = Callable[[int, int], None]
"""Callback that receives (done, total); ``done`` never decreases and ends at ``total``."""

Stages = Callable[[str], Progress]
"""Callback that receives the name of a stage of the work when it begins, and returns that stage's ``Progress``."""


def no_progress(done: int, total: int) -> None:
    """The default ``Progress``: ignores it."""


def no_stages(name: str) -> Progress:
    """The default ``Stages``: ignores every stage."""
    return no_progress


_COMPILATION = "/jax/core/compile/"

_running: set["Stopwatch"] = set()


class Stopwatch:
    """Times a block.

    ``seconds`` is the whole time; ``compilation`` is the part in which JAX or Numba traced or compiled a program, or
    read it from a cache; ``work`` is the rest.

    >>> with Stopwatch() as watch:
    ...     _ = jax.jit(lambda x: x + 1)(1.0)
    >>> 0 < watch.compilation <= watch.seconds
    True
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._spans: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        _running.add(self)
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._start
        _running.discard(self)

    def add(self, start: float, stop: float) -> None:
        """Record a compilation between two values of ``time.perf_counter``."""
        self._spans.append((max(start, self._start), stop))

    @property
    def compilation(self) -> float:
        # Compilations nest, and threads compile at the same time: the union of the intervals counts.
        total, end = 0.0, 0.0
        for start, stop in sorted(self._spans):
            total += max(stop - max(start, end), 0.0)
            end = max(end, stop)
        return total

    @property
    def work(self) -> float:
        """Seconds outside compilation."""
        return max(self.seconds - self.compilation, 0.0)


def record_compilation(seconds: float) -> None:
    """Record in all running stopwatches that the last ``seconds`` were compilation."""
    now = time.perf_counter()
    for watch in tuple(_running):
        watch.add(now - seconds, now)


def _on_event(event: str, duration_secs: float, **_: Any) -> None:
    if event.startswith(_COMPILATION):
        record_compilation(duration_secs)


jax.monitoring.register_event_duration_secs_listener(_on_event)
