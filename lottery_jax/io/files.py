"""Output files: check that a folder is writable before long work, and write whole files or none."""

import contextlib
import hashlib
import io
import math
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lottery_jax.errors import InputError

_PROBE_BYTES = 1 << 16
_MAX_ATTEMPTS = 20

VISIBILITY_TIMEOUT = 60.0
"""Seconds after which a network file system shows a new file to every host."""

_temporary_files: set[Path] = set()


def check_writable(folder: Path) -> None:
    """Write and delete a probe file in ``folder``; raises ``InputError`` if that fails.

    A missing folder is created and removed again, so that no later error leaves an empty one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_writable(Path(folder) / "runs")
    ...     list(Path(folder).iterdir())
    []
    """
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        for attempt in range(_MAX_ATTEMPTS):
            folder.mkdir(parents=True, exist_ok=True)
            # Only a real write, not os.access, detects a full disk or a read-only mount.
            try:
                with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
                    probe.write(bytes(_PROBE_BYTES))
                    probe.flush()
                    os.fsync(probe.fileno())
                break
            except FileNotFoundError:  # another process removed the folder after its own probe
                if attempt + 1 == _MAX_ATTEMPTS:
                    raise
    except OSError as error:
        raise InputError(
            f"the output folder {str(folder)!r} cannot be written ({error.strerror});"
            " free some space or choose another place with --out"
        ) from None
    finally:
        for created in missing:
            with contextlib.suppress(OSError):
                created.rmdir()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file and rename it to ``path``, so that no reader sees half a file; raises ``InputError``.

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
    """A temporary file in the folder of ``path`` that replaces it after the block; an error in the block deletes it.

    Raises:
        InputError: The file cannot be written, or ``path`` is a device, a pipe or a folder.
    """
    _check_replaceable(path)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        _temporary_files.add(temporary)
        yield temporary
        temporary.chmod(0o644)  # mkstemp's own mode would hide the file from other users
        temporary.replace(path)
        _temporary_files.discard(temporary)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {str(path)!r} ({error.strerror}); free some space or choose a writable folder"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            _temporary_files.discard(temporary)


def remove_temporary_files() -> None:
    """Delete the temporary files of this process, which is about to end without unwinding."""
    for path in tuple(_temporary_files):
        path.unlink(missing_ok=True)


def wait_for_file(path: Path) -> bool:
    """Wait until a network file system shows a file that another host has written; False after one minute."""
    deadline = time.monotonic() + VISIBILITY_TIMEOUT
    while not path.exists():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def open_regular(path: Path, where: str) -> int:
    """The handle of a file for reading; raises ``InputError`` for folders, devices and pipes, which may never end."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for its writer
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror}); check the path") from None
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    kind = "a folder; name a file in it" if stat.S_ISDIR(mode) else "a device or a pipe; copy its content into a file"
    raise InputError(f"{where} is {kind}")


def read_regular(path: Path, most: int = -1) -> bytes:
    """The content of a regular file, or at most its first bytes; raises ``InputError`` for any other."""
    with open(open_regular(path, f"the file {str(path)!r}"), "rb") as file:
        return file.read(most)


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file, in hexadecimal digits; raises ``InputError`` for any other."""
    with open(open_regular(path, f"the file {str(path)!r}"), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of a folder, a device or a pipe."""
    if path.exists() and not path.is_file():
        kind = "a folder; name a file in it" if path.is_dir() else "a device or a pipe; choose another place with --out"
        raise InputError(f"{str(path)!r} is {kind}")


def check_overwrite(path: Path, *, force: bool) -> None:
    """Raise ``InputError`` if ``path`` exists, unless ``force``; devices, pipes and folders are always refused."""
    _check_replaceable(path)
    if path.exists() and not force:
        raise InputError(f"{str(path)!r} already exists; choose another place with --out, or replace it with --force")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a renamed file survives a crash of the machine."""
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def png_bytes(figure: Any) -> bytes:
    """A matplotlib figure as PNG bytes.

    >>> from matplotlib.figure import Figure
    >>> png_bytes(Figure(figsize=(1, 1)))[:4]
    b'\\x89PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="auto")  # the figure's own colour, not that of rcParams
    return buffer.getvalue()


def finite_json(value: Any) -> Any:
    """JSON values with None for numbers that JSON lacks.

    >>> finite_json({"loss": [0.5, math.nan]})
    {'loss': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {name: finite_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return list(map(finite_json, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
