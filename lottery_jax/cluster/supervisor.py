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
    """Run the command line in a worker; returns its exit code, 3 where another process's death has ended it."""
    read, write = os.pipe()
    worker = subprocess.Popen(
        [sys.executable, "-m", "lottery_jax", *arguments],
        env={**os.environ, _PIPE: str(read)},
        pass_fds=(read,),
        start_new_session=True,  # a signal comes once, from here
    )
    os.close(read)
    before = {number: signal.signal(number, lambda given, _: worker.send_signal(given)) for number in _HANDED_ON}
    try:
        code = worker.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)
    if code >= 0:
        return code
    if code == -signal.SIGABRT:
        why, code = "another process of this job died (JAX says above how it learned of it)", 3
    else:
        why, code = f"this process was ended by {signal.Signals(-code).name}", 128 - code
    print(f"lottery-jax: {ClusterError(why)}", file=sys.stderr)
    return code


_HANDED_ON = (signal.SIGINT, signal.SIGTERM)


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
