"""Objects that the units of a job need, in a file of the job's folder: a message to a worker names the file only."""

import contextlib
import dataclasses
import functools
import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottery_jax import environment
from lottery_jax.errors import InputError
from lottery_jax.io.files import wait_for_file, write_atomically

PREFIX = "shared-"
"""Beginning of the names of these files."""


@dataclasses.dataclass(frozen=True)
class SharedObject:
    """An object in a file that all workers see.

    The file is a pickle. A worker loads it only if it has the digest that came with the unit, from the process whose
    units it runs.

    Args:
        path: The file.
        digest: SHA-256 of its content.
        host: The host that wrote it.
        versions: Versions of the packages that wrote it.
    """

    path: Path
    digest: str
    host: str
    versions: Mapping[str, str] = dataclasses.field(hash=False)

    @classmethod
    def write(cls, value: Any, folder: Path) -> "SharedObject":
        """Write an object into a folder, instead of one that a killed process left there; raises ``InputError``."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{PREFIX}*"):
            old.unlink(missing_ok=True)
        content = _pickler().dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        digest = hashlib.sha256(content).hexdigest()
        path = folder.absolute() / f"{PREFIX}{digest[:16]}.pickle"
        write_atomically(path, content)
        return cls(path, digest, environment.host(), environment.version_facts())

    def load(self) -> Any:
        """The object, which this process reads once.

        Raises:
            InputError: Versions differ, or this host does not see the file, or the file is another one.
        """
        return _load(self)

    def remove(self) -> None:
        """Remove the file, and its folder if it is empty."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


@dataclasses.dataclass(frozen=True, eq=False)
class LocalObject:
    """As `SharedObject`, for units that this process runs itself."""

    value: Any

    def load(self) -> Any:
        """The object."""
        return self.value


@functools.lru_cache(maxsize=2)
def _load(shared: SharedObject) -> Any:
    for name, own in environment.version_facts().items():
        if own != (other := shared.versions.get(name)):
            raise InputError(f"{name} is {own} here and {other} on {shared.host}; install the same on all hosts")
    if not wait_for_file(shared.path):
        raise InputError(
            f"the folder {str(shared.path.parent)!r} of {shared.host} is not visible here; name a folder that all"
            " hosts see"
        )
    content = shared.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != shared.digest:
        raise InputError(f"{str(shared.path)!r} is not the file that {shared.host} wrote; start the command again")
    return pickle.loads(content)


def _pickler() -> Any:
    """cloudpickle, which Dask needs and which pickles the classes of notebooks and scripts; else pickle."""
    try:
        import cloudpickle
    except ImportError:
        return pickle
    return cloudpickle
