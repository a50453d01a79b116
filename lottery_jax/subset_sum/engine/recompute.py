"""What a search's answer is worth: its sum anew, from candidates and target as they were given.

A search sees integers on a grid and its word is not taken. Sums are compensated (Ogita, Rump and Oishi 2005), so
that in float32 as in float64 they are true far beyond the precision of the type, and a bound of what is still missing
comes with each. Candidates below the smallest normal number count as 0, as devices have it; `Problem` sees to it that
no tolerance is near them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.problem import Status, words_per_subset


class LongSum(NamedTuple):
    """A sum: it differs from value + rest by at most `bound`, and `value` is the nearest float to value + rest."""

    value: jax.Array
    rest: jax.Array
    bound: jax.Array


def two_parts(number: float, dtype: type) -> np.ndarray:
    """A positive number as the sum of two of a narrower type, [2], never above it.

    >>> two_parts(0.5, np.float32)
    array([0.5, 0. ], dtype=float32)
    """
    info = np.finfo(dtype)
    high = dtype(min(number, float(info.max)))
    left = min(number - float(high), float(high) * float(info.eps))
    low = dtype(left)
    return np.array([high, low if float(low) <= left else np.nextafter(low, dtype(-np.inf))])


def answers(
    candidates: jax.Array,
    targets: jax.Array,
    tolerance: jax.Array,
    error: jax.Array,
    chosen: jax.Array,
    failure: jax.Array | int,
    sized: bool,
) -> tuple[jax.Array, ...]:
    """Bits [B, W], residuals [B] (or [B, D]) and status [B] of the chosen candidates, bool [N, B].

    candidates: float [N, B] or [N, D, B], targets [B] or [D, B], as given; tolerance: of `two_parts`; error: [B], of
    `Grid`. A subset that is not better than the empty one gives way to it, unless its size was asked for. It is a
    `failure` that is INFEASIBLE only where rounding to the grid cannot have hidden a better subset. A search over
    several sizes has them in front, [K, N, B]; its answers have them behind the problems.
    """
    vectors = targets.ndim == 2

    def worst(x: jax.Array) -> jax.Array:
        return x.max(-2) if vectors else x

    rows = jnp.moveaxis(chosen, -2, 0)
    left = _sum(rows[:, None] if vectors else rows, candidates, -targets)
    bits = _pack(chosen)
    if not sized:
        empty, zero = worst(jnp.abs(targets)), jnp.zeros_like(targets)
        excess, slack = _beyond(left, empty, jnp.zeros_like(empty))
        better = worst(excess + slack) < 0
        bits = jnp.where(better, bits, 0)
        left = LongSum(*(jnp.where(better, *both) for both in zip(left, (-targets, zero, zero), strict=True)))
    excess, slack = _beyond(left, tolerance[0], tolerance[1])
    within, proved = worst(excess + slack) <= 0, worst(excess - slack) > 2 * error
    status = jnp.where(within, int(Status.WITHIN), jnp.where(proved, failure, int(Status.NOT_FOUND)))
    status = status.astype(jnp.uint8)
    return tuple(jnp.moveaxis(x, -1, 0) for x in (bits, left.value, status))


def _sum(chosen: jax.Array, values: jax.Array, start: jax.Array) -> LongSum:
    """start plus those rows of `values` that are chosen."""
    start = jnp.broadcast_to(start, jnp.broadcast_shapes(start.shape, chosen.shape[1:]))

    def add(left: LongSum, row: tuple[jax.Array, jax.Array]) -> tuple[LongSum, None]:
        value, lost = _two_sum(left.value, jnp.where(*row, 0))
        return LongSum(value, left.rest + lost, left.bound + jnp.abs(lost)), None

    left = jax.lax.scan(add, LongSum(start, jnp.zeros_like(start), jnp.zeros_like(start)), (chosen, values))[0]
    eps = float(jnp.finfo(start.dtype).eps)
    return LongSum(*_two_sum(left.value, left.rest), len(values) * eps * left.bound)


def _two_sum(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rounded sum and, exactly, what rounding took off (Knuth)."""
    total = x + y
    of_y = total - x
    return total, (x - (total - of_y)) + (y - of_y)


def _beyond(left: LongSum, limit: jax.Array, rest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far |left| is beyond limit + rest, and by how much that may be wrong: not at all where nothing rounds."""
    excess = (jnp.abs(left.value) - limit) + (jnp.where(left.value < 0, -left.rest, left.rest) - rest)
    return excess, left.bound + 2 * float(jnp.finfo(excess.dtype).eps) * (jnp.abs(left.rest) + jnp.abs(rest))


def _pack(chosen: jax.Array) -> jax.Array:
    """bool [..., N, B] to uint32 [..., W, B]."""
    *outer, count, batch = chosen.shape
    padding = [(0, 0)] * len(outer) + [(0, 32 * words_per_subset(count) - count), (0, 0)]
    padded = jnp.pad(chosen, padding).reshape(*outer, words_per_subset(count), 32, batch)
    placed = padded.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[:, None]
    return placed.sum(-2, dtype=jnp.uint32)
