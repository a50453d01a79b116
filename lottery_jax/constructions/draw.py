"""Drawing candidates on the devices: the weights of some blocks of a random tensor, times what their group has."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lottery_jax.constructions.base import Branch, Plan
from lottery_jax.sampler import Numbers, draw_at, draw_pairs, numbers
from lottery_jax.subset_sum.engine.devices import is_lone_cpu, local_mesh, over_problems
from lottery_jax.threefry import seed_words

_Key = tuple[np.uint32, np.uint32]
_LEAST_PADDED = 512


def candidates(plan: Plan, branch: Branch | None, blocks: np.ndarray, *, attempt: int, seed: int) -> jax.Array:
    """Candidates [P, N] of ascending blocks int64 [B] of a plan, all on one stream, in an attempt of theirs.

    P is one of few sizes from B up, so that few shapes are compiled; what is drawn beyond the blocks is not used.
    """
    drawn, size = plan.drawn, padded(len(blocks))
    streams, starts = drawn.positions(blocks, attempt)
    stream, weights, key = np.uint32(streams[0]), numbers(drawn.sampler), seed_words(seed)
    run = blocks[-1] - blocks[0] + 1 == len(blocks) and drawn.layout.per_stream is not None
    if run and branch is None and int(starts[0]) % 2 == 0:
        return _draw_run(weights, key, stream, np.uint32(starts[0] // 2), size, drawn.width, _spread(size))
    first = np.zeros(size, np.uint32)
    first[: len(blocks)] = starts
    step = np.uint32(drawn.layout.step)
    if branch is None:
        return _draw(weights, key, stream, first, step, drawn.width, _spread(size))
    assert plan.group is not None
    group = np.zeros(size, np.int32)
    group[: len(blocks)] = plan.group(blocks)
    return _draw_products(
        weights, key, stream, first, step, branch.multipliers, branch.slots.astype(np.uint32), group, _spread(size)
    )


def padded(blocks: int) -> int:
    """512 times a power of eight.

    >>> padded(3), padded(512), padded(5000)
    (512, 512, 32768)
    """
    size = _LEAST_PADDED
    while size < blocks:
        size *= 8
    return size


def on_host() -> bool:
    """A lone CPU device reads NumPy arrays where they are; elsewhere the candidates never leave the devices."""
    return is_lone_cpu(local_mesh())


def _spread(blocks: int) -> NamedSharding | None:
    """Each device draws the candidates of the problems that it will search."""
    mesh = local_mesh()
    return None if on_host() or blocks % mesh.size else over_problems(mesh)


def _laid(drawn: jax.Array, spread: NamedSharding | None) -> jax.Array:
    return drawn if spread is None else jax.lax.with_sharding_constraint(drawn, spread)


@functools.partial(jax.jit, static_argnames=("blocks", "width", "spread"))
def _draw_run(
    weights: Numbers, key: _Key, stream: Any, first_pair: Any, blocks: int, width: int, spread: NamedSharding | None
) -> jax.Array:
    """Neighbouring blocks, [B, N] with B even, from the one that begins at pair `first_pair` of positions."""
    drawn = draw_pairs(weights, key, stream, first_pair, blocks * width // 2, jnp)
    return _laid(drawn.reshape(blocks, width), spread)


@functools.partial(jax.jit, static_argnames=("width", "spread"))
def _draw(
    weights: Numbers, key: _Key, stream: Any, first: Any, step: Any, width: int, spread: NamedSharding | None
) -> jax.Array:
    """Blocks that begin at positions [B], [B, N]."""
    index = first[:, None] + jnp.arange(width, dtype=jnp.uint32) * step
    return _laid(draw_at(weights, key, stream, index, jnp), spread)


@functools.partial(jax.jit, static_argnames="spread")
def _draw_products(
    weights: Numbers,
    key: _Key,
    stream: Any,
    first: Any,
    step: Any,
    multipliers: Any,
    slots: Any,
    group: Any,
    spread: NamedSharding | None,
) -> jax.Array:
    """Only what is needed of the blocks that begin at positions [B] is drawn: the slots of their groups."""
    index = first[:, None] + slots[group] * step
    return _laid(multipliers[group] * draw_at(weights, key, stream, index, jnp), spread)
