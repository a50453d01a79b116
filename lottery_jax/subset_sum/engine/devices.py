"""Which devices search, and how a batch of problems lies on them.

A mesh of one axis over the devices of this process: every device searches problems of its own and none of them ever
waits for another, so a host of a cluster needs no more than its own mesh.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "problems"


def local_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh [problems] over `devices`: if left out, the one of `jax.default_device`, else all of this process.

    >>> local_mesh().axis_names
    ('problems',)
    """
    # Not `jax.devices()`: on a cluster that names every host's, and a search is no business of the others.
    if devices is None:
        chosen: Any = jax.config.jax_default_device  # type: ignore[attr-defined] - a device, the name of a platform, or None
        devices = [chosen] if isinstance(chosen, jax.Device) else jax.local_devices(backend=chosen)
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def is_lone_cpu(mesh: Mesh) -> bool:
    """True where the host's own memory and cores are the only device: NumPy arrays are read where they are."""
    return mesh.size == 1 and mesh.devices[0].platform == "cpu"


def over_problems(mesh: Mesh) -> NamedSharding:
    """The first axis split into one contiguous part for each device."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def on_every_device(mesh: Mesh) -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def is_split(array: Any, mesh: Mesh) -> bool:
    """True for a JAX array that already lies over the mesh as `over_problems` has it."""
    return (
        isinstance(array, jax.Array)
        and mesh.size > 1
        and array.shape[0] % mesh.size == 0
        and array.sharding.is_equivalent_to(over_problems(mesh), array.ndim)
    )
