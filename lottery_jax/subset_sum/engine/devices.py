"""Which devices search, and how a batch of problems lies on them.

A mesh of one axis over the devices of this process: every device searches problems of its own and none of them ever
waits for another, so a host of a cluster needs no more than its own mesh.

Two questions about a batch before it is solved, answered where it lies: only the answers come to the host.
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
    """The mesh [problems] over `devices`: if left out, the one of `jax.default_device`, else all of this process.

    >>> local_mesh().axis_names
    ('problems',)
    """
    # Not `jax.devices()`: on a cluster that names every host's, and a search is no business of the others.
    if devices is None:
        chosen: Any = jax.config.jax_default_device  # type: ignore[attr-defined] - a device, the name of a platform, or None
        devices = [chosen] if isinstance(chosen, jax.Device) else jax.local_devices(backend=chosen)
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def is_single_cpu(mesh: Mesh) -> bool:
    """True where the host's own memory and cores are the only device: NumPy arrays are read where they are."""
    return mesh.size == 1 and mesh.devices[0].platform == "cpu"


def problem_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split into one contiguous part for each device."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def on_every_device(mesh: Mesh) -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def is_split(array: Any, mesh: Mesh) -> bool:
    """True for a JAX array that already lies over the mesh as `problem_sharding` has it."""
    return (
        isinstance(array, jax.Array)
        and mesh.size > 1
        and array.shape[0] % mesh.size == 0
        and array.sharding.is_equivalent_to(problem_sharding(mesh), array.ndim)
    )


def all_finite(values: Any, width: int, count: int) -> bool:
    """True where the first `count` rows of `width` numbers hold no NaN and no infinity.

    >>> all_finite(np.array([[1.0, 2.0], [3.0, np.nan]]), 2, 1)
    True
    """
    return bool(_ask(_finite, values, width, count).all())


def largest_sum(values: Any, width: int, count: int) -> float:
    """The largest sum of the absolute values of one of the first `count` rows of `width` numbers; 0 without rows."""
    return float(_ask(_sum, values, width, count).max())


def _finite(xp: Any, rows: Any) -> Any:
    return xp.isfinite(rows).all()


def _sum(xp: Any, rows: Any) -> Any:
    return xp.abs(rows).sum(-1).max(initial=0)


def _ask(question: Callable[..., Any], values: Any, width: int, count: int) -> np.ndarray:
    """The answers for each part of the values that lies on its own: to be put together by the caller."""
    if not isinstance(values, jax.Array):
        return np.asarray(question(np, values.reshape(-1, width)[:count]))
    mesh = values.sharding.mesh if isinstance(values.sharding, NamedSharding) else None
    if not (isinstance(mesh, Mesh) and mesh.axis_names == (AXIS,) and is_split(values, mesh)):
        mesh = None
    return jax.device_get(_ask_devices(question, mesh, values, width, np.int32(count)))


@functools.partial(jax.jit, static_argnames=("question", "mesh", "width"))
def _ask_devices(question: Callable[..., Any], mesh: Mesh | None, values: Any, width: int, count: Any) -> Any:
    def one_device(part: jax.Array, count: jax.Array) -> jax.Array:
        rows = part.reshape(-1, width)
        before = jax.lax.axis_index(AXIS) * len(rows) if mesh else 0
        # A mask, not a slice: another count is no other program.
        asked = before + jnp.arange(len(rows), dtype=jnp.int32) < count
        return question(jnp, jnp.where(asked[:, None], rows, 0))[None]

    if mesh is None:
        return one_device(values, count)
    # Each device answers for itself: left to XLA, they would talk to each other for a single number.
    own, every = PartitionSpec(AXIS), PartitionSpec()
    return jax.shard_map(one_device, mesh=mesh, in_specs=(own, every), out_specs=own, check_vma=False)(values, count)
