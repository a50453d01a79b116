"""Top-k mask of a score tensor: exact in count, ties included, without sorting.

Sorting two million scores costs more than the rest of a training step together, and a mask needs no order,
only one threshold. The bits of non-negative floats, read as integers, are ordered like the floats, so the
threshold is found by counting integers below limits (`threshold`). Where equal scores straddle it, the same
search over positions keeps the earliest.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lottery_jax.errors import InputError
from lottery_jax.networks.threshold import Interval, count, find, narrow

_INFINITY = 0x7F800000  # the bits of float32 infinity; NaN is above
_NAN = _INFINITY + 1  # the rank of NaN, after zero's


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
    wanted = jnp.asarray(kept_count(keep, scores.size), jnp.int32)
    return _straight_through(scores.astype(jnp.float32), wanted)


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
    flat = scores.reshape(-1)
    size = flat.size
    low, high, at_low, at_high = find(_ranks, flat, _NAN + 1, wanted)

    def search() -> jax.Array:
        """The position before which the wanted number of [low, high) lies."""
        ranks = _ranks(flat)
        places = jnp.where((ranks >= low) & (ranks < high), lax.iota(jnp.int32, size), size)
        tied = Interval.whole(size, at_high - at_low)
        return narrow(partial(count, places), wanted - at_low, tied).high

    end = lax.cond(at_high == wanted, lambda: jnp.int32(size), search)
    return (_ranks(flat) < jnp.where(lax.iota(jnp.int32, size) < end, high, low)).reshape(scores.shape)


def _ranks(scores: jax.Array) -> jax.Array:
    """Integers that fall as |score| rises: 0 is infinity, and the largest is NaN; denormals are not flushed."""
    bits = lax.bitcast_convert_type(scores, jnp.int32) & 0x7FFFFFFF
    # Below zero and thus, unsigned, above all numbers is NaN alone.
    ranks = lax.bitcast_convert_type(_INFINITY - bits, jnp.uint32)
    return lax.bitcast_convert_type(jnp.minimum(ranks, jnp.uint32(_NAN)), jnp.int32)
