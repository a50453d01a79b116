"""Processes of one job that share its units through JAX's distributed runtime, on one host or many.

A process claims a unit in the coordination service. If it dies, its units are free again; if process 0 dies, so does
the service, and all processes join again. Results are files in a folder that all processes see.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from lottery_jax.errors import ClusterError, InputError
from lottery_jax.io.files import VISIBILITY_TIMEOUT
from lottery_jax.workers.coordination import Heartbeats, Service
from lottery_jax.workers.supervisor import AGAIN, joined
from lottery_jax.workers.workers import FOUND, Pending, Standing, T, Workers, unit_of

SEEN = ".seen-"
"""Prefix of a file that process 0 writes into the folder of a job; the others check that they see it."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds between two reads of the others' state

_BATCH, _PARTS = 16, 8
"""A process gets at most ``_BATCH`` numbers of units at once, and at most 1 / ``_PARTS`` of its even share."""

_LEAVING = 10.0  # seconds that process 0 waits for the others to leave

_ABANDONING = 0.3  # seconds for the message of a process that ends at once

_CLOSING = 0.5  # seconds in which the others close the connection


class Cluster(Workers):
    """One of several processes, which share the key-value store `board`; made by `join`."""

    meets = True

    def __init__(
        self,
        board: Service,
        process: int,
        processes: int,
        *,
        patience: float,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.process, self.processes, self.leads = process, processes, process == 0
        self.opens = self.leads
        self.host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self._board, self._close, self._jobs, self._left = board, close, 0, False
        self._lists: dict[str, int] = {}
        self._marks: list[Path] = []
        self._heartbeats = Heartbeats(board, process, processes, patience)
        board.put(f"hosts/{self._heartbeats.name}", self.host)
        self._heartbeats.start()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    def begin(self, facts: Mapping[str, str], folder: Path, says: str = "") -> str:
        self._jobs += 1
        key, mark = f"jobs/{self._jobs}", f"{SEEN}{secrets.token_hex(8)}" if folder.is_dir() else ""
        if self.leads:
            if mark:
                for old in folder.glob(f"{SEEN}*"):  # of a killed process
                    old.unlink(missing_ok=True)
                (folder / mark).touch()
                self._marks.append(folder / mark)
            self._board.put(key, json.dumps([str(self), mark, dict(facts), says]))
            return says
        found = self._poll(lambda: self._board.get(key), _FIRST_PAUSE)
        first, mark, theirs, says = json.loads(found)
        for name in {**facts, **theirs}:
            mine, other = facts.get(name, "none"), theirs.get(name, "none")
            if mine != other:
                raise InputError(
                    f"{self} has another {name} than {first}: {mine}, not {other}; give every process the same"
                )
        end = time.monotonic() + VISIBILITY_TIMEOUT
        while mark and not (
            (folder / mark).exists() or self._heartbeats.over
        ):  # process 0 may have finished and removed it
            if time.monotonic() > end:
                raise InputError(
                    f"{self} does not see what {first} writes into {str(folder)!r}; name a folder that all hosts see"
                )
            self._pause(_LONGEST_PAUSE)
        return says

    def take(self, unit: str, number: int | None = None) -> bool:
        self._check()
        if self._board.claim(f"units/{unit}/0", self._heartbeats.name):
            return True
        attempt = self._free(self._board.under(f"units/{unit}"))
        return attempt is not None and self._board.claim(f"units/{unit}/{attempt}", self._heartbeats.name)

    def expect(self, name: str, count: int) -> None:
        self._lists[name] = count

    def units(self, name: str, count: int) -> Iterator[int | None]:
        self.expect(name, count)
        batch = max(1, min(_BATCH, count // (_PARTS * self.processes)))
        while (first := self._board.add(f"next/{name}", batch) - batch) < count:
            for number in range(first, min(first + batch, count)):
                if self.take(unit_of(name, number), number):
                    yield number
        pause = _FIRST_PAUSE
        while True:
            states = self._states(name)
            left = [number for number in range(count) if "done" not in states.get(str(number), {})]
            if not left:
                return
            # From the end, because others begin their batches at the start.
            for number in reversed(left):
                free = self._free(states.get(str(number), {})) is not None
                if free and self.take(unit_of(name, number), number):
                    yield number
                    pause = _FIRST_PAUSE
                    break
            else:
                yield None
                self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def done(self, unit: str, note: str = "") -> None:
        self._board.put(f"units/{unit}/done", note)

    def release(self, unit: str) -> None:
        for attempt, holder in self._board.under(f"units/{unit}").items():
            if holder == self._heartbeats.name and attempt != "done":
                self._board.drop(f"units/{unit}/{attempt}")

    def note(self, unit: str) -> str | None:
        return self._board.get(f"units/{unit}/done")

    def notes(self, name: str) -> dict[int, str]:
        return {int(number): state["done"] for number, state in self._states(name).items() if "done" in state}

    def hear(self, unit: str) -> str:
        return self._poll(lambda: self.note(unit))

    def ready(self, units: Collection[str]) -> bool:
        states = self._states()
        return any("done" in states.get(unit, {}) or self._free(states.get(unit, {})) is not None for unit in units)

    def wait(self, units: Collection[str]) -> None:
        self._poll(lambda: not units or self.ready(units) or None)

    def finish(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except Pending as other:
                self.wait(other.units)

    def gather(self, name: str) -> None:
        self._board.put(f"here/{name}/{self._heartbeats.name}", "")
        if self.leads:
            self._poll(lambda: self._heartbeats.alive() <= set(self._board.under(f"here/{name}")) or None)

    def standing(self) -> Standing:
        states, names = self._states(), self._board.under("hosts")
        done = [(unit.rpartition("/")[0], state["done"]) for unit, state in states.items() if "done" in state]
        counted = [note for name, note in done if name in self._lists]
        running = sum("done" not in state and self._free(state) is None for state in states.values())
        alive = self._heartbeats.alive()
        hosts = sorted(host for name, host in names.items() if name in alive)
        return Standing(sum(self._lists.values()), len(counted), counted.count(FOUND), running, tuple(hosts))

    def fail(self, sentence: str) -> None:
        if self._left:
            return
        self._left = True
        self._board.claim("state/failed", sentence if sentence.startswith("process ") else f"{self}: {sentence}")
        self._heartbeats.stop()
        self._heartbeats.left()
        if self.leads:
            self._wait_for_leaving(_LEAVING / 2)

    def leave(self) -> None:
        """Leave when process 0 has finished the job."""
        if self._left:
            return
        self._left = True
        if self.leads:
            self._board.put("state/over", "")
        while not self.leads and not self._heartbeats.over:
            self._pause(_FIRST_PAUSE)
            self._heartbeats.look()
        self._heartbeats.stop()
        self._heartbeats.left()
        if self.leads:
            self._wait_for_leaving(_LEAVING)
            time.sleep(_CLOSING)
        self._close()

    def abandon(self) -> None:
        def leave() -> None:
            with contextlib.suppress(ClusterError):
                self._heartbeats.left()

        if not self._left:
            # The service may be gone, and there is little time.
            thread = threading.Thread(target=leave, daemon=True)
            thread.start()
            thread.join(_ABANDONING)

    def _wait_for_leaving(self, seconds: float) -> None:
        """Wait until the others have left: the service ends with this process."""
        for mark in self._marks:
            mark.unlink(missing_ok=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._heartbeats.look()
            if not self._heartbeats.alive():
                return
            time.sleep(_FIRST_PAUSE)

    def _states(self, name: str = "") -> dict[str, dict[str, str]]:
        """The state of each unit of a list by number, or of all by name: processes by attempt, and the note if done."""
        found: dict[str, dict[str, str]] = {}
        for key, value in self._board.under("/".join(filter(None, ("units", name)))).items():
            unit, _, attempt = key.rpartition("/")
            found.setdefault(unit, {})[attempt] = value
        return found

    def _free(self, state: Mapping[str, str]) -> int | None:
        """The next attempt at a unit; None if it is running or done."""
        if "done" in state:
            return None
        attempts = sorted(map(int, state))
        if not attempts:
            return 0
        return attempts[-1] + 1 if state[str(attempts[-1])] in self._heartbeats.lost else None

    def _poll(self, read: Callable[[], T | None], longest: float = _LONGEST_PAUSE) -> T:
        """The first result that is not None, with growing pauses."""
        pause = _FIRST_PAUSE
        while (found := read()) is None:
            self._pause(pause)
            pause = min(2 * pause, longest)
        return found

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
        self._check()

    def _check(self) -> None:
        """Raise ``InputError`` if another process failed."""
        if self._heartbeats.failed is not None:
            raise InputError(self._heartbeats.failed)


PATIENCE = 100
"""Seconds without a heartbeat after which a process counts as dead, as in JAX."""

_JOINING = 300  # seconds in which all processes have to join

_MAX_REJOINS = 3  # of one process with the same process 0; after these, process 0 is not the cause


def join(
    coordinator: str | None = None,
    *,
    processes: int | None = None,
    process: int | None = None,
    patience: int = PATIENCE,
) -> Cluster:
    """Join the other processes of a job, before JAX is used; all of them have to join within five minutes.

    A process that was lost may join again.

    Args:
        coordinator: HOST:PORT of process 0; default: JAX_COORDINATOR_ADDRESS, or as JAX detects it under SLURM, Open
            MPI, Kubernetes and on Cloud TPU.
        processes: Number of processes; default: as JAX detects it.
        process: Index of this process, from 0; default: as JAX detects it.
        patience: Seconds without a heartbeat after which a process counts as dead.

    Raises:
        InputError: An argument is wrong, or not all processes joined.
        ClusterError: Process 0 did not come back.
    """
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise InputError(f"coordinator must be HOST:PORT, got {coordinator!r}")
    if processes is not None and processes < 1:
        raise InputError(f"processes must be at least 1, got {processes}")
    if process is not None and not 0 <= process < (processes or process + 1):
        raise InputError(f"process must be from 0 to processes - 1, got {process} of {processes}; count from 0")
    if patience < 1:
        raise InputError(f"patience must be at least 1 second, got {patience}")
    again = AGAIN in os.environ
    wait: dict[str, Any] = {"initialization_timeout": min(patience, _JOINING) if again else _JOINING}
    try:
        with _jax_settings():
            jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=patience, **wait)
    except (ValueError, RuntimeError, OSError) as error:
        why = str(error).splitlines()[0]
        if again:
            raise ClusterError(f"process 0 did not come back ({why})") from None
        raise InputError(
            f"cannot join the other processes ({why}); start all of them, and if JAX does not detect the cluster, give"
            " --coordinator HOST:PORT, --processes and --process"
        ) from None
    joined()
    board, own, count = Service(), jax.process_index(), jax.process_count()
    if again and board.add(f"again/{os.environ[AGAIN]}", 1) > _MAX_REJOINS:
        raise ClusterError(f"process {own} was aborted {_MAX_REJOINS} times though process 0 is alive")
    return Cluster(board, own, count, patience=patience, close=jax.distributed.shutdown)


@contextlib.contextmanager
def _jax_settings() -> Iterator[None]:
    """While the block runs, JAX installs no handler of SIGTERM, and a dead process does not end the others."""
    main = threading.current_thread() is threading.main_thread()
    settings = {"jax_enable_preemption_service": False, "jax_enable_recoverability": True}
    before = {name: getattr(jax.config, name) for name in settings if hasattr(jax.config, name)}
    handler = signal.getsignal(signal.SIGTERM)
    for name in before:
        jax.config.update(name, settings[name])
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)  # a version of JAX may lack the option
