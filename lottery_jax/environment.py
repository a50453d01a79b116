"""The machine and software that a result was measured with: cores, device, package versions."""

import importlib.metadata
import os
import platform
import socket

import jax


def _usable_cores() -> int:
    """Number of cores that this process may use; a container has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_CORES = _usable_cores()  # before workers of one host split them: they compile for all


def cores() -> int:
    """Number of cores for a unit of work of this process."""
    return max(1, _usable_cores() // _units_per_process)


_units_per_process = 1


def set_units_per_process(units: int) -> None:
    """Set the number of units of work that this process runs at the same time, and that split its cores."""
    global _units_per_process
    _units_per_process = units
    if units > 1:
        os.environ["NUMBA_NUM_THREADS"] = str(cores())  # Numba is not imported yet


PACKAGES = ("lottery_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results.

    >>> sorted(versions())[:3]
    ['flax', 'jax', 'jaxlib']
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a folder without installation
            continue
    return found


def version_facts() -> dict[str, str]:
    """The versions that all processes of one job must share."""
    return {f"version of {name}": found for name, found in versions().items() if name != "python"}


def devices() -> str:
    """Number and kind of the devices of this process; the number of runs that share a step depends on them."""
    first = jax.local_devices()[0]
    return f"{jax.local_device_count()} {first.platform} {first.device_kind}"


def host() -> str:
    """The name of this host, as the cluster knows it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def device() -> str:
    """The default device, such as "cpu x86_64, 2 cores" or "NVIDIA H200"."""
    first = jax.local_devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    return f"cpu {platform.machine()}, {_CORES} cores"
