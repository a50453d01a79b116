"""Clusters of Dask, local or running, and the set-up of their workers. Only this file imports Dask."""

import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from lottery_jax.errors import ClusterError, InputError

try:
    import dask.config
    from distributed import Client, LocalCluster, WorkerPlugin
    from distributed.utils import silence_logging_cmgr
except ImportError:
    raise InputError("Dask is not installed; install lottery_jax[cluster], or omit the workers") from None

_CONNECT_SECONDS = 30
_RESTARTS = 100  # of workers that a unit may lose before the job ends

_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()
"""Clients whose workers are set up."""


@contextlib.contextmanager
def local_cluster(workers: int) -> Iterator[Client]:
    """A client of a cluster of `workers` processes on this host, which split its cores and GPUs.

    Raises:
        InputError: `workers` is not positive.
    """
    if workers < 1:
        raise InputError(f"workers must be 1 or more, got {workers}; omit it for a single process")
    with contextlib.ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr(_log_level()))
        with warnings.catch_warnings(), _deaf_processes():
            # If another process has the port of the dashboard.
            warnings.filterwarnings("ignore", "Port .* is already in use")
            warnings.simplefilter("ignore", ResourceWarning)
            with dask.config.set({"distributed.scheduler.allowed-failures": _RESTARTS}):
                try:
                    cluster = stack.enter_context(
                        LocalCluster(
                            n_workers=workers,
                            threads_per_worker=1,
                            memory_limit=0,  # a limit would stop and kill workers of large targets
                            dashboard_address="127.0.0.1:8787",
                            silence_logs=_log_level(),
                        )
                    )
                except RuntimeError as error:
                    raise ClusterError(f"the workers do not start ({error})") from None
        client = stack.enter_context(Client(cluster))
        if gpus := _gpus():
            # A process that reserves most of a GPU's memory leaves none for this process, or for a second worker.
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            _register(client, _OneGpu(gpus))
        client.run(_import_in_background, on_error="ignore")  # while this process reads its inputs
        yield client


@contextlib.contextmanager
def running_cluster(scheduler: str | Path) -> Iterator[Client]:
    """A client of a running scheduler: its address, such as tcp://host:8786, or the scheduler file that it wrote.

    Raises:
        InputError: The scheduler cannot be reached.
    """
    where: dict[str, Any] = {"address": scheduler}
    if isinstance(scheduler, Path):
        if not scheduler.is_file():
            raise InputError(
                f"scheduler_file must be a file that a scheduler wrote, got {str(scheduler)!r}; start one with dask"
                f" scheduler --scheduler-file {scheduler}"
            )
        where = {"scheduler_file": str(scheduler)}
    with silence_logging_cmgr(_log_level()):
        try:
            client = Client(**where, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"scheduler must be a running Dask scheduler, got {str(scheduler)!r} ({error}); start one with dask"
                " scheduler, and workers with dask worker"
            ) from None
        with client:
            yield client


@contextlib.contextmanager
def _deaf_processes() -> Iterator[None]:
    """Processes started in the block, or by threads started in it, end with this process and leave the words to it."""
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")  # which frees what a kill leaves
    try:
        resource_tracker.ensure_running()  # it would unblock the signal
        # A terminal sends Ctrl-C to all processes; one that imports Dask would print a stack trace.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        sys.warnoptions.pop()


def set_up_workers(client: Client) -> None:
    """Set up the workers of a client, those that join later included.

    Workers that share the cores of a host split them, so that the threads of XLA and Numba do not compete. If this
    process keeps compiled programs in the cache, the workers do so, too.
    """
    import jax

    if client in _CLIENTS:  # a second time, the workers would have different cores
        return
    found: Any = client.run(_cores, os.getpid(), on_error="ignore")  # a worker may die at any time
    groups = defaultdict(list)
    for address, cores in sorted(found.items()):
        groups[address.rpartition(":")[0], cores].append(address)
    names = {address: worker["name"] for address, worker in client.scheduler_info(n_workers=-1)["workers"].items()}
    cores_of = {}
    for (_, cores), addresses in groups.items():
        for index, address in enumerate(addresses):
            if len(addresses) > 1 and address in names:
                cores_of[names[address]] = split_cores(cores, len(addresses), index)
    _register(client, _SetUp(cores_of, cache=jax.config.jax_compilation_cache_dir is not None))  # type: ignore[attr-defined]
    _CLIENTS.add(client)


def _register(client: Client, plugin: WorkerPlugin) -> None:
    """Register a plugin on all workers; those that end meanwhile are replaced by workers that have it."""
    for attempt in range(_RESTARTS):
        try:
            client.register_plugin(plugin)
            return
        except OSError:
            if client.status != "running" or attempt == _RESTARTS - 1:
                raise
            time.sleep(0.1)


def split_cores(cores: Sequence[int], workers: int, index: int) -> tuple[int, ...]:
    """The cores of one of several workers of a host; at least one.

    >>> split_cores((0, 1, 2, 3, 4), 2, 0), split_cores((0, 1, 2, 3, 4), 2, 1), split_cores((0, 1), 3, 2)
    ((0, 1), (2, 3, 4), (0,))
    """
    own = cores[index * len(cores) // workers : (index + 1) * len(cores) // workers]
    return tuple(own) if len(cores) >= workers else (cores[index % len(cores)],)


def _cores(client: int) -> tuple[int, ...]:
    """The cores of a worker; none if it is a thread of the client, which must keep its own."""
    return () if os.getpid() == client else tuple(sorted(os.sched_getaffinity(0)))


class _SetUp(WorkerPlugin):
    name = "lottery_jax"

    def __init__(self, cores_of: Mapping[Any, tuple[int, ...]], *, cache: bool) -> None:
        self.cores_of, self.cache = dict(cores_of), cache

    def setup(self, worker: Any) -> None:
        for thread in _IMPORTS:
            thread.join()
        import jax

        from lottery_jax import environment
        from lottery_jax.io.cache import enable_compile_cache

        if self.cache:
            enable_compile_cache()
        environment.set_units_per_process(worker.state.nthreads)
        # JAX compiles for all cores, as a single process does: sums in another order have other last digits. Then all
        # threads get the cores of the worker, and later threads inherit them.
        jax.local_devices()
        if cores := self.cores_of.get(worker.name):
            for thread in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):  # it has ended
                    os.sched_setaffinity(int(thread.name), cores)


class _OneGpu(WorkerPlugin):
    name = "lottery_jax_gpu"

    def __init__(self, gpus: Sequence[str]) -> None:
        self.gpus = tuple(gpus)

    def setup(self, worker: Any) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[worker.name % len(self.gpus)]
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _import_in_background() -> None:
    thread = threading.Thread(target=importlib.import_module, args=("lottery_jax.comparison.runner",), daemon=True)
    thread.start()
    _IMPORTS.append(thread)


_IMPORTS: list[threading.Thread] = []
"""Threads of a worker that import. Another thread that imports the same modules meanwhile may find half of one."""


def _gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, without starting JAX."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip()]
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def _log_level() -> int:
    """The level of Dask's own log: silent, unless its configuration or DASK_LOGGING__DISTRIBUTED sets one."""
    asked = dask.config.get("logging", {})
    return logging.CRITICAL + 1 if not asked else logging.NOTSET
