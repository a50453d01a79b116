"""Records that wait to be joined to the others: a file each, for processes that may not append to one file."""

import contextlib
from pathlib import Path

from lottery_jax.comparison.records import Key, Record
from lottery_jax.progress import log
from lottery_jax.storage.files import wait_for, write_atomically

_NO_TICKET = "no ticket\n"


def name_of_run(method: str, seed: int, keep: float | None = None) -> str:
    """The name of what belongs to a method, a seed and a kept fraction.

    >>> name_of_run("pensia", 0), name_of_run("edge-popup-wide", 3, 0.5)
    ('pensia-seed0', 'edge-popup-wide-seed3-keep0.5')
    """
    return f"{method}-seed{seed}" + ("" if keep is None else f"-keep{keep}")


class Aside:
    """The folder of such records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, record: Record) -> None:
        """Keep a record, whole or not at all; raises `InputError`."""
        self.folder.mkdir(exist_ok=True)
        write_atomically(self._file(record.key), f"{record.to_json()}\n".encode())

    def give_up(self, key: Key) -> None:
        """Note that there is no ticket, and will be no record."""
        self.folder.mkdir(exist_ok=True)
        write_atomically(self._file(key), _NO_TICKET.encode())

    def has(self, key: Key) -> bool:
        """Whether there is a record, or none will be."""
        return self._file(key).exists()

    def read(self, key: Key, *, comes: bool = False) -> Record | None:
        """A record, None where there is none; comes: whether it is known to be written, and only not seen yet."""
        path = self._file(key)
        if not (path.exists() or (comes and wait_for(path))):
            return None
        try:
            content = path.read_text()
            if content == _NO_TICKET:
                return None
            record = Record.from_json(content)
            if record.key == key:
                return record
        except (OSError, ValueError, TypeError, AttributeError):
            pass
        log.warning("the record %r is damaged, and is made anew", str(path))
        return None

    def count(self) -> int:
        """How many there are."""
        return len(list(self.folder.glob("*.json")))

    def remove(self, key: Key) -> None:
        """Remove a record, and the folder with the last one."""
        self._file(key).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are there, or it never was
            self.folder.rmdir()

    def _file(self, key: Key) -> Path:
        return self.folder / f"{name_of_run(*key)}.json"
