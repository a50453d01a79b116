"""Messages on stderr, and the report of an interrupt: Ctrl-C and SIGTERM end a command within two seconds.

Python raises KeyboardInterrupt in its main thread only when a compiled call returns, and loses it in callbacks of
libraries. A thread therefore reports what is kept and ends the process, which may happen at any instruction, because
results are written whole or not at all.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

from lottery_jax.errors import printable
from lottery_jax.io.files import finite_json, remove_temporary_files

EXIT_CODE = 130

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and the signal of a cluster before it kills a job."""

_REPORT_SECONDS = 1.0  # longest wait for the report

_describe_kept: Callable[[], str] = lambda: "nothing was written yet"  # noqa: E731

_cleanups: list[Callable[[], None]] = []

_stopping = threading.Event()


def print_message(sentence: str) -> None:
    """Print a sentence on stderr, as one line of printable text."""
    with contextlib.suppress(OSError):  # stderr may be closed or full, and the exit code must still be right
        print(f"lottery-jax: {printable(sentence)}", file=sys.stderr, flush=True)


def print_lines(lines: Iterable[str], results: TextIO) -> None:
    """Print results, each as one line of printable text."""
    for line in lines:
        print(printable(line), file=results)


def print_json(row: Mapping[str, Any], results: TextIO) -> None:
    """Print a row as one line of JSON, with null for numbers that JSON lacks.

    >>> import math
    >>> print_json({"bound": math.inf, "box": [0.0, 1.0], "by_layer": {"fc1": math.nan}}, sys.stdout)
    {"bound": null, "box": [0.0, 1.0], "by_layer": {"fc1": null}}
    """
    print(json.dumps(finite_json(row), allow_nan=False), file=results, flush=True)


def handle_interrupts() -> None:
    """End this process on each of `SIGNALS`, with exit code 128 + its number; call it once, in the main thread."""
    # A parent process may have ignored one of them, as nohup does.
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    if not handled:
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in handled:
        signal.signal(number, lambda *_: None)  # the byte in the pipe is enough, even in a compiled call

    def wait() -> None:
        while (number := os.read(read, 1)[0]) not in handled:
            pass
        _stopping.set()
        report = threading.Thread(target=_report, daemon=True)  # it may wait for the lock of the terminal
        report.start()
        report.join(_REPORT_SECONDS)
        os._exit(128 + number)

    threading.Thread(target=wait, daemon=True).start()


def wait_if_interrupted() -> None:
    """Block if an interrupt is being reported: its message comes before any other last one."""
    if _stopping.is_set():
        threading.Event().wait()


@contextlib.contextmanager
def report_kept(describe_kept: Callable[[], str]) -> Iterator[None]:
    """While the block runs, an interrupt reports `describe_kept()`, the end of the sentence "stopped; ..."."""
    global _describe_kept
    before, _describe_kept = _describe_kept, describe_kept
    try:
        yield
    except KeyboardInterrupt as stopped:  # another program called the command
        stopped.args = stopped.args or (interrupt_message(),)
        raise
    finally:
        _describe_kept = before


@contextlib.contextmanager
def on_interrupt(cleanup: Callable[[], None]) -> Iterator[None]:
    """While the block runs, an interrupt calls `cleanup()` before its message."""
    _cleanups.append(cleanup)
    try:
        yield
    finally:
        _cleanups.remove(cleanup)


def interrupt_message() -> str:
    """The message of an interrupt.

    >>> with report_kept(lambda: "2 of 5 chunks are kept"):
    ...     interrupt_message()
    'stopped; 2 of 5 chunks are kept'
    """
    try:
        return f"stopped; {_describe_kept()}"
    except OSError:  # the folder may be gone
        return "stopped"


def _report() -> None:
    for cleanup in reversed(_cleanups):
        with contextlib.suppress(Exception):
            cleanup()
    with contextlib.suppress(OSError):
        remove_temporary_files()
    # Not print: the main thread may hold the stream.
    os.write(2, f"lottery-jax: {printable(interrupt_message())}\n".encode())
