"""Folder locks: one process at a time, or several that share the folder; an error names the process that holds it.

The operating system releases a lock when its process ends, so a killed process leaves nothing to clean up.
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
from lottery_jax.io.files import read_regular

_RETRY_SECONDS = 0.5  # within which a process that only reads the lock, or is about to end, releases it
_MAX_BYTES = 1 << 16
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

_mutex = threading.Lock()  # a closed handle may belong to another file a moment later
_locks: dict[int, dict[str, str | int]] = {}  # content of the lock files that this process holds, by handle


@contextlib.contextmanager
def folder_lock(folder: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Hold ``folder``/lock during the block; ``what`` is the folder's role in the error message.

    Processes that all hold it ``shared`` do not exclude each other; the file then names the last of them.

    Raises:
        InputError: Another process holds the lock, or the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, folder_lock(Path(folder), "the run folder"):
    ...     with folder_lock(Path(folder), "the run folder"):
    ...         pass
    Traceback (most recent call last):
    lottery_jax.errors.InputError: the run folder '...' is in use by process ... since ...
    """
    path = folder / "lock"
    handle = _acquire(path, f"{what} {str(folder)!r}", shared)
    try:
        with _mutex:
            _locks[handle] = {
                "process": os.getpid(),
                "host": socket.gethostname(),
                "since": time.strftime(_TIME_FORMAT),
                "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            }
            _write(handle)
        yield
    finally:
        with _mutex:
            _locks.pop(handle, None)
        with contextlib.suppress(OSError):  # the folder may be deleted; other processes may share the lock
            if shared:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        os.close(handle)


def write_lock_status(status: str) -> None:
    """Write the progress of this process into each lock that it holds."""
    with _mutex:
        for handle, holder in _locks.items():
            holder |= {"said": status, "at": time.strftime(_TIME_FORMAT)}
            _write(handle)


def read_lock_status(folder: Path) -> str | None:
    """The last status in a folder's lock, also of a process that was killed; None if it has none."""
    try:
        holder = json.loads(read_regular(folder / "lock")[:_MAX_BYTES])
        return f"{holder['said']} (at {holder['at']})"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def lock_holder(folder: Path) -> str | None:
    """The process that holds a folder's lock, in words; None if no process does."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _describe_holder(handle)
    except OSError:
        return None
    finally:
        os.close(handle)


def _acquire(path: Path, folder: str, shared: bool) -> int:
    """The handle of the locked file."""
    deadline = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"{folder} cannot be locked ({error.strerror}); choose a writable folder") from None
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _describe_holder(handle)
            os.close(handle)
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            raise InputError(f"{folder} is in use by {holder}; wait for it, or choose another") from None
        except OSError:
            return handle  # a file system without locks
        with contextlib.suppress(OSError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        os.close(handle)  # its last holder deleted the file between the two calls


def _write(handle: int) -> None:
    with contextlib.suppress(OSError):  # the disk is full: the lock holds, and the next real write reports it
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_locks[handle]).encode(), 0)


def _describe_holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, _MAX_BYTES, 0))
        return "process {process} on {host} since {since} ({command})".format(**holder)
    except (ValueError, KeyError, OSError, TypeError):
        return "another process"
