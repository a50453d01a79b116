"""The fixed-point grid: candidates and targets as integers, so that sums are exact and equal on every device.

Each problem has its own step, a power of two, chosen so that the sum of all |candidates| is just below 2**bits.
A value rounds to the nearest multiple of the step, so "exact" means: the subset returned is best for the rounded
problem, and its residual is at most N + 1 steps above the least one. Values that are multiples of the step already
(drawn weights usually are) do not round at all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

INT32_BITS = 29  # doubled for centring and for a tag, plus a target of the same size: below 2**31

INT64_BITS = 52  # what a float64 holds exactly, with room for a subset size above it

FINE_BITS = 60  # what signed sums of two such sums still leave below 2**63

MAX_INT32_CANDIDATES = 24
"""Beyond so many, least residuals fall below the step of the 32-bit grid."""


def fits_int32(candidates: int, largest_sum: float, tolerance: float) -> bool:
    """True where rounding to the 32-bit grid can use up at most 1/32 of the tolerance; largest_sum: of |candidates|.

    >>> fits_int32(21, 10.5, 0.01), fits_int32(21, 10.5, 1e-6), fits_int32(25, 12.5, 0.01)
    (True, False, False)
    """
    step = largest_sum * 2.0 ** (1 - INT32_BITS)
    return candidates <= MAX_INT32_CANDIDATES and (candidates + 1) * step <= tolerance / 32


class Grid(NamedTuple):
    """One chunk on the grid, batch last; a problem's step is the same for all components of a vector.

    candidates: int [N, B] or [N, D, B]; targets: int [B] or [D, B], clipped to what subsets can reach plus the
    tolerance (a vector's to 1000 times the candidates); tolerance: int [B], rounded down by what rounding may have
    moved a sum. error: float [B], how far a subset's residual may be from the one on the grid, in the problem's units.
    """

    candidates: jax.Array
    targets: jax.Array
    tolerance: jax.Array
    error: jax.Array

    def on_host(self, count: int) -> Any:
        """A `Grid` of the first `count` problems as NumPy arrays."""
        return jax.tree.map(lambda part: np.asarray(part)[..., :count], self)


# By their bits: `ldexp` and `frexp` provide for numbers below the smallest normal one, and XLA repeats them for every
# candidate of a problem, at more than the whole of what is done with it here.
def _power(exponent: jax.Array, dtype: Any) -> jax.Array:
    """2**exponent, for exponents of normal numbers."""
    info, integer = jnp.finfo(dtype), jnp.int32 if dtype == jnp.float32 else jnp.int64
    return jax.lax.bitcast_convert_type((exponent + 1 - info.minexp).astype(integer) << info.nmant, dtype)


def _exponent(x: jax.Array) -> jax.Array:
    """The least e with x < 2**e, int32, for positive normal numbers."""
    info, integer = jnp.finfo(x.dtype), jnp.int32 if x.dtype == jnp.float32 else jnp.int64
    return (jax.lax.bitcast_convert_type(x, integer) >> info.nmant).astype(jnp.int32) + info.minexp


def _scaled(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """x * 2**exponent."""
    # In two factors: 2**exponent alone may be beyond the float range where the product is not.
    half = exponent // 2
    first, second = jax.lax.optimization_barrier((_power(half, x.dtype), _power(exponent - half, x.dtype)))
    return x * first * second


def to_grid(
    candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, dtype: jnp.dtype, fine: bool = False
) -> Grid:
    """Put a chunk (float: candidates [N, B] or [N, D, B], targets [B] or [D, B]) on the grid, integers of `dtype`.

    fine: the 64-bit grid of sums below 2**60 in place of 2**52.
    """
    bits = INT32_BITS if dtype == jnp.int32 else FINE_BITS if fine else INT64_BITS
    largest = jnp.abs(candidates).max(tuple(range(candidates.ndim - 1)))
    top = _exponent(jnp.where(largest > 0, largest, 1))
    total = _scaled(jnp.abs(candidates), -top).sum(0)
    if targets.ndim == 2:
        # A component out of reach still counts beside the others, so its target must not be clipped.
        total = jnp.maximum(total, jnp.minimum(_scaled(jnp.abs(targets), -top), 1000.0)).max(0)
    # A hair is added, for rounding (half a step each) may push the sum of the integers over a power of two.
    exponent = bits - _exponent(total * (1 + 2.0**-16) + 2.0**-20) - top
    scaled, wanted = _scaled(candidates, exponent), _scaled(targets, exponent)
    rounded = jnp.round(scaled)
    room = 2.0**bits
    steps = jnp.minimum(_scaled(tolerance, exponent), room)
    # In integers, for a sum of rounded floats could cut the reach short.
    values = rounded.astype(dtype)
    if targets.ndim == 2:
        high = jnp.full(targets.shape, int(room), dtype)
        low = -high
    else:
        beyond = jnp.floor(steps).astype(dtype) + 1
        low = jnp.minimum(values, 0).sum(0, dtype=dtype) - beyond
        high = jnp.maximum(values, 0).sum(0, dtype=dtype) + beyond
    nearest = jnp.round(jnp.clip(wanted, -2 * room, 2 * room)).astype(dtype)
    target = jnp.clip(nearest, low, high)
    # What underflows where it is scaled is less than a step.
    error = jnp.where((scaled == 0) & (candidates != 0), 1, jnp.abs(scaled - rounded)).sum(0)
    missed = jnp.where((wanted == 0) & (targets != 0), 1, jnp.abs(wanted - jnp.round(wanted)))
    # Beyond the reach of all subsets the nearest one does not depend on the target, but a vector's does.
    no_progress = jnp.abs(scaled).sum(0) if targets.ndim == 2 else 0
    error = error + jnp.where((target == nearest) & (jnp.abs(wanted) <= 2 * room), missed, no_progress)
    error = error.max(tuple(range(error.ndim - 1))) * (1 + 2.0**-10)
    allowed = jnp.maximum(jnp.floor(steps - error), -1).astype(dtype)
    return Grid(values, target, allowed, _scaled(error, -exponent))
