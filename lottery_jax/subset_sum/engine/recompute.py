"""Bits, residuals and status of the subsets that a search chose, recomputed from the original floats.

Sums are compensated (Ogita, Rump and Oishi 2005): they are far more accurate than their dtype, and have an error bound.
Subnormal candidates count as 0, as on devices; ``Problem`` refuses tolerances near them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.problem import Status, words_per_subset


class CompensatedSum(NamedTuple):
    """A sum that differs from value + rest by at most ``bound``; ``value`` is the float nearest to value + rest."""

    value: jax.Array
    rest: jax.Array
    bound: jax.Array


def split_float(number: float, dtype: type) -> np.ndarray:
    """A positive number as the sum of two floats of a narrower dtype, [2], rounded down.

    >>> split_float(0.5, np.float32)
    array([0.5, 0. ], dtype=float32)
    """
    info = np.finfo(dtype)
    high = dtype(min(number, float(info.max)))
    rest = min(number - float(high), float(high) * float(info.eps))
    low = dtype(rest)
    return np.array([high, low if float(low) <= rest else np.nextafter(low, dtype(-np.inf))])


def recompute(
    candidates: jax.Array,
    targets: jax.Array,
    tolerance: jax.Array,
    error: jax.Array,
    chosen: jax.Array,
    failure: jax.Array | int,
    fixed_size: bool,
) -> tuple[jax.Array, ...]:
    """Bits, residuals and status of the chosen candidates of one chunk.

    A subset that is not better than the empty one is replaced by it, unless its size is fixed. A failure counts as
    INFEASIBLE only if rounding to the grid cannot have hidden a better subset.

    Args:
        candidates: float [N, B] or [N, D, B].
        targets: float [B] or [D, B].
        tolerance: From ``split_float``.
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
    eps = float(jnp.finfo(start.dtype).eps)
    return CompensatedSum(*_two_sum(total.value, total.rest), len(values) * eps * total.bound)


def _two_sum(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rounded sum and its exact rounding error (Knuth)."""
    total = x + y
    of_y = total - x
    return total, (x - (total - of_y)) + (y - of_y)


def _excess(total: CompensatedSum, limit: jax.Array, rest: jax.Array, vectors: bool) -> tuple[jax.Array, jax.Array]:
    """Bounds of |total| - (limit + rest), which are equal if nothing rounds; of the largest component of vectors."""
    excess = (jnp.abs(total.value) - limit) + (jnp.where(total.value < 0, -total.rest, total.rest) - rest)
    slack = total.bound + 2 * float(jnp.finfo(excess.dtype).eps) * (jnp.abs(total.rest) + jnp.abs(rest))
    least, most = excess - slack, excess + slack
    return (least.max(-2), most.max(-2)) if vectors else (least, most)
