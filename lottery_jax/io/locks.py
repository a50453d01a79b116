"""A lock on a folder: one process at a time, or several that share it, and a sentence that says who holds it.

The operating system lets go of the lock when its process ends, however it ends: there is nothing to clean up.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lottery_jax.errors import InputError

_LEAVING = 0.5  # seconds in which who only looks, or leaves, lets go of it

_MOST_BYTES = 1 << 16

_turn = threading.Lock()  # a handle that is closed may be another file's a moment later

_held: dict[int, dict[str, str | int]] = {}  # what this process has written into the locks that it holds, by handle


@contextlib.contextmanager
def folder_lock(folder: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Hold `folder`/lock while the block runs; raises `InputError` where another process does. `what`: said of it.

    shared: with others that share it, too; the file then names the last that came.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, folder_lock(Path(folder), "the run folder"):
    ...     with folder_lock(Path(folder), "the run folder"):
    ...         pass
    Traceback (most recent call last):
    lottery_jax.errors.InputError: the run folder '...' is in use by process ... since ...
    """
    path = folder / "lock"
    handle = _open(path, folder, what, shared)
    try:
        holder: dict[str, str | int] = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join(Path(word).name if place == 0 else word for place, word in enumerate(sys.argv)),
        }
        with _turn:
            _held[handle] = holder
            _write(handle)
        yield
    finally:
        with _turn:
            _held.pop(handle, None)
        with contextlib.suppress(OSError):  # the folder may be gone, with the lock; others may share it
            if shared:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        os.close(handle)


def write_lock_status(words: str) -> None:
    """Write into each lock that this process holds how far it is, for who looks at the folder."""
    with _turn:
        for handle, holder in _held.items():
            holder |= {"said": words, "at": time.strftime("%Y-%m-%d %H:%M:%S")}
            _write(handle)


def read_lock_status(folder: Path) -> str | None:
    """What the holder of a folder's lock, or the last one if it was killed, said how far it is; None if nothing."""
    try:
        holder = json.loads((folder / "lock").read_bytes()[:_MOST_BYTES])
        return f"{holder['said']} (at {holder['at']})"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def lock_holder(folder: Path) -> str | None:
    """Who holds a folder's lock, in words; None where nobody does. Nothing is changed there."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read(handle)
    except OSError:
        return None
    finally:
        os.close(handle)


def _open(path: Path, folder: Path, what: str, shared: bool) -> int:
    """The lock's file, held."""
    end = time.monotonic() + _LEAVING
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"{what} {str(folder)!r} cannot be locked ({error.strerror}); choose a folder that can be written"
            ) from None
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(handle)
            os.close(handle)
            if time.monotonic() < end:
                time.sleep(0.02)
                continue
            raise InputError(f"{what} {str(folder)!r} is in use by {holder}; wait for it, or choose another") from None
        except OSError:
            return handle  # a file system without locks: go on, as everybody did before there was one
        with contextlib.suppress(OSError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        os.close(handle)  # its last holder took it away between the two calls


def _write(handle: int) -> None:
    with contextlib.suppress(OSError):  # a full disk: held all the same, and what comes next says so
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_held[handle]).encode(), 0)


def _read(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, _MOST_BYTES, 0))
        return "process {process} on {host} since {since} ({command})".format(**holder)
    except (ValueError, KeyError, OSError, TypeError):
        return "another process"
