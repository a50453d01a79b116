"""The coordination service of JAX's distributed runtime, as a key-value store of all processes of a job.

It lives in process 0 and dies with it, so that no stale keys remain. Values are short notes; results are files.

Each process sends heartbeats, and process 0 reports the ones that have stopped. A process that is restarted with its
number gets a new name, and the units of its predecessor are free.
"""

import threading
import time
from typing import Any

import jax

from lottery_jax.errors import ClusterError, InputError
from lottery_jax.progress import log

KNOWN_JAX = ("0.10", "0.11", "0.12")
"""Versions of JAX whose distributed runtime has the functions that are used here."""

_NEEDED = ("key_value_set", "key_value_increment", "key_value_try_get", "key_value_dir_get", "key_value_delete")

_LAST_SECONDS = 10.0  # within this time JAX ends a process whose service is gone


class Service:
    """A key-value store of strings in process 0; keys have slashes, like paths.

    All methods raise ``ClusterError`` if that process is gone.
    """

    def __init__(self) -> None:
        self._client = _client()

    def add(self, key: str, count: int) -> int:
        """Add to a number, 0 at first; returns its new value, atomically."""
        return self._call("key_value_increment", key, count)

    def claim(self, key: str, value: str) -> bool:
        """Write a new key; False if it exists."""
        return self._call("key_value_set", key, value) is not _EXISTS

    def put(self, key: str, value: str) -> None:
        """Write or replace a key."""
        self._call("key_value_set", key, value, True)

    def get(self, key: str) -> str | None:
        """Read a value; None if the key is missing."""
        return self._call("key_value_try_get", key)

    def under(self, folder: str) -> dict[str, str]:
        """All values under a prefix, by the rest of their keys."""
        return {name.removeprefix(f"{folder}/"): value for name, value in self._call("key_value_dir_get", f"{folder}/")}

    def drop(self, key: str) -> None:
        """Remove a key, if it exists."""
        self._call("key_value_delete", key)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._client, method)(*arguments)
        except jax.errors.JaxRuntimeError as error:
            status = str(error).partition(":")[0]
            if status in _RESULTS:
                return _RESULTS[status]
            time.sleep(_LAST_SECONDS)  # JAX's runtime usually ends this process meanwhile
            raise ClusterError(f"process 0 cannot be reached ({str(error).splitlines()[0]})") from None


_EXISTS = object()

_RESULTS = {"NOT_FOUND": None, "ALREADY_EXISTS": _EXISTS}


def _client() -> Any:
    """The client of JAX's distributed runtime, a private name of JAX that exists in the versions ``KNOWN_JAX``."""
    try:
        from jax._src.distributed import global_state

        client = global_state.client
        assert all(hasattr(client, name) for name in _NEEDED)
    except (ImportError, AttributeError, AssertionError):
        raise InputError(
            f"the distributed runtime of JAX {jax.__version__} cannot be used. Install one of {', '.join(KNOWN_JAX)},"
            " or run one process."
        ) from None
    return client


_SECONDS, _MANY = 1.0, 100
"""Seconds between two heartbeats, and the number of processes above which they are rarer: process 0 reads them all."""

_NO_HEARTBEAT = "no heartbeat"


class Heartbeats:
    """Heartbeats of one process, sent by a thread from `start` to `stop`, and the state of the others.

    Attributes:
        name: Name of this process, NUMBER.RESTARTS.
        lost: Names of processes that stopped or left.
        failed: Why the job failed, in a sentence, or None.
        over: Whether process 0 has finished the job.
    """

    def __init__(self, board: Service, process: int, processes: int, patience: float) -> None:
        self._board, self._patience, self._leads = board, patience, process == 0
        self._interval = min(_SECONDS * max(processes / _MANY, 1), patience / 3)
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
        """Send heartbeats from now on."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Send no more heartbeats."""
        self._stopped.set()
        self._thread.join(2 * self._interval)

    def beat(self) -> None:
        """Send one heartbeat, and update the state of the others."""
        self._count += 1
        self._board.put(f"alive/{self.name}", str(self._count))
        if self._leads:
            self._report_lost()
        self.look()

    def look(self) -> None:
        """Read the state of the job and of the other processes."""
        state = self._board.under("state")
        self.lost = {name.removeprefix("lost/") for name in state if name.startswith("lost/")}
        self.failed, self.over = state.get("failed"), "over" in state

    def left(self) -> None:
        """Report that this process leaves: nobody waits for it, and its claimed units are free."""
        self._board.put(f"state/lost/{self.name}", "left")

    def alive(self) -> set[str]:
        """Names of the processes that joined and are not lost."""
        return set(self._board.under("alive")) - self.lost

    def _report_lost(self) -> None:
        """Report processes whose heartbeats stopped, and withdraw the report if they resume."""
        now = time.monotonic()
        for name, beat in self._board.under("alive").items():
            before, since = self._seen.get(name, ("", now))
            if beat != before:
                self._seen[name] = beat, now
                if before and name in self.lost and self._board.get(f"state/lost/{name}") == _NO_HEARTBEAT:
                    self._board.drop(f"state/lost/{name}")
            elif now - since > self._patience and name not in self.lost:
                self._board.put(f"state/lost/{name}", _NO_HEARTBEAT)
                log.warning(
                    "process %s is lost: no heartbeat for %.0f seconds; the others do its unfinished units",
                    *(name.partition(".")[0], self._patience),
                )

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self.beat()
            except ClusterError:
                return  # the main thread gets this error, too, at its next call
