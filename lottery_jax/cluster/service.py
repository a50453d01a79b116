"""The coordination service of JAX's distributed runtime, as a small board that all processes of a job see.

It lives in process 0 and dies with it, so that nothing stale stays behind. What is written here is a note, never a
result: those are files.
"""

import time
from typing import Any, Protocol

import jax

from lottery_jax.errors import ClusterError, InputError

KNOWN_JAX = ("0.10", "0.11", "0.12")
"""Versions of JAX whose distributed runtime is known to have what is needed here."""
_NEEDED = ("key_value_set", "key_value_increment", "key_value_try_get", "key_value_dir_get", "key_value_delete")
_LAST_SECONDS = 10.0  # in which JAX ends a process whose service is gone


class Board(Protocol):
    """Words by key; keys have slashes, like the paths of files."""

    def add(self, key: str, count: int) -> int:
        """Add to a number, 0 if it is not there; its new value. No two processes are told the same one."""
        ...

    def claim(self, key: str, value: str) -> bool:
        """Write what is not there yet; False where it is."""
        ...

    def put(self, key: str, value: str) -> None:
        """Write, whatever was there."""
        ...

    def get(self, key: str) -> str | None:
        """Read; None where nothing is there."""
        ...

    def under(self, folder: str) -> dict[str, str]:
        """All below a folder, by what follows its name."""
        ...

    def drop(self, key: str) -> None:
        """Remove what may be there."""
        ...


class Service:
    """The board in process 0. Raises `ClusterError` where that process is gone."""

    def __init__(self) -> None:
        self._client = _client()

    def add(self, key: str, count: int) -> int:
        return self._ask("key_value_increment", key, count)

    def claim(self, key: str, value: str) -> bool:
        return self._ask("key_value_set", key, value) is not _THERE

    def put(self, key: str, value: str) -> None:
        self._ask("key_value_set", key, value, True)

    def get(self, key: str) -> str | None:
        return self._ask("key_value_try_get", key)

    def under(self, folder: str) -> dict[str, str]:
        return {name.removeprefix(f"{folder}/"): value for name, value in self._ask("key_value_dir_get", f"{folder}/")}

    def drop(self, key: str) -> None:
        self._ask("key_value_delete", key)

    def _ask(self, method: str, *words: Any) -> Any:
        try:
            return getattr(self._client, method)(*words)
        except jax.errors.JaxRuntimeError as error:
            status = str(error).partition(":")[0]
            if status in _ANSWERS:
                return _ANSWERS[status]
            time.sleep(_LAST_SECONDS)  # JAX's runtime notices it, too, and ends this process meanwhile
            raise ClusterError(f"process 0 cannot be reached ({str(error).splitlines()[0]})") from None


_THERE = object()
_ANSWERS = {"NOT_FOUND": None, "ALREADY_EXISTS": _THERE}


def _client() -> Any:
    """The client of JAX's distributed runtime: the one private name of JAX here, known to be there in `KNOWN_JAX`."""
    try:
        from jax._src.distributed import global_state

        client = global_state.client
        assert all(hasattr(client, name) for name in _NEEDED)
    except (ImportError, AttributeError, AssertionError):
        known = ", ".join(KNOWN_JAX)
        raise InputError(
            f"processes cannot meet with JAX {jax.__version__}; install one of {known}, or run one process"
        ) from None
    return client
