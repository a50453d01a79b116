"""The coordination service of JAX's distributed runtime, as a key-value store of all processes of a job.

It lives in process 0 and dies with it, so that no stale keys remain. Values are short notes; results are files.

Each process sends heartbeats, and process 0 reports the ones that have stopped. A process that is restarted with its
number gets a new name, and the units of its predecessor are free.
"""

import threading
import time
from typing import Any, Protocol

import jax

from lottery_jax.errors import ClusterError, InputError
from lottery_jax.progress import log

KNOWN_JAX = ("0.10", "0.11", "0.12")
"""Versions of JAX whose distributed runtime has the functions that are used here."""

_NEEDED = ("key_value_set", "key_value_increment", "key_value_try_get", "key_value_dir_get", "key_value_delete")

_LAST_SECONDS = 10.0  # in which JAX ends a process whose service is gone


class Board(Protocol):
    """A key-value store of strings; keys have slashes, like paths."""

    def add(self, key: str, count: int) -> int:
        """Add to a number, 0 at first; returns its new value, atomically."""
        ...

    def claim(self, key: str, value: str) -> bool:
        """Write a new key; False if it exists."""
        ...

    def put(self, key: str, value: str) -> None:
        """Write or replace a key."""
        ...

    def get(self, key: str) -> str | None:
        """Read a value; None if the key is missing."""
        ...

    def under(self, folder: str) -> dict[str, str]:
        """All values under a prefix, by the rest of their keys."""
        ...

    def drop(self, key: str) -> None:
        """Remove a key, if it exists."""
        ...


class Service:
    """The store in process 0; raises `ClusterError` if that process is gone."""

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


_SECONDS = 1.0  # between two signs; of many processes more, for all of them are read by one

_MANY = 100


class Heartbeats:
    """Heartbeats of one process, sent by a thread from `start` to `stop`, and the state of the others.

    Attributes:
        name: Name of this process, NUMBER.RESTARTS.
        lost: Names of processes that stopped or left.
        failed: Why the job ends, in a sentence; None while it runs.
        over: Whether process 0 has finished the job.
    """

    def __init__(self, board: Board, process: int, processes: int, patience: float) -> None:
        self._board, self._patience, self._leads = board, patience, process == 0
        self._every = min(_SECONDS * max(processes / _MANY, 1), patience / 3)
        life = board.add(f"lives/{process}", 1)
        self.name = f"{process}.{life}"
        self.lost: set[str] = {f"{process}.{earlier}" for earlier in range(1, life)}
        self.failed: str | None = None
        self.over = False
        for name in self.lost:
            board.put(f"state/lost/{name}", "started again")
        self._seen: dict[str, tuple[str, float]] = {}
        self._count = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Give signs from here on."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Give no more; what is told is not missed."""
        self._stopped.set()
        self._thread.join(2 * self._every)

    def beat(self) -> None:
        """Give one sign, and see what there is to know."""
        self._count += 1
        self._board.put(f"alive/{self.name}", str(self._count))
        if self._leads:
            self._look()
        self.look()

    def look(self) -> None:
        """See what was said."""
        said = self._board.under("state")
        self.lost = {name.removeprefix("lost/") for name in said if name.startswith("lost/")}
        self.failed, self.over = said.get("failed"), "over" in said

    def left(self) -> None:
        """Say that this process is not to be waited for; what it has taken is free."""
        self._board.put(f"state/lost/{self.name}", "left")

    def alive(self) -> set[str]:
        """Names of the processes that are not lost, of all that ever came."""
        return set(self._board.under("alive")) - self.lost

    def _look(self) -> None:
        """Say of whom there was no sign for too long; and of who gives one again, that it was not so."""
        now = time.monotonic()
        for name, sign in self._board.under("alive").items():
            before, since = self._seen.get(name, ("", now))
            if sign != before:
                self._seen[name] = sign, now
                if before and name in self.lost and self._board.get(f"state/lost/{name}") == "no sign":
                    self._board.drop(f"state/lost/{name}")
            elif now - since > self._patience and name not in self.lost:
                self._board.put(f"state/lost/{name}", "no sign")
                log.warning(
                    "process %s is lost: no heartbeat for %.0f seconds; the others do its unfinished units",
                    *(name.partition(".")[0], self._patience),
                )

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self.beat()
            except ClusterError:
                return  # who waits is told, too
