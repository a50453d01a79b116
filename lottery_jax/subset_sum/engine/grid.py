"""The fixed-point grid: candidates and targets as integers, so that sums are exact and equal on every device.

Each problem has its own step, a power of two such that the sum of all |candidates| is just below 2**bits. Values
round to the nearest multiple of the step. An exact solver returns the best subset of the rounded problem, whose
residual is at most N + 1 steps above the least one. Most drawn weights are multiples of the step and do not round.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError

INT32_BITS = 29  # times 2 for centring, times 2 for a tag, plus a target of that size: below 2**31

INT64_BITS = 52  # exact in float64, with room for a subset size above it

FINEST_BITS = 60  # signed sums of two such sums are below 2**63

_SAFE_INT32_SUM = 2.0**28  # of integers; half the limit, because sums are bounded in floating point

MAX_INT32_CANDIDATES = 24
"""With more candidates, the least residual falls below the step of the 32-bit grid."""


def fits_int32(candidates: int, largest_sum: float, tolerance: float) -> bool:
    """True if rounding to the 32-bit grid uses at most 1/32 of the tolerance, given the largest sum of |candidates|.

    >>> fits_int32(21, 10.5, 0.01), fits_int32(21, 10.5, 1e-6), fits_int32(25, 12.5, 0.01)
    (True, False, False)
    """
    step = largest_sum * 2.0 ** (1 - INT32_BITS)
    return candidates <= MAX_INT32_CANDIDATES and (candidates + 1) * step <= tolerance / 32


def integers_need_int64(largest_sum: float, bits: int) -> bool:
    """True if integers need the 64-bit grid, given the largest sum of |candidates|; refuses sums of 2**bits or more.

    >>> integers_need_int64(2.0**20, 60), integers_need_int64(2.0**40, 60)
    (False, True)
    """
    if largest_sum >= 2.0**bits:
        raise InputError(
            f"sums of |candidates| must be below 2**{bits} for integers, got about {largest_sum:.3g}, because larger"
            " sums could overflow. Divide candidates and targets by a common factor."
        )
    return largest_sum >= _SAFE_INT32_SUM


class Grid(NamedTuple):
    """One chunk of B problems on the grid; all components of a vector have one step.

    Targets are clipped to the range of subset sums plus the tolerance (for vectors to 1000 times the candidates).
    """

    candidates: jax.Array  # int [N, B], or [N, D, B] for vectors
    targets: jax.Array  # int [B] or [D, B]
    tolerance: jax.Array  # int [B], reduced by the largest rounding error of a sum
    error: jax.Array  # float [B], bound of |residual - residual on the grid|, in original units

    def on_host(self, count: int) -> Any:
        """The first ``count`` problems as NumPy arrays."""
        return jax.tree.map(lambda part: np.asarray(part)[..., :count], self)


# Computed from the bits of floats: `ldexp` and `frexp` also handle subnormal numbers, and XLA would repeat them for
# every candidate, which costs more than all other work of this file.
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
    # Two factors, because 2**exponent may overflow although the product does not.
    half = exponent // 2
    first, second = jax.lax.optimization_barrier((_power(half, x.dtype), _power(exponent - half, x.dtype)))
    return x * first * second


def to_grid(
    candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, dtype: jnp.dtype, finest: bool = False
) -> Grid:
    """Put a chunk on the grid of int32 or int64: floats [N, B] and [B], or [N, D, B] and [D, B], and a tolerance.

    ``finest`` allows sums below 2**60 on the 64-bit grid instead of 2**52. Integers stay as they are.
    """
    if jnp.issubdtype(candidates.dtype, jnp.integer):
        return _integer_grid(candidates, targets, tolerance, dtype)
    bits = INT32_BITS if dtype == jnp.int32 else FINEST_BITS if finest else INT64_BITS
    largest = jnp.abs(candidates).max(tuple(range(candidates.ndim - 1)))
    top = _exponent(jnp.where(largest > 0, largest, 1))
    total = _scaled(jnp.abs(candidates), -top).sum(0)
    if targets.ndim == 2:
        # An unreachable component still affects the choice of the others, so its target is not clipped to the range.
        total = jnp.maximum(total, jnp.minimum(_scaled(jnp.abs(targets), -top), 1000.0)).max(0)
    # A small margin, because rounding (half a step each) may push the sum of the integers over a power of two.
    exponent = bits - _exponent(total * (1 + 2.0**-16) + 2.0**-20) - top
    scaled, scaled_targets = _scaled(candidates, exponent), _scaled(targets, exponent)
    rounded = jnp.round(scaled)
    limit = 2.0**bits
    steps = jnp.minimum(_scaled(tolerance, exponent), limit)
    # The range of subset sums is computed in integers, because a sum of floats could round inwards.
    values = rounded.astype(dtype)
    if targets.ndim == 2:
        high = jnp.full(targets.shape, int(limit), dtype)
        low = -high
    else:
        margin = jnp.floor(steps).astype(dtype) + 1
        low = jnp.minimum(values, 0).sum(0, dtype=dtype) - margin
        high = jnp.maximum(values, 0).sum(0, dtype=dtype) + margin
    nearest = jnp.round(jnp.clip(scaled_targets, -2 * limit, 2 * limit)).astype(dtype)
    target = jnp.clip(nearest, low, high)
    # A value that underflows when it is scaled is less than a step.
    error = jnp.where((scaled == 0) & (candidates != 0), 1, jnp.abs(scaled - rounded)).sum(0)
    target_error = jnp.abs(scaled_targets - jnp.round(scaled_targets))
    target_error = jnp.where((scaled_targets == 0) & (targets != 0), 1, target_error)
    # The subset nearest to a number outside the range does not depend on it, but that of a vector does.
    clipped_error = jnp.abs(scaled).sum(0) if targets.ndim == 2 else 0
    exact = (target == nearest) & (jnp.abs(scaled_targets) <= 2 * limit)
    error = error + jnp.where(exact, target_error, clipped_error)
    error = error.max(tuple(range(error.ndim - 1))) * (1 + 2.0**-10)
    grid_tolerance = jnp.maximum(jnp.floor(steps - error), -1).astype(dtype)
    return Grid(values, target, grid_tolerance, _scaled(error, -exponent))


def _integer_grid(candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, dtype: jnp.dtype) -> Grid:
    """As ``to_grid`` for int64 values of step 1; a tolerance shrinks by what its target was clipped."""
    low, high = jnp.minimum(candidates, 0).sum(0), jnp.maximum(candidates, 0).sum(0)
    nearest = targets if targets.ndim == 2 else jnp.clip(targets, low - 1, high + 1)
    clipped = jnp.abs(targets - nearest)
    reachable = high - low + 1  # the largest distance of a sum and a clipped target
    if targets.ndim == 2:
        clipped, reachable = clipped[0], 2 * jnp.maximum(reachable, jnp.abs(targets)).max(0)
    grid_tolerance = jnp.clip(tolerance - clipped, -1, reachable)
    return Grid(candidates.astype(dtype), nearest.astype(dtype), grid_tolerance.astype(dtype), jnp.zeros_like(clipped))
