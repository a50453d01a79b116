"""The mesh of devices that search, the sharding of problems over it, and two reductions over a batch.

The mesh has one axis over the devices of this process. Every device searches its own problems without communication,
so each host of a cluster uses its own mesh.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "problems"


def local_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh [problems] over ``devices``; by default ``jax.default_device``, else all devices of this process.

    >>> local_mesh().axis_names
    ('problems',)
    """
    # Not `jax.devices()`, which on a cluster includes the devices of other hosts.
    if devices is None:
        chosen: Any = jax.config.jax_default_device  # type: ignore[attr-defined] - a device, the name of a platform, or None
        devices = [chosen] if isinstance(chosen, jax.Device) else jax.local_devices(backend=chosen)
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def is_single_cpu(mesh: Mesh) -> bool:
    """True if the host CPU is the only device, which reads NumPy arrays without a copy."""
    return mesh.size == 1 and mesh.devices[0].platform == "cpu"


def problem_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split into one contiguous part for each device."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def is_split(array: Any, mesh: Mesh) -> bool:
    """True for a JAX array with ``problem_sharding`` over several devices."""
    return (
        isinstance(array, jax.Array)
        and mesh.size > 1
        and array.shape[0] % mesh.size == 0
        and array.sharding.is_equivalent_to(problem_sharding(mesh), array.ndim)
    )


def all_finite(values: Any, width: int, count: int) -> bool:
    """True if the first ``count`` rows of ``width`` numbers hold no NaN and no infinity.

    >>> all_finite(np.array([[1.0, 2.0], [3.0, np.nan]]), 2, 1)
    True
    """
    return bool(_reduce(_finite, values, width, count).all())


def largest_sum(values: Any, width: int, count: int) -> float:
    """The largest sum of absolute values of one of the first ``count`` rows of ``width`` numbers; 0 without rows.

    That of integers is rounded to float32 on a device.
    """
    return float(_reduce(_sum, values, width, count).max())


def _finite(xp: Any, rows: Any) -> Any:
    return xp.isfinite(rows).all()


def _sum(xp: Any, rows: Any) -> Any:
    if rows.dtype.kind in "iu":
        rows = rows.astype(np.float64 if xp is np else np.float32)  # sums of integers could overflow
    return xp.abs(rows).sum(-1).max(initial=0)


def _reduce(reduction: Callable[..., Any], values: Any, width: int, count: int) -> np.ndarray:
    """The reduction of each device's rows, computed where they are; the caller combines the parts."""
    if not isinstance(values, jax.Array):
        return np.asarray(reduction(np, values.reshape(-1, width)[:count]))
    mesh = values.sharding.mesh if isinstance(values.sharding, NamedSharding) else None
    if not (isinstance(mesh, Mesh) and mesh.axis_names == (AXIS,) and is_split(values, mesh)):
        mesh = None
    return jax.device_get(_reduce_on_devices(reduction, mesh, values, width, np.int32(count)))


@functools.partial(jax.jit, static_argnames=("reduction", "mesh", "width"))
def _reduce_on_devices(reduction: Callable[..., Any], mesh: Mesh | None, values: Any, width: int, count: Any) -> Any:
    def one_device(part: jax.Array, count: jax.Array) -> jax.Array:
        rows = part.reshape(-1, width)
        first = jax.lax.axis_index(AXIS) * len(rows) if mesh else 0
        # A mask instead of a slice, so that every count uses one compiled program.
        included = first + jnp.arange(len(rows), dtype=jnp.int32) < count
        return reduction(jnp, jnp.where(included[:, None], rows, 0))[None]

    if mesh is None:
        return one_device(values, count)
    # One result for each device: XLA would otherwise communicate for a single number.
    own, every = PartitionSpec(AXIS), PartitionSpec()
    return jax.shard_map(one_device, mesh=mesh, in_specs=(own, every), out_specs=own, check_vma=False)(values, count)
