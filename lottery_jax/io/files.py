"""Output files: the folder is checked before the work, and a file is written whole or not at all.

Figures as files.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lottery_jax.errors import InputError

PROBE_BYTES = 1 << 16

_ATTEMPTS = 20

VISIBILITY_TIMEOUT = 60.0
"""Seconds in which a network's file system shows a new file to another host, at the latest."""

_unfinished: set[Path] = set()


def check_writable(folder: Path) -> None:
    """Prove that a file can be written in `folder`, and leave nothing there; raises `InputError`.

    A folder that does not exist yet is made and taken away again: a later refusal finds nothing to clean.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_writable(Path(folder) / "runs")
    ...     list(Path(folder).iterdir())
    []
    """
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        for attempt in range(_ATTEMPTS):
            folder.mkdir(parents=True, exist_ok=True)
            # A real write, not os.access: only writing tells of a full disk or of a read-only mount.
            try:
                with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
                    probe.write(bytes(PROBE_BYTES))
                    probe.flush()
                    os.fsync(probe.fileno())
                break
            except FileNotFoundError:  # another process, which had made the folder for its own probe, took it away
                if attempt + 1 == _ATTEMPTS:
                    raise
    except OSError as error:
        raise InputError(
            f"the output folder {str(folder)!r} cannot be written ({error.strerror});"
            " free some space or choose another place with --out"
        ) from None
    finally:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path` and rename, so that nobody ever sees half a file; raises `InputError` if it cannot.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "note.txt", b"all or nothing")
    ...     [file.name for file in Path(folder).iterdir()]
    ['note.txt']
    """
    with atomic_replacement(path) as temporary, temporary.open("wb", buffering=0) as file:
        while content:
            content = content[file.write(content) :]
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_replacement(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and is gone when it does not.

    Raises `InputError` where it cannot be written.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        _unfinished.add(temporary)
        yield temporary
        temporary.chmod(0o644)  # mkstemp's own mode would hide the file from other users
        temporary.replace(path)
        _unfinished.discard(temporary)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {str(path)!r} ({error.strerror}); free some space or choose a writable folder"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            _unfinished.discard(temporary)


def remove_temporary_files() -> None:
    """For a process that ends at once: take away the temporary files that it has."""
    for path in tuple(_unfinished):
        path.unlink(missing_ok=True)


def wait_for_file(path: Path) -> bool:
    """Wait for a file that is known to be written: a network's file system shows it to another host some time later.

    False where it does not come within a minute.
    """
    end = time.monotonic() + VISIBILITY_TIMEOUT
    while not path.exists():
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    return True


def check_overwrite(path: Path, *, force: bool) -> None:
    """Refuse to write over a file that is there, unless it is asked for; raises `InputError`."""
    if path.exists() and not force:
        raise InputError(f"{str(path)!r} is there already; choose another place with --out, or replace it with --force")


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows the names in a folder: a renamed file then outlives the machine."""
    with contextlib.suppress(OSError):  # some file systems have no such thing
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def png_bytes(drawing: Any) -> bytes:
    """A matplotlib figure as PNG bytes, on its own background.

    >>> from matplotlib.figure import Figure
    >>> png_bytes(Figure(figsize=(1, 1)))[:4]
    b'\\x89PNG'
    """
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", facecolor="auto")  # "auto": the figure's own, whatever the settings say
    return buffer.getvalue()
