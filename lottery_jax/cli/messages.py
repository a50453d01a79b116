"""What is said on stderr, by a process that may be one of many.

Ctrl-C and SIGTERM, obeyed at once: a thread that waits for them says what is kept, and ends the process.

Python raises KeyboardInterrupt wherever its main thread is: after a compiled call only when that returns, and lost
where a library calls back. What is kept is written whole or not at all, so that a process may end at any instruction.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from lottery_jax.io.files import remove_temporary_files

_who = ""


def set_process_name(who: str) -> None:
    """Put a name before each sentence from here on.

    >>> set_process_name("process 1 on n1")
    >>> named_message("stopped")
    'lottery-jax: process 1 on n1: stopped'
    >>> set_process_name("")
    >>> named_message("stopped")
    'lottery-jax: stopped'
    """
    global _who
    _who = who


def named_message(sentence: str) -> str:
    """A sentence with the names of program and process before it, unless it has that itself."""
    named = f"{_who}: " if _who and not sentence.startswith("process ") else ""
    return f"lottery-jax: {named}{sentence}"


def print_message(sentence: str) -> None:
    """Print a sentence on stderr."""
    print(named_message(sentence), file=sys.stderr, flush=True)


CODE = 130

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what a cluster sends before it kills."""

_PATIENCE = 1.0  # seconds for the last words

_kept: Callable[[], str] = lambda: "nothing was written yet"  # noqa: E731

_closing: list[Callable[[], None]] = []

_stopping = threading.Event()


def watch() -> None:
    """From here on, one of `SIGNALS` ends this process within two seconds, exit code 128 + its number; once, in the
    main thread."""
    # Whoever started this process may not want one of them (nohup).
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    if not heard:
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in heard:
        signal.signal(number, lambda *_: None)  # the byte in the pipe does it, whatever the main thread is waiting for

    def wait() -> None:
        while (number := os.read(read, 1)[0]) not in heard:
            pass
        _stopping.set()
        teller = threading.Thread(target=_tell, daemon=True)  # it may have to wait for who holds the terminal
        teller.start()
        teller.join(_PATIENCE)
        os._exit(128 + number)

    threading.Thread(target=wait, daemon=True).start()


def give_way() -> None:
    """Called before a process speaks its last words: those of an interrupt that is under way come first."""
    if _stopping.is_set():
        threading.Event().wait()


@contextlib.contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """While the block runs, `kept()` says what an interrupt leaves: the end of the sentence "stopped; ..."."""
    global _kept
    before, _kept = _kept, kept
    try:
        yield
    except KeyboardInterrupt as stopped:  # of another program that called a command
        stopped.args = stopped.args or (sentence(),)
        raise
    finally:
        _kept = before


@contextlib.contextmanager
def closing(close: Callable[[], None]) -> Iterator[None]:
    """While the block runs, an interrupt calls `close()` before it speaks: it gives the terminal back."""
    _closing.append(close)
    try:
        yield
    finally:
        _closing.remove(close)


def sentence() -> str:
    """What an interrupt says.

    >>> with keeping(lambda: "2 of 5 chunks are kept"):
    ...     sentence()
    'stopped; 2 of 5 chunks are kept'
    """
    try:
        return f"stopped; {_kept()}"
    except OSError:  # the folder that is asked may be gone
        return "stopped"


def _tell() -> None:
    for close in reversed(_closing):
        with contextlib.suppress(Exception):
            close()
    with contextlib.suppress(OSError):
        remove_temporary_files()
    # Not print: the main thread may hold the stream.
    os.write(2, f"{named_message(sentence())}\n".encode())
