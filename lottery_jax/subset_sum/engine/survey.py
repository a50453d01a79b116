"""Two questions about a batch before it is solved, answered where it lies: only the answers come to the host."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lottery_jax.subset_sum.engine.devices import AXIS, is_split


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
