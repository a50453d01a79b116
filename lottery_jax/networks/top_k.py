"""Top-k masks of score tensors: exact in count, ties included, without sorting.

Sorting two million scores costs more than the rest of a training step, and a mask only needs one threshold. The bits of
nonnegative floats, read as integers, have the order of the floats, so the threshold is found by counting the integers
below limits. If equal scores straddle it, the same search over positions keeps the earliest.

The search narrows an interval of limits; each pass over the integers counts those below five limits, the probes. A
sample, or a line through the counts at the interval's ends, predicts the threshold, and the probes cover its likely
error. If the prediction was wrong, the next probes divide the interval evenly, so about thirty passes suffice for any
integers. Two million scores usually take three passes: the sample leaves about seven thousand scores, the line about
fifty, and the last pass separates these.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lottery_jax.errors import InputError

_Count = Callable[[list[jax.Array]], jax.Array]  # number of integers below each limit
_PROBES = 5  # on a CPU core five comparisons take about as long as reading the integers
_SMALL = 2**17  # up to here sampling costs more than it saves
_SMOOTH = 2**22  # widest interval, half a factor of two in floats, in which the line predicts

# One of 34 cache lines of 16 integers is sampled; rows of a power of two are not aligned with this period.
_RUN, _PERIOD = 16, 544
_DEPTH = 16  # integers in a column of `_column_minima`

# XLA's CPU code counts long vectors three times as fast row by row as at once.
_ROW, _LONG = 2048, 2**15


class _Interval(NamedTuple):
    """Limits low < high and the numbers of integers below them: at_low < k <= at_high."""

    low: jax.Array
    high: jax.Array
    at_low: jax.Array
    at_high: jax.Array

    @classmethod
    def whole(cls, most: int, total: int | jax.Array) -> "_Interval":
        """All of `total` integers in [0, most); low is -1, so that k = 0 is inside."""
        return cls(jnp.int32(-1), jnp.int32(most), jnp.int32(0), jnp.asarray(total, jnp.int32))


def _find(ranks: Callable[[jax.Array], jax.Array], numbers: jax.Array, most: int, k: jax.Array) -> _Interval:
    """The interval of `_narrow` for the integers `ranks(numbers)`: int32 in [0, most), one for each number."""
    size = numbers.size

    def count_below(limits: list[jax.Array]) -> jax.Array:
        # The barrier keeps the ranks in the loop: they are computed while they are counted and never stored.
        return _count(ranks(lax.optimization_barrier((numbers, limits))[0]), limits)

    interval = _Interval.whole(most, size)
    if size <= _SMALL:
        return _narrow(count_below, k, interval)
    few = math.isqrt(size // _DEPTH) // 4  # two of so few share a column about once in thirty searches
    interval = _narrow(count_below, k, interval, probed=_predicted(ranks(numbers), most, k), enough=few)
    minima = _column_minima(ranks(numbers), interval.low)
    width = (interval.high - interval.low).astype(jnp.uint32)
    complete = jnp.sum((minima < width).astype(jnp.int32)) == interval.at_high - interval.at_low

    def count_below_in_minima(limits: list[jax.Array]) -> jax.Array:
        return interval.at_low + _count(minima, [(limit - interval.low).astype(jnp.uint32) for limit in limits])

    found = _narrow(count_below_in_minima, k, interval, enough=jnp.where(complete, 0, size))
    return _narrow(count_below, k, found)  # no pass, unless two shared a column


def _narrow(
    count_below: _Count,
    k: jax.Array,
    interval: _Interval,
    *,
    probed: tuple[jax.Array, jax.Array] | None = None,
    enough: int | jax.Array = 0,
    even: bool = False,
) -> _Interval:
    """The interval narrowed until at_high == k, its width is 1, or it holds at most `enough` integers.

    Args:
        count_below: Counts the integers below limits.
        k: Number of integers below the threshold.
        interval: Where the threshold is.
        probed: First and last of the first probes; predicted by the line if None.
        enough: Number of integers at which the search stops.
        even: Whether all probes divide the interval evenly.
    """

    def aim(interval: _Interval, trusted: bool | jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high, at_low, at_high = interval
        stride = (high - low + _PROBES) // (_PROBES + 1)
        first, last = low + stride, low + stride * _PROBES  # narrows any interval
        if even:
            return first, last
        left = jnp.maximum(at_high - at_low, 1).astype(jnp.float32)
        part = (k - at_low).astype(jnp.float32) / left
        by_line = _around(interval, k, 2.5 * jnp.sqrt(left * part * jnp.maximum(1 - part, 0)), low + 1, high - 1)
        trusted &= high - low <= _SMOOTH
        return jnp.where(trusted, by_line[0], first), jnp.where(trusted, by_line[1], last)

    def unfinished(state: tuple[_Interval, tuple]) -> jax.Array:
        low, high, at_low, at_high = state[0]
        return (high - low > 1) & (at_high != k) & (at_high - at_low > enough)

    def read(state: tuple[_Interval, tuple]) -> tuple[_Interval, tuple]:
        (low, high, at_low, at_high), (first, last) = state
        step = jnp.maximum((last - first + _PROBES - 2) // (_PROBES - 1), 1)
        probes, inside = [], []
        for index in range(_PROBES):
            probes.append(first + step * index)
            inside.append((probes[-1] > low) & (probes[-1] < high))
        counts = list(count_below(probes))
        for probe, here, within in zip(probes, counts, inside, strict=True):
            missed = within & (here < k)
            low, at_low = jnp.where(missed, probe, low), jnp.where(missed, here, at_low)
        for probe, here, within in zip(probes[::-1], counts[::-1], inside[::-1], strict=True):
            reached = within & (here >= k)
            high, at_high = jnp.where(reached, probe, high), jnp.where(reached, here, at_high)
        interval = _Interval(low, high, at_low, at_high)
        return interval, aim(interval, (low >= first) & (high <= probes[-1]))

    start = aim(interval, True) if probed is None else probed
    return lax.while_loop(unfinished, read, (interval, start))[0]


def _count(integers: jax.Array, limits: list[jax.Array]) -> jax.Array:
    """The number of integers below each limit, int32 [limits], in one pass."""
    flat = integers.reshape(-1)
    parts = [flat]
    if flat.size >= _LONG:
        whole = flat.size // _ROW * _ROW
        parts = [flat[:whole].reshape(-1, _ROW), flat[whole:]][: 2 if whole < flat.size else 1]
    counts = []
    for part in parts:
        sums: Sequence[jax.Array] = [part < limit for limit in limits]
        for _ in range(part.ndim):
            sums = _sums(sums)
        counts.append(jnp.stack(sums))
    return counts[0] if len(counts) == 1 else counts[0] + counts[1]


def _sums(terms: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """The sums of all terms over their last axis, in one pass."""
    integers = []
    for term in terms:
        integers.append(term.astype(jnp.int32))

    def add(left, right):
        return tuple(map(operator.add, left, right))

    return lax.reduce(tuple(integers), (jnp.int32(0),) * len(terms), add, (terms[0].ndim - 1,))


def _predicted(integers: jax.Array, most: int, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Limits between which the threshold lies with high probability, from a sample."""
    flat = integers.reshape(-1)
    periods = flat.size // _PERIOD
    sample = flat[: periods * _PERIOD].reshape(periods, _PERIOD)[:, :_RUN]
    part = k.astype(jnp.float32) / flat.size
    middle = jnp.round(part * sample.size).astype(jnp.int32)
    error = 3.5 * jnp.sqrt(sample.size * part * jnp.maximum(1 - part, 0)) + 1
    # An interval of four times the error holds many of the sample and is narrow enough for the line.
    enough = (4 * error).astype(jnp.int32)
    whole = _Interval.whole(most, sample.size)
    interval = _narrow(partial(_count, sample), middle, whole, enough=enough, even=True)
    return _around(interval, middle, error, whole.low, whole.high)


def _around(
    interval: _Interval, k: jax.Array, error: jax.Array, least: jax.Array, most: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Limits `error` integers before and after the k-th on the line through the interval's ends, in [least, most]."""
    low, high, at_low, at_high = interval
    each = (high - low).astype(jnp.float32) / jnp.maximum(at_high - at_low, 1).astype(jnp.float32)
    middle = (k - at_low).astype(jnp.float32)
    ends = (jnp.floor((middle - error - 1) * each), jnp.ceil((middle + error + 1) * each))
    shortest, longest = (least - low).astype(jnp.float32), (most - low).astype(jnp.float32)
    # Offsets are clipped before they are added: float32 cannot represent the limits themselves.
    first, last = (low + jnp.clip(end, shortest, longest).astype(jnp.int32) for end in ends)
    return first, last


def _column_minima(integers: jax.Array, low: jax.Array) -> jax.Array:
    """The least integer of each column of sixteen that is at least `low`, minus `low`: uint32."""
    columns = integers.size // _DEPTH
    offsets = lax.bitcast_convert_type(integers.reshape(-1) - low, jnp.uint32)  # those below wrap to large numbers
    body, rest = offsets[: columns * _DEPTH].reshape(_DEPTH, columns), offsets[columns * _DEPTH :]
    return jnp.concatenate([jnp.min(body, 0), rest])


_INFINITY = 0x7F800000  # the bits of float32 infinity; NaN is above
_NAN = _INFINITY + 1  # the rank of NaN, after zero's


def kept_count(keep: float | jax.Array, size: int) -> int | jax.Array:
    """Number of kept entries, `round(keep * size)` with halves to even as in Python.

    Args:
        keep: The kept fraction. A Python or NumPy number is multiplied in float64. A JAX array, traced or not, is
            multiplied in float32 and clipped to [0, 1], so the product may round to a neighbour; a JAX array of
            integers is the count itself.

    Raises:
        InputError: If a Python or NumPy number is not in [0, 1].

    >>> kept_count(0.3, 10)
    3
    """
    if isinstance(keep, jax.Array) and jnp.issubdtype(keep.dtype, jnp.integer):
        return jnp.clip(keep, 0, size)
    if isinstance(keep, jax.Array):
        k = jnp.round(keep.astype(jnp.float32) * np.float32(size)).astype(jnp.int32)
        # float32 cannot hold every size above 2**24, so keep = 1 is handled apart; NaN keeps nothing.
        return jnp.where(keep >= 1, size, jnp.where(keep > 0, jnp.minimum(k, size), 0))
    try:
        fraction = float(keep)
    except (TypeError, ValueError):
        raise InputError(f"keep must be the kept fraction, a number in [0, 1], got {keep!r}") from None
    if not 0 <= fraction <= 1:
        raise InputError(f"keep must be the kept fraction, a number in [0, 1] and not a percentage, got {keep}")
    return round(fraction * size)


def top_k_mask(scores: jax.Array, keep: float | jax.Array) -> jax.Array:
    """Float32 mask of the `kept_count(keep, scores.size)` largest |scores|, in the shape of the scores.

    Equal scores are kept in order of position (lowest flat index first); NaN ranks below every number. The gradient
    passes straight through to |scores|: d mask / d score = sign(score).

    Args:
        scores: Floats of at most 32 bits.
        keep: The kept fraction or the count, see `kept_count`; a traced one needs no new compilation.

    Raises:
        InputError: If the scores have another dtype or 2**31 - 2**23 and more entries.

    >>> top_k_mask(jnp.array([0.1, -3.0, 2.0, 2.0]), 0.5).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    if not jnp.issubdtype(scores.dtype, jnp.floating) or scores.dtype.itemsize > 4:
        raise InputError(f"scores must be floats of at most 32 bits, got {scores.dtype}. Cast them to float32.")
    if scores.size >= _INFINITY:
        raise InputError(f"scores must have less than 2**31 - 2**23 entries, got {scores.size}. Split the tensor.")
    k = jnp.asarray(kept_count(keep, scores.size), jnp.int32)
    return _straight_through(scores.astype(jnp.float32), k)


@jax.custom_jvp
def _straight_through(scores: jax.Array, k: jax.Array) -> jax.Array:
    return _select(scores, k).astype(jnp.float32)


@_straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    scores, k = primals
    return _straight_through(scores, k), jnp.sign(scores) * tangents[0]


@jax.jit
def _select(scores: jax.Array, k: jax.Array) -> jax.Array:
    """Boolean mask with exactly k true entries."""
    flat = scores.reshape(-1)
    size = flat.size
    low, high, at_low, at_high = _find(_ranks, flat, _NAN + 1, k)

    def search() -> jax.Array:
        """The position before which the missing number of ranks in [low, high) lies."""
        ranks = _ranks(flat)
        positions = jnp.where((ranks >= low) & (ranks < high), lax.iota(jnp.int32, size), size)
        tied = _Interval.whole(size, at_high - at_low)
        return _narrow(partial(_count, positions), k - at_low, tied).high

    end = lax.cond(at_high == k, lambda: jnp.int32(size), search)
    return (_ranks(flat) < jnp.where(lax.iota(jnp.int32, size) < end, high, low)).reshape(scores.shape)


def _ranks(scores: jax.Array) -> jax.Array:
    """Integers that decrease as |score| increases: 0 is infinity, the largest is NaN; denormals are not flushed."""
    bits = lax.bitcast_convert_type(scores, jnp.int32) & 0x7FFFFFFF
    # Only NaN becomes negative and thus, unsigned, larger than all numbers.
    ranks = lax.bitcast_convert_type(_INFINITY - bits, jnp.uint32)
    return lax.bitcast_convert_type(jnp.minimum(ranks, jnp.uint32(_NAN)), jnp.int32)
