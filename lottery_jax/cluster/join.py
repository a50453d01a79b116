"""How the processes of one job find each other, on one host or many: JAX's distributed runtime brings them together."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax

from lottery_jax.cluster.cluster import Cluster
from lottery_jax.cluster.service import Service
from lottery_jax.cluster.supervisor import AGAIN, joined
from lottery_jax.errors import ClusterError, InputError

PATIENCE = 100
"""Seconds without a sign of life after which a process counts as dead: JAX's own default."""
_FIRST = 300  # seconds in which all have to come
_MOST_AGAIN = 3  # times that a process comes again to the same process 0: not that one is to blame


def join(
    coordinator: str | None = None,
    *,
    processes: int | None = None,
    process: int | None = None,
    patience: int = PATIENCE,
) -> Cluster:
    """Meet the other processes before JAX is used; all have to come within five minutes.

    coordinator: HOST:PORT where process 0 listens; `processes` and `process` are how many there are and which this is.
    What is left out is found by JAX under SLURM, Open MPI, Kubernetes and on Cloud TPU, the address also in
    JAX_COORDINATOR_ADDRESS. patience: seconds without a sign of life after which a process counts as dead. One that was
    lost may come again.
    """
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise InputError(f"the coordinator must be HOST:PORT, not {coordinator!r}")
    if processes is not None and processes < 1:
        raise InputError(f"a job has at least 1 process, not {processes}")
    if process is not None and not 0 <= process < (processes or process + 1):
        raise InputError(f"process {process} of {processes} does not exist; count from 0")
    if patience < 1:
        raise InputError(f"patience must be at least 1 second, not {patience}")
    again = AGAIN in os.environ
    wait: dict[str, Any] = {"initialization_timeout": min(patience, _FIRST) if again else _FIRST}
    try:
        with _own_ways():
            jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=patience, **wait)
    except (ValueError, RuntimeError, OSError) as error:
        why = str(error).splitlines()[0]
        if again:
            raise ClusterError(f"process 0 did not come back ({why})") from None
        raise InputError(
            f"cannot join the other processes ({why}); start all of them, and where JAX does not"
            " know the cluster name --coordinator HOST:PORT, --processes and --process"
        ) from None
    joined()
    board, own, count = Service(), jax.process_index(), jax.process_count()
    if again and board.add(f"again/{os.environ[AGAIN]}", 1) > _MOST_AGAIN:
        raise ClusterError(f"process {own} was aborted {_MOST_AGAIN} times though process 0 is there")
    return Cluster(board, own, count, patience=patience, close=jax.distributed.shutdown)


@contextlib.contextmanager
def _own_ways() -> Iterator[None]:
    """What JAX would do otherwise: its preemption notifier takes SIGTERM for itself, notes it, and works on; and where
    one process dies it ends all the others."""
    main = threading.current_thread() is threading.main_thread()
    wanted = {"jax_enable_preemption_service": False, "jax_enable_recoverability": True}
    before = {name: getattr(jax.config, name) for name in wanted if hasattr(jax.config, name)}
    handler = signal.getsignal(signal.SIGTERM)
    for name in before:
        jax.config.update(name, wanted[name])
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)  # taken back where a version of JAX has no such option
