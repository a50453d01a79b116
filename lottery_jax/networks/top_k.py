"""Top-k mask of a score tensor: exact in count, ties included, without sorting.

Sorting two million scores costs more than the rest of a training step together, and a mask needs no order,
only one threshold. The bits of non-negative floats, read as integers, are ordered like the floats, so the
threshold is found by narrowing an integer interval: each pass reads the scores once and counts them against
seven probes, which leaves an eighth of the interval. Where equal scores straddle the threshold, the same
search over positions keeps the earliest.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lottery_jax.errors import InputError

# Seven probes a pass lie between memory-bound (one probe) and compute-bound (thirty-one) on a CPU core.
_PROBES = 7
_INFINITY = 0x7F800000  # the bits of float32 infinity; NaN is above


def kept_count(keep: float | jax.Array, size: int) -> int | jax.Array:
    """Number of kept entries, `round(keep * size)` with halves to even, as in Python.

    A Python or NumPy `keep` is multiplied in float64 and must lie in [0, 1]. A JAX `keep`, traced or not,
    is multiplied in float32 and clipped to [0, 1]: the product may then round to a neighbour. Where that
    matters, make the count here from the Python number and pass it on: an integer JAX array is the count
    itself.

    >>> kept_count(0.3, 10)
    3
    """
    if isinstance(keep, jax.Array) and jnp.issubdtype(keep.dtype, jnp.integer):
        return jnp.clip(keep, 0, size)
    if isinstance(keep, jax.Array):
        wanted = jnp.round(keep.astype(jnp.float32) * np.float32(size)).astype(jnp.int32)
        # float32 cannot hold every size above 2**24, so 1 is not left to rounding; NaN keeps nothing.
        return jnp.where(keep >= 1, size, jnp.where(keep > 0, jnp.minimum(wanted, size), 0))
    try:
        fraction = float(keep)
    except (TypeError, ValueError):
        raise InputError(f"keep is {keep!r}; give the kept fraction, a number in [0, 1]") from None
    if not 0 <= fraction <= 1:
        raise InputError(f"keep is {keep}; give the kept fraction, a number in [0, 1], not a percentage")
    return round(fraction * size)


def top_k_mask(scores: jax.Array, keep: float | jax.Array) -> jax.Array:
    """Float32 mask of the `kept_count(keep, scores.size)` largest |scores|, in the scores' shape.

    Equal scores are kept in order of position (lowest flat index first); NaN ranks below every number.
    `keep` is the kept fraction or, as an integer JAX array, the count; it may be traced, so that one
    compiled program serves all. The gradient passes straight through the selection to |scores|: d mask / d
    score = sign(score).

    >>> top_k_mask(jnp.array([0.1, -3.0, 2.0, 2.0]), 0.5).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    if not jnp.issubdtype(scores.dtype, jnp.floating) or scores.dtype.itemsize > 4:
        raise InputError(f"scores are {scores.dtype}; cast them to float32")
    if scores.size >= _INFINITY:
        raise InputError(f"scores have {scores.size} entries; split tensors of 2**31 - 2**23 entries and more")
    count = jnp.asarray(kept_count(keep, scores.size), jnp.int32)
    return _straight_through(scores.astype(jnp.float32), count)


@jax.custom_jvp
def _straight_through(scores: jax.Array, wanted: jax.Array) -> jax.Array:
    return _select(scores, wanted).astype(jnp.float32)


@_straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    scores, wanted = primals
    return _straight_through(scores, wanted), jnp.sign(scores) * tangents[0]


@jax.jit
def _select(scores: jax.Array, wanted: jax.Array) -> jax.Array:
    """Boolean mask with exactly `wanted` true entries."""
    size = scores.size
    bits = lax.bitcast_convert_type(scores, jnp.int32) & 0x7FFFFFFF  # |score|, denormals not flushed
    keys = jnp.where(bits > _INFINITY, 0, bits + 1)  # NaN is 0, then zero, ..., infinity
    low, high, at_low, at_high = _narrow(partial(_count, keys), wanted, size, _INFINITY + 2)
    # Sure: keys >= high. Open: keys in [low, high): all of them or, if they are equal, the earliest of them.
    earliness = size - 1 - lax.iota(jnp.int32, size).reshape(scores.shape)

    def places() -> jax.Array:
        return jnp.where((keys >= low) & (keys < high), earliness, -1)

    earliest, *_ = _narrow(lambda probes: _count(places(), probes), wanted - at_high, at_low - at_high, size)
    return (keys >= high) | (places() >= earliest)


def _narrow(count: Callable, wanted: jax.Array, total: int | jax.Array, empty: int) -> tuple[jax.Array, ...]:
    """Interval [low, high) with count(low) >= wanted > count(high), of width 1 unless count(low) == wanted.

    `count(probes)` counts the keys >= each probe: `total` at 0, none at `empty`. Returns (low, high,
    count(low), count(high)).
    """

    def unfinished(state):
        low, high, at_low, _ = state
        return (high - low > 1) & (at_low != wanted)

    def narrow(state):
        low, high, at_low, at_high = state
        stride = (high - low + _PROBES) // (_PROBES + 1)
        probes = [low + stride * i for i in range(1, _PROBES + 1)]
        counts = count(probes)
        for probe, here in zip(probes, counts, strict=True):
            reached = (here >= wanted) & (probe < high)
            low, at_low = jnp.where(reached, probe, low), jnp.where(reached, here, at_low)
        for probe, here in zip(probes[::-1], counts[::-1], strict=True):
            missed = (here < wanted) & (probe < high)
            high, at_high = jnp.where(missed, probe, high), jnp.where(missed, here, at_high)
        return low, high, at_low, at_high

    # The interval begins one above `empty`, so that even wanted = 0 is reached inside it.
    start = (jnp.int32(0), jnp.int32(empty + 1), jnp.asarray(total, jnp.int32), jnp.int32(0))
    return lax.while_loop(unfinished, narrow, start)


def _count(keys: jax.Array, probes: list[jax.Array]) -> tuple[jax.Array, ...]:
    """Number of keys >= probe, for each probe, in one reading of the keys."""
    reached = tuple((keys >= probe).astype(jnp.int32) for probe in probes)
    zeros = tuple(jnp.int32(0) for _ in probes)

    def add(left, right):
        return tuple(x + y for x, y in zip(left, right, strict=True))

    return lax.reduce(reached, zeros, add, tuple(range(keys.ndim)))
