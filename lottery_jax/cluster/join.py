"""The processes of one job, on one host or many: who they are, and where they wait for each other.

JAX's distributed runtime brings them together and watches over them: where one dies, it ends all the others. Nothing
but this is exchanged through it; work and results meet in a folder that all can see.
"""

import contextlib
import dataclasses
import datetime
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax

from lottery_jax.errors import ClusterError, InputError

PATIENCE = 100
"""Seconds without a sign of life after which a process counts as dead: JAX's own default."""
KNOWN_JAX = ("0.10", "0.11", "0.12")
"""Versions of JAX whose distributed runtime is known to have what `Cluster.wait` needs."""
_BARRIER = datetime.timedelta(days=365)  # a dead process ends the wait, a slow one must not


@dataclasses.dataclass(frozen=True)
class Cluster:
    """This process's number, from 0, and how many there are; made by `join`, or as it is for a process alone.

    >>> Cluster().processes
    1
    """

    process: int = 0
    processes: int = 1

    def wait(self, name: str) -> None:
        """Go on when every process is here; raises `ClusterError` where one will never be."""
        if self.processes == 1:
            return
        try:
            _runtime().wait_at_barrier(f"lottery_jax {name}", int(_BARRIER.total_seconds() * 1000))
        except jax.errors.JaxRuntimeError as error:
            raise _lost(error) from None

    def leave(self) -> None:
        """Part in peace: from here on no process is missed."""
        if self.processes > 1:
            try:
                jax.distributed.shutdown()
            except jax.errors.JaxRuntimeError as error:
                raise _lost(error) from None


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
    JAX_COORDINATOR_ADDRESS. patience: seconds without a sign of life after which a process counts as dead.
    """
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise InputError(f"the coordinator must be HOST:PORT, not {coordinator!r}")
    if processes is not None and processes < 1:
        raise InputError(f"a job has at least 1 process, not {processes}")
    if process is not None and not 0 <= process < (processes or process + 1):
        raise InputError(f"process {process} of {processes} does not exist; count from 0")
    if patience < 1:
        raise InputError(f"patience must be at least 1 second, not {patience}")
    try:
        with _signals_kept():
            jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=patience)
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"cannot join the other processes ({str(error).splitlines()[0]}); start all of them, and where JAX does not"
            " know the cluster name --coordinator HOST:PORT, --processes and --process"
        ) from None
    return Cluster(jax.process_index(), jax.process_count())


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """JAX's preemption notifier takes SIGTERM for itself, notes it, and works on; here it goes on meaning the end."""
    notifier, main = "jax_enable_preemption_service", threading.current_thread() is threading.main_thread()
    wanted, handler = getattr(jax.config, notifier, None), signal.getsignal(signal.SIGTERM)
    if wanted is not None:
        jax.config.update(notifier, False)
    try:
        yield
    finally:
        if wanted is not None:
            jax.config.update(notifier, wanted)
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)  # taken back where a version of JAX has no such option


def _runtime() -> Any:
    """The client of JAX's distributed runtime: the one private name of JAX here, known to be there in `KNOWN_JAX`.

    Its own barrier, because the public one in jax.experimental.multihost_utils needs a program on all devices.
    """
    try:
        from jax._src.distributed import global_state

        client = global_state.client
        assert hasattr(client, "wait_at_barrier")
    except (ImportError, AttributeError, AssertionError):
        known = ", ".join(KNOWN_JAX)
        raise InputError(
            f"processes cannot meet with JAX {jax.__version__}; install one of {known}, or run one process"
        ) from None
    return client


def _lost(error: Exception) -> ClusterError:
    return ClusterError(f"another process of this job died or cannot be reached ({str(error).splitlines()[0]})")
