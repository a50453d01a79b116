"""The fixed-point grid: candidates and targets as integers, so that sums are exact and equal on every device.

Each problem has its own step, a power of two, chosen so that the sum of all |candidates| is just below 2**bits.
A value rounds to the nearest multiple of the step, so "exact" means: the subset returned is best for the rounded
problem, and its residual is at most N + 1 steps above the least one. Values that are multiples of the step already
(drawn weights usually are) do not round at all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

INT32_BITS = 29  # doubled for centring and for a tag, plus a target of the same size: below 2**31
INT64_BITS = 52  # what a float64 holds exactly, with room for a subset size above it

NARROW_CANDIDATES = 24
"""Beyond so many, least residuals fall below the step of the 32-bit grid."""


def fits_int32(candidates: int, largest_sum: float, tolerance: float) -> bool:
    """True where rounding to the 32-bit grid can use up at most 1/32 of the tolerance; largest_sum: of |candidates|.

    >>> fits_int32(21, 10.5, 0.01), fits_int32(21, 10.5, 1e-6), fits_int32(25, 12.5, 0.01)
    (True, False, False)
    """
    step = largest_sum * 2.0 ** (1 - INT32_BITS)
    return candidates <= NARROW_CANDIDATES and (candidates + 1) * step <= tolerance / 32


class Grid(NamedTuple):
    """One chunk on the grid, batch last; a unit has 2**exponent steps, the same for all components of a vector.

    candidates: int [N, B] or [N, D, B]; targets: int [B] or [D, B], clipped to what subsets can reach plus the
    tolerance (a vector's to 1000 times the candidates); tolerance: int [B], rounded so that within it on the grid means
    within it in truth; clipped: float like the targets, what clipping took off.
    """

    candidates: jax.Array
    targets: jax.Array
    tolerance: jax.Array
    clipped: jax.Array
    exponent: jax.Array


def _scaled(x: jax.Array, exponent: jax.Array) -> jax.Array:
    # In two factors: 2**exponent alone may be beyond the float range where the product is not.
    half = exponent // 2
    return jnp.ldexp(jnp.ldexp(x, half), exponent - half)


def to_grid(candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, dtype: jnp.dtype) -> Grid:
    """Put a chunk (float: candidates [N, B] or [N, D, B], targets [B] or [D, B]) on the grid, integers of `dtype`."""
    bits = INT32_BITS if dtype == jnp.int32 else INT64_BITS
    largest = jnp.abs(candidates).max(tuple(range(candidates.ndim - 1)))
    top = jnp.frexp(jnp.where(largest > 0, largest, 1))[1]
    total = _scaled(jnp.abs(candidates), -top).sum(0)
    if targets.ndim == 2:
        # A component out of reach still counts beside the others, so its target must not be clipped.
        total = jnp.maximum(total, jnp.minimum(_scaled(jnp.abs(targets), -top), 1000.0)).max(0)
    # A hair is added, for rounding (half a step each) may push the sum of the integers over a power of two.
    exponent = bits - jnp.frexp(total * (1 + 2.0**-16) + 2.0**-20)[1] - top
    scaled = _scaled(candidates, exponent)
    rounded = jnp.round(scaled)
    room = jnp.asarray(2.0**bits, candidates.dtype)
    steps = jnp.minimum(_scaled(tolerance, exponent), room)
    low, high = jnp.minimum(rounded, 0).sum(0) - steps, jnp.maximum(rounded, 0).sum(0) + steps
    if targets.ndim == 2:
        low, high = jnp.broadcast_to(-room, low.shape), jnp.broadcast_to(room, high.shape)
    wanted = _scaled(targets, exponent)
    reachable = jnp.clip(wanted, low, high)
    target = jnp.round(reachable)
    error = jnp.abs(scaled - rounded).sum(0) + jnp.abs(wanted - jnp.round(wanted))
    allowed = jnp.floor(steps - error.max(tuple(range(error.ndim - 1))))
    return Grid(
        rounded.astype(dtype),
        target.astype(dtype),
        jnp.maximum(allowed, -1).astype(dtype),
        jnp.where(reachable == wanted, 0, _scaled(reachable, -exponent) - targets),
        exponent,
    )


def residuals(grid: Grid, steps: jax.Array) -> jax.Array:
    """Grid steps beyond the target, int like the targets, in the problem's units."""
    return _scaled(steps.astype(grid.clipped.dtype), -grid.exponent) + grid.clipped
