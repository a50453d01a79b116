"""How many processor cores there are for this process.

What a number was measured with: the device and the versions that may have changed it.
"""

import importlib.metadata
import os
import platform

import jax


def cores() -> int:
    """Cores that this process may use: in a container, or as one of many on a host, not all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


PACKAGES = ("lottery_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on.

    >>> sorted(versions())[:3]
    ['flax', 'jax', 'jaxlib']
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a folder that was never installed
            continue
    return found


def version_facts() -> dict[str, str]:
    """The versions that processes of one job must have in common, by what they are."""
    return {f"version of {name}": found for name, found in versions().items() if name != "python"}


def device() -> str:
    """The default device in words, for example "cpu x86_64, 2 cores" or "NVIDIA H200"."""
    first = jax.local_devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    return f"cpu {platform.machine()}, {cores()} cores"
