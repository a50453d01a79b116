"""A process that shares a job runs under a supervisor, because JAX's runtime aborts it when process 0 dies.

An abort leaves a stack trace and no time for a sentence. The supervisor is the same program with nothing loaded: it
starts the worker, hands signals on, starts it again where process 0 may come back, and says in words how it ended.
Neither outlives the other.
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
"""Options that say that other processes take part."""

AGAIN = "LOTTERY_JAX_JOIN_AGAIN"
"""Set in a worker that follows one which the loss of process 0 has ended, and waits for that to come back; a name of
its supervisor."""

_LINE = "LOTTERY_JAX_SUPERVISOR"

_JOINED = b"joined"

_line: socket.socket | None = None


def shares(words: Sequence[str]) -> bool:
    """Whether a command's words have one of `OPTIONS`; asked before anything is parsed, which takes longer.

    >>> shares(["compare", "--process=0"]), shares(["compare", "--seeds", "0"])
    (True, False)
    """
    return any(word.partition("=")[0] in {f"--{name}" for name in OPTIONS} for word in words)


def supervise(command: Sequence[str]) -> int:
    """Run a command in a worker; returns its exit code, 3 where the loss of process 0 has ended it, and 128 + n where
    signal n has ended this process."""
    given: list[int] = []
    worker: subprocess.Popen | None = None

    def hand_on(number: int, _: object) -> None:
        given.append(number)
        if worker is not None:
            worker.terminate()  # whichever was given: only of this one a starting Python ends without a trace
            if len(given) == 1:
                # A process that does not hear it, stopped or in a driver's call, must not outlive a cluster's patience.
                reaper = threading.Timer(_GRACE, worker.kill)
                reaper.daemon = True
                reaper.start()

    heard = [number for number in _HANDED_ON if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, hand_on) for number in heard}
    # One line of JAX's runtime on how it was set up is none of a user's business; its errors are.
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    own, other = socket.socketpair()
    own.setblocking(False)
    joined = False
    try:
        while True:
            worker = subprocess.Popen(
                command,
                env={**environment, _LINE: str(other.fileno())},
                pass_fds=(other.fileno(),),
                start_new_session=True,  # a signal comes once, from here
            )
            if given:
                hand_on(given.pop(), None)
            code = worker.wait()
            with contextlib.suppress(BlockingIOError):
                joined = own.recv(len(_JOINED)) == _JOINED
            if code != -signal.SIGABRT or given or not joined:
                break
            print("lottery-jax: process 0 is lost, as JAX says above; waiting for it to come back", file=sys.stderr)
            environment[AGAIN], joined = f"{socket.gethostname()}-{os.getpid()}", False
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        own.close()
        other.close()
    if given and (code < 0 or code in (3, *_TOLD)):  # the others of the job, stopped a moment before, are no loss
        if code not in _TOLD:
            print(f"lottery-jax: {ClusterError(f'stopped by {signal.Signals(given[0]).name}')}", file=sys.stderr)
        return 128 + given[0]
    if code >= 0:
        return code
    if code == -signal.SIGABRT:
        lost = "process 0 did not come back" if AGAIN in environment else "not all processes have come"
        why, code = f"{lost} (JAX says above how it learned of it)", 3
    else:
        why, code = f"this process was ended by {signal.Signals(-code).name}", 128 - code
    print(f"lottery-jax: {ClusterError(why)}", file=sys.stderr)
    return code


_HANDED_ON = (signal.SIGINT, signal.SIGTERM)

_GRACE = 4.0  # seconds that a worker has to end after a signal, before it is killed

_TOLD = tuple(128 + number for number in _HANDED_ON)  # exit codes of a worker that has said what is kept


def follow() -> bool:
    """True in a worker, which from here on dies with its supervisor."""
    global _line
    handle = os.environ.pop(_LINE, None)
    if handle is None:
        return False
    _line = line = socket.socket(fileno=int(handle))

    def watch() -> None:
        with contextlib.suppress(OSError):  # reset, where it had not read all
            line.recv(1)  # returns when the other end is closed, by whatever death
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return True


def joined() -> None:
    """Tell the supervisor that the processes have met: what ends this one now is the loss of process 0."""
    if _line is not None:
        _line.send(_JOINED)
