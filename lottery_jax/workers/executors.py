"""Units run by this process, or by any ``concurrent.futures``-like executor, a client of Dask included.

An executor schedules single calls. This process knows which units depend on which, submits a unit again when its
needed results exist, and passes on what the workers log.
"""

import concurrent.futures
import contextlib
import logging
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from lottery_jax import environment
from lottery_jax.errors import ClusterError, InputError
from lottery_jax.io.files import VISIBILITY_TIMEOUT
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.workers.units import PAUSE, Share, Unit, refuse_invisible

_TASKS = 1024
"""Units are submitted one by one up to this number, and above it in groups: a call costs milliseconds."""

_PROCESS = secrets.token_hex(8)  # names this process on all hosts

_Message = tuple[int, str]  # level and text


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
        done = [_run_here(each, share, finished) for each in new]
        if not all(done):
            return False
    finished.add(unit.name)
    return True


def run_on_executor(executor: Any, units: Sequence[Unit], *, progress: Progress) -> None:
    """Run units, and those that they need, on the workers of an executor; arguments and errors as in `run_units`."""
    if hasattr(executor, "get_executor"):  # a client of Dask
        from lottery_jax.workers.dask_cluster import set_up_workers

        with _lost_as_cluster_error(units):
            set_up_workers(executor)
        executor = executor.get_executor(pure=False)
    run = _Run(executor, progress)
    try:
        run.add(units)
        run.finish()
    finally:
        run.cancel()


class _Run:
    """The state of a run: unfinished units by name, what they wait for, and the calls under way."""

    def __init__(self, executor: Any, progress: Progress) -> None:
        self._executor, self._progress = executor, progress
        self._units: dict[str, Unit] = {}
        self._finished: set[str] = set()
        self._needed: dict[str, set[str]] = {}
        self._dependents: dict[str, list[str]] = {}
        self._calls: dict[concurrent.futures.Future, tuple[Unit, ...]] = {}
        self._ended: queue.SimpleQueue[concurrent.futures.Future] = queue.SimpleQueue()
        self._stalled: list[Unit] = []  # their needed results are finished, but not visible
        self._deadlines: dict[str, float] = {}  # of units that stalled

    def add(self, units: Sequence[Unit]) -> None:
        """Submit units that are not known yet."""
        new = [unit for unit in units if unit.name not in self._units]
        self._units |= {unit.name: unit for unit in new}
        self._submit(new)

    def finish(self) -> None:
        """Wait until all units are finished."""
        while len(self._finished) < len(self._units):
            self._progress(len(self._finished), len(self._units))
            assert self._calls or self._stalled, "units need each other"
            try:
                ended = self._ended.get(timeout=PAUSE if self._stalled else None)
            except queue.Empty:
                stalled, self._stalled = self._stalled, []  # each is submitted once, however long it then runs
                self._submit(stalled)
            else:
                self._take(ended)
        self._progress(len(self._finished), len(self._units))

    def cancel(self) -> None:
        """Cancel the calls that have not begun."""
        for call in self._calls:
            call.cancel()

    def _submit(self, units: Sequence[Unit]) -> None:
        size = max(1, len(units) // _TASKS)
        for start in range(0, len(units), size):
            group = tuple(units[start : start + size])
            with _lost_as_cluster_error(group):
                call = self._executor.submit(run_group, group, _PROCESS)
            self._calls[call] = group
            call.add_done_callback(self._ended.put)

    def _take(self, call: concurrent.futures.Future) -> None:
        """Register what the units of a call need, or that they are finished."""
        group = self._calls.pop(call)
        with _lost_as_cluster_error(group):
            results, messages = call.result()
        for level, text in messages:
            log.log(level, "%s", text)
        again = list[Unit]()
        for unit, needed in zip(group, results, strict=True):
            missing = {each.name for each in needed} - self._finished
            if missing:
                self._needed[unit.name] = missing
                for name in missing:
                    self._dependents.setdefault(name, []).append(unit.name)
                self.add(needed)
            elif needed:
                if time.monotonic() > self._deadlines.setdefault(unit.name, time.monotonic() + VISIBILITY_TIMEOUT):
                    refuse_invisible(unit)
                self._stalled.append(unit)
            else:
                self._finished.add(unit.name)
                for name in self._dependents.pop(unit.name, ()):
                    self._needed[name].discard(unit.name)
                    if not self._needed[name]:
                        again.append(self._units[name])
        self._submit(again)


def run_group(units: Sequence[Unit], sender: str) -> tuple[list[tuple[Unit, ...]], list[_Message]]:
    """What each unit of a call needs, and the messages that a worker of another process than `sender` logged."""
    own = sender == _PROCESS
    if not own:
        _MESSAGES.install()
    try:
        return [unit() for unit in units], [] if own else _MESSAGES.drain()
    except (InputError, OSError) as error:
        if own and isinstance(error, InputError):
            raise
        raise InputError(f"worker on {environment.host()}: {error}") from error


class _Messages(logging.Handler):
    """The messages of the package in a worker, until they are sent with a result."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._queue: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def install(self) -> None:
        with self._lock:
            if self not in log.handlers:
                log.addHandler(self)
                log.setLevel(logging.INFO)
                log.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put((record.levelno, record.getMessage()))

    def drain(self) -> list[_Message]:
        messages = []
        with contextlib.suppress(queue.Empty):
            while True:
                messages.append(self._queue.get_nowait())
        return messages


_MESSAGES = _Messages()


@contextlib.contextmanager
def _lost_as_cluster_error(group: Sequence[Unit]) -> Iterator[None]:
    """Turn the errors of a lost scheduler or worker into ``ClusterError``."""
    try:
        yield
    except (concurrent.futures.CancelledError, concurrent.futures.BrokenExecutor, OSError) as error:
        why = f" ({error})" if isinstance(error, concurrent.futures.BrokenExecutor) else ""
        raise ClusterError(f"the scheduler or its workers are lost{why}") from None
    except ImportError as error:
        raise InputError(f"a worker cannot import {error.name}; install the same packages on all hosts") from None
    except Exception as error:
        if type(error).__name__ == "KilledWorker":  # Dask is not imported here
            raise ClusterError(
                f"each worker that ran {group[0].name!r} was killed, which usually means too little memory"
            ) from None
        raise
