"""A process that shares a job runs under a supervisor, because JAX's runtime aborts it when process 0 dies.

The supervisor is the same program with nothing loaded. It starts the worker, forwards signals, restarts the worker if
process 0 may come back, and reports how it ended. Neither process outlives the other.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from lottery_jax.errors import ClusterError

OPTIONS = ("distributed", "coordinator", "processes", "process")
"""Options of a job with several processes."""

AGAIN = "LOTTERY_JAX_JOIN_AGAIN"
"""Variable of a restarted worker, which waits for process 0 to come back; the value names its supervisor."""

_SOCKET = "LOTTERY_JAX_SUPERVISOR"
"""Variable with the file descriptor of the worker's socket to its supervisor."""

_JOINED = b"joined"

_to_supervisor: socket.socket | None = None


def shares(words: Sequence[str]) -> bool:
    """Whether a command has one of `OPTIONS`; checked before it is parsed, which takes longer.

    >>> shares(["compare", "--process=0"]), shares(["compare", "--seeds", "0"])
    (True, False)
    """
    return any(word.partition("=")[0] in {f"--{name}" for name in OPTIONS} for word in words)


def supervise(command: Sequence[str]) -> int:
    """Run a command in a worker.

    Returns:
        Its exit code; 3 if process 0 was lost, and 128 + n after signal n.
    """
    received: list[int] = []
    worker: subprocess.Popen | None = None

    def forward(number: int, _: object) -> None:
        received.append(number)
        if worker is not None:
            worker.terminate()  # SIGTERM for both: it ends a starting Python without a stack trace
            if len(received) == 1:
                # A process that is stopped or inside a driver's call does not react.
                killer = threading.Timer(_GRACE, worker.kill)
                killer.daemon = True
                killer.start()

    handled = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in handled}
    # Errors of JAX's runtime only, not its notes.
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    own, other = socket.socketpair()
    own.setblocking(False)
    joined = False
    try:
        while True:
            worker = subprocess.Popen(
                command,
                env={**environment, _SOCKET: str(other.fileno())},
                pass_fds=(other.fileno(),),
                start_new_session=True,  # signals come from the supervisor only
            )
            if received:
                forward(received.pop(), None)
            code = worker.wait()
            with contextlib.suppress(BlockingIOError):
                joined = own.recv(len(_JOINED)) == _JOINED
            if code != -signal.SIGABRT or received or not joined:
                break
            print(
                "lottery-jax: process 0 is lost (see JAX's message above); waiting for it to come back", file=sys.stderr
            )
            environment[AGAIN], joined = f"{socket.gethostname()}-{os.getpid()}", False
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        own.close()
        other.close()
    if received and (code < 0 or code in (3, *_SIGNAL_CODES)):  # code 3: other processes were stopped a moment before
        if code not in _SIGNAL_CODES:
            print(f"lottery-jax: {ClusterError(f'stopped by {signal.Signals(received[0]).name}')}", file=sys.stderr)
        return 128 + received[0]
    if code >= 0:
        return code
    if code == -signal.SIGABRT:
        lost = "process 0 did not come back" if AGAIN in environment else "not all processes joined"
        why, code = f"{lost} (see JAX's message above)", 3
    else:
        why, code = f"this process was ended by {signal.Signals(-code).name}", 128 - code
    print(f"lottery-jax: {ClusterError(why)}", file=sys.stderr)
    return code


_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_GRACE = 4.0  # seconds that a worker has to end after a signal, before it is killed

_SIGNAL_CODES = tuple(128 + number for number in _SIGNALS)  # exit codes of a worker that has reported what is kept


def follow() -> bool:
    """True in a worker, which from now on ends with its supervisor."""
    global _to_supervisor
    descriptor = os.environ.pop(_SOCKET, None)
    if descriptor is None:
        return False
    _to_supervisor = connection = socket.socket(fileno=int(descriptor))

    def watch() -> None:
        with contextlib.suppress(OSError):  # the connection is reset if the supervisor had unread bytes
            connection.recv(1)  # returns when the other end is closed
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return True


def joined() -> None:
    """Tell the supervisor that all processes joined: an abort from now on means that process 0 is lost."""
    if _to_supervisor is not None:
        _to_supervisor.send(_JOINED)
