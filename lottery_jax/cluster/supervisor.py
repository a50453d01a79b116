"""A process that shares a job runs under a supervisor, for JAX's runtime aborts it where another one dies.

An abort leaves a stack trace and no time for a sentence. The supervisor is the same program with nothing loaded: it
starts the worker, hands signals on, and says in words how the worker ended. Neither outlives the other.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from lottery_jax.errors import ClusterError

OPTIONS = ("distributed", "coordinator", "processes", "process")
"""Options of a command that say that other processes take part."""
_PIPE = "LOTTERY_JAX_SUPERVISOR"


def supervise(arguments: Sequence[str]) -> int:
    """Run the command line in a worker; returns its exit code, 3 where another process's death has ended it, and
    128 + n where signal n has ended this one."""
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
    read, write = os.pipe()
    try:
        worker = subprocess.Popen(
            [sys.executable, "-m", "lottery_jax", *arguments],
            env={**os.environ, _PIPE: str(read)},
            pass_fds=(read,),
            start_new_session=True,  # a signal comes once, from here
        )
        if given:
            hand_on(given.pop(), None)
        os.close(read)
        code = worker.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)
    if given and (code < 0 or code in (3, *_TOLD)):  # the others of the job, stopped a moment before, are no loss
        if code not in _TOLD:
            print(f"lottery-jax: {ClusterError(f'stopped by {signal.Signals(given[0]).name}')}", file=sys.stderr)
        return 128 + given[0]
    if code >= 0:
        return code
    if code == -signal.SIGABRT:
        why, code = "another process of this job died (JAX says above how it learned of it)", 3
    else:
        why, code = f"this process was ended by {signal.Signals(-code).name}", 128 - code
    print(f"lottery-jax: {ClusterError(why)}", file=sys.stderr)
    return code


_HANDED_ON = (signal.SIGINT, signal.SIGTERM)
_GRACE = 4.0  # seconds that a worker has to end after a signal, before it is killed
_TOLD = tuple(128 + number for number in _HANDED_ON)  # exit codes of a worker that has said what is kept


def follow() -> bool:
    """True in a worker, which from here on dies with its supervisor."""
    handle = os.environ.pop(_PIPE, None)
    if handle is None:
        return False

    def watch() -> None:
        os.read(int(handle), 1)  # returns when the other end is closed, by whatever death
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return True
