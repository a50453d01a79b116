"""The machine and software that a result was measured with: cores, device, package versions."""

import importlib.metadata
import os
import platform

import jax


def cores() -> int:
    """Number of cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def device() -> str:
    """The default device, such as "cpu x86_64, 2 cores" or "NVIDIA H200"."""
    first = jax.local_devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    return f"cpu {platform.machine()}, {cores()} cores"
