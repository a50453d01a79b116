"""Bits, residuals and status of the subsets that a search chose, recomputed from the original floats.

Sums are compensated (Ogita, Rump and Oishi 2005): they are far more accurate than their dtype, and have an error bound.
Subnormal candidates count as 0, as on devices; ``Problem`` refuses tolerances near them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.problem import Status, words_per_subset


class CompensatedSum(NamedTuple):
    """A sum that differs from value + rest by at most ``bound``; ``value`` is the float nearest to value + rest."""

    value: jax.Array
    rest: jax.Array
    bound: jax.Array


def split_tolerance(tolerance: Any, dtype: Any, xp: Any = np) -> Any:
    """Positive numbers [...] as sums of two numbers of ``dtype``, rounded down, [2, ...]; with JAX as ``xp`` float64.

    >>> split_tolerance(0.5, np.float32)
    array([0.5, 0. ], dtype=float32)
    """
    if np.issubdtype(dtype, np.integer):
        whole = xp.asarray(tolerance, dtype)
        return xp.stack([whole, xp.zeros_like(whole)])
    info, number = np.finfo(dtype), xp.asarray(tolerance, np.float64)
    high = xp.minimum(number, float(info.max)).astype(dtype)
    rest = xp.minimum(number - high.astype(np.float64), high.astype(np.float64) * float(info.eps))
    low = rest.astype(dtype)
    below = xp.nextafter(low, xp.full_like(low, -np.inf))
    return xp.stack([high, xp.where(low.astype(np.float64) <= rest, low, below)])


def recompute(
    candidates: jax.Array,
    targets: jax.Array,
    tolerance: jax.Array,
    error: jax.Array,
    chosen: jax.Array,
    failure: jax.Array | int,
    fixed_size: bool,
) -> tuple[jax.Array, ...]:
    """Bits, residuals and status of the chosen candidates of one chunk, of floats or of integers.

    A subset that is not better than the empty one is replaced by it, unless its size is fixed. A failure counts as
    INFEASIBLE only if rounding to the grid cannot have hidden a better subset.

    Args:
        candidates: [N, B] or [N, D, B].
        targets: [B] or [D, B].
        tolerance: [2] or [2, B], from ``split_tolerance``.
        error: [B], of ``Grid``.
        chosen: bool [N, B], or [K, N, B] for K subsets of each problem.
        failure: Status of a problem without a subset within the tolerance.
        fixed_size: True if the size of the subset is prescribed.

    Returns:
        Bits uint32 [B, W] (or [B, K, W]), residuals [B] (or [B, K], or [B, D]) and status uint8 [B] (or [B, K]).
    """
    vectors = targets.ndim == 2
    rows = jnp.moveaxis(chosen, -2, 0)
    total = _sum(rows[:, None] if vectors else rows, candidates, -targets)
    # The bits: [..., N, B] to [..., W, B].
    *outer, count, batch = chosen.shape
    words = words_per_subset(count)
    padded = jnp.pad(chosen, [*[(0, 0)] * len(outer), (0, 32 * words - count), (0, 0)])
    padded = padded.reshape(*outer, words, 32, batch).astype(jnp.uint32)
    bits = (padded << jnp.arange(32, dtype=jnp.uint32)[:, None]).sum(-2, dtype=jnp.uint32)
    if not fixed_size:
        empty = jnp.abs(targets).max(0) if vectors else jnp.abs(targets)
        better = _excess(total, empty, jnp.zeros_like(empty), vectors)[1] < 0
        bits = jnp.where(better, bits, 0)
        total = CompensatedSum(
            jnp.where(better, total.value, -targets),
            jnp.where(better, total.rest, 0),
            jnp.where(better, total.bound, 0),
        )
    least, most = _excess(total, tolerance[0], tolerance[1], vectors)
    status = jnp.where(least > 2 * error, failure, int(Status.NOT_FOUND))
    status = jnp.where(most <= 0, int(Status.WITHIN), status).astype(jnp.uint8)
    return jnp.moveaxis(bits, -1, 0), jnp.moveaxis(total.value, -1, 0), jnp.moveaxis(status, -1, 0)


def _sum(chosen: jax.Array, values: jax.Array, start: jax.Array) -> CompensatedSum:
    """``start`` plus the chosen rows of ``values``."""
    start = jnp.broadcast_to(start, jnp.broadcast_shapes(start.shape, chosen.shape[1:]))

    def add(total: CompensatedSum, row: tuple[jax.Array, jax.Array]) -> tuple[CompensatedSum, None]:
        value, lost = _two_sum(total.value, jnp.where(*row, 0))
        return CompensatedSum(value, total.rest + lost, total.bound + jnp.abs(lost)), None

    total = jax.lax.scan(add, CompensatedSum(start, jnp.zeros_like(start), jnp.zeros_like(start)), (chosen, values))[0]
    slack = len(values) * _eps(start.dtype) * total.bound
    return CompensatedSum(*_two_sum(total.value, total.rest), slack)


def _eps(dtype: Any) -> float:
    """The relative rounding error of a sum; integers have none."""
    return 0 if jnp.issubdtype(dtype, jnp.integer) else float(jnp.finfo(dtype).eps)


def _two_sum(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rounded sum and its exact rounding error (Knuth)."""
    total = x + y
    of_y = total - x
    return total, (x - (total - of_y)) + (y - of_y)


def _excess(total: CompensatedSum, limit: jax.Array, rest: jax.Array, vectors: bool) -> tuple[jax.Array, jax.Array]:
    """Bounds of |total| - (limit + rest), which are equal if nothing rounds; of the largest component of vectors."""
    excess = (jnp.abs(total.value) - limit) + (jnp.where(total.value < 0, -total.rest, total.rest) - rest)
    slack = total.bound + 2 * _eps(excess.dtype) * (jnp.abs(total.rest) + jnp.abs(rest))
    least, most = excess - slack, excess + slack
    return (least.max(-2), most.max(-2)) if vectors else (least, most)
