"""The limit below which a wanted number of integers lie, in few readings of them.

An interval of limits is narrowed: each reading counts the integers below seven probes. What is sought is nearly known
beforehand, so the probes need not share out the whole interval: they lie where a sample, or a straight line through
the counts at the interval's ends, says that the limit is, as far around it as chance may err. Where the guess is
wrong, the next probes share out the interval evenly, so that any integers at all take at most some twenty readings.

Two million scores take three, where an even search takes eleven: the first among the probes of the sample, which leaves
some four thousand scores, the second along the straight line, which leaves some thirty, and one that sets these thirty
apart from all others. The floor is one reading, without a sample and with a limit that is known.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Count = Callable[[list[jax.Array]], jax.Array]  # how many lie below each limit

# Seven probes a reading lie between memory-bound (one probe) and compute-bound (thirty-one) on a CPU core.
_PROBES = 7
_SMALL = 2**17  # up to here a search costs no more than what would make it shorter
_SMOOTH = 2**22  # floats within half a factor of two: as wide as an interval may be for a straight line
# Of each 544 integers 16 neighbours, a cache line, are sampled: 34 lines, so that no power of two is in step.
_RUN, _PERIOD = 16, 544
_DEPTH = 16  # integers of which the set-apart keeps one
_ROW = 2048  # integers that one thread counts


class Interval(NamedTuple):
    """Limits low < high, and how many integers lie below them: at_low < wanted <= at_high."""

    low: jax.Array
    high: jax.Array
    at_low: jax.Array
    at_high: jax.Array

    @classmethod
    def whole(cls, most: int, total: int | jax.Array) -> "Interval":
        """Of `total` integers in [0, most); low is -1, so that even wanted = 0 is reached inside."""
        return cls(jnp.int32(-1), jnp.int32(most), jnp.int32(0), jnp.asarray(total, jnp.int32))


def find(integers: Callable[[], jax.Array], size: int, most: int, wanted: jax.Array) -> Interval:
    """The interval of `narrow`, for what `integers()` gives: int32 [size] in [0, most).

    It is called in every reading, so that what it computes is fused with that and not written down.
    """

    def below(limits: list[jax.Array]) -> jax.Array:
        return count(integers(), limits)

    interval = Interval.whole(most, size)
    if size <= _SMALL:
        return narrow(below, wanted, interval)
    few = math.isqrt(size // _DEPTH) // 4  # of so few, two share a column once in thirty times
    interval = narrow(below, wanted, interval, among=_guess(integers(), most, wanted), enough=few)
    apart = _set_apart(integers(), interval.low)
    width = (interval.high - interval.low).astype(jnp.uint32)
    all_there = jnp.sum((apart < width).astype(jnp.int32)) == interval.at_high - interval.at_low

    def below_apart(limits: list[jax.Array]) -> jax.Array:
        return interval.at_low + count(apart, [(limit - interval.low).astype(jnp.uint32) for limit in limits])

    found = narrow(below_apart, wanted, interval, enough=jnp.where(all_there, 0, size))
    return narrow(below, wanted, found)  # no reading, unless two shared a column


def narrow(
    below: Count,
    wanted: jax.Array,
    interval: Interval,
    *,
    among: tuple[jax.Array, jax.Array] | None = None,
    enough: int | jax.Array = 0,
    even: bool = False,
) -> Interval:
    """The interval narrowed until at_high == wanted, its width is 1, or at most `enough` integers are left in it.

    `among`: where the limit is at first looked for. `even`: share out the interval evenly, always.
    """

    def line(interval: Interval, trusted: bool | jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high, at_low, at_high = interval
        stride = (high - low + _PROBES) // (_PROBES + 1)
        first, last = low + stride, low + stride * _PROBES
        if even:
            return first, last
        left = jnp.maximum(at_high - at_low, 1).astype(jnp.float32)
        part = (wanted - at_low).astype(jnp.float32) / left
        by_line = _around(interval, wanted, 2.5 * jnp.sqrt(left * part * jnp.maximum(1 - part, 0)), low + 1, high - 1)
        trusted &= high - low <= _SMOOTH
        return jnp.where(trusted, by_line[0], first), jnp.where(trusted, by_line[1], last)

    def unfinished(state: tuple[Interval, tuple]) -> jax.Array:
        low, high, at_low, at_high = state[0]
        return (high - low > 1) & (at_high != wanted) & (at_high - at_low > enough)

    def read(state: tuple[Interval, tuple]) -> tuple[Interval, tuple]:
        (low, high, at_low, at_high), (first, last) = state
        step = jnp.maximum((last - first + _PROBES - 2) // (_PROBES - 1), 1)
        probes = [first + step * i for i in range(_PROBES)]
        counts = list(below(probes))
        inside = [(probe > low) & (probe < high) for probe in probes]
        for probe, here, within in zip(probes, counts, inside, strict=True):
            missed = within & (here < wanted)
            low, at_low = jnp.where(missed, probe, low), jnp.where(missed, here, at_low)
        for probe, here, within in zip(probes[::-1], counts[::-1], inside[::-1], strict=True):
            reached = within & (here >= wanted)
            high, at_high = jnp.where(reached, probe, high), jnp.where(reached, here, at_high)
        interval = Interval(low, high, at_low, at_high)
        return interval, line(interval, (low >= first) & (high <= probes[-1]))

    start = line(interval, True) if among is None else among
    return lax.while_loop(unfinished, read, (interval, start))[0]


def count(integers: jax.Array, limits: list[jax.Array]) -> jax.Array:
    """How many integers lie below each limit, int32 [limits], in one reading."""
    flat = integers.reshape(-1)
    if flat.size < 2 * _ROW:
        return jnp.stack(_sums(flat, limits))
    # Rows are shared out among threads.
    rows = flat.size // _ROW
    counts = jnp.stack([jnp.sum(row) for row in _sums(flat[: rows * _ROW].reshape(rows, _ROW), limits)])
    return counts + jnp.stack(_sums(flat[rows * _ROW :], limits)) if flat.size % _ROW else counts


def _sums(integers: jax.Array, limits: list[jax.Array]) -> tuple[jax.Array, ...]:
    def add(left, right):
        return tuple(x + y for x, y in zip(left, right, strict=True))

    terms = tuple((integers < limit).astype(jnp.int32) for limit in limits)
    return lax.reduce(terms, (jnp.int32(0),) * len(limits), add, (integers.ndim - 1,))


def _guess(integers: jax.Array, most: int, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Limits between which a sample says that the one for `wanted` lies."""
    flat = integers.reshape(-1)
    periods = flat.size // _PERIOD
    sample = flat[: periods * _PERIOD].reshape(periods, _PERIOD)[:, :_RUN]
    part = wanted.astype(jnp.float32) / flat.size
    middle = jnp.round(part * sample.size).astype(jnp.int32)
    error = 3.5 * jnp.sqrt(sample.size * part * jnp.maximum(1 - part, 0)) + 1
    # Four times the error is wide enough to hold many of the sample, and not so wide that they crowd somewhere.
    enough = (4 * error).astype(jnp.int32)
    whole = Interval.whole(most, sample.size)
    interval = narrow(partial(count, sample), middle, whole, enough=enough, even=True)
    return _around(interval, middle, error, whole.low, whole.high)


def _around(
    interval: Interval, wanted: jax.Array, error: jax.Array, least: jax.Array, most: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Limits `error` integers before and after `wanted` on the line through the interval's ends, in [least, most]."""
    low, high, at_low, at_high = interval
    each = (high - low).astype(jnp.float32) / jnp.maximum(at_high - at_low, 1).astype(jnp.float32)
    middle = (wanted - at_low).astype(jnp.float32)
    ends = (jnp.floor((middle - error - 1) * each), jnp.ceil((middle + error + 1) * each))
    shortest, longest = (least - low).astype(jnp.float32), (most - low).astype(jnp.float32)
    # Offsets are clipped before they are added: as float32, the limits themselves would be coarse.
    first, last = (low + jnp.clip(end, shortest, longest).astype(jnp.int32) for end in ends)
    return first, last


def _set_apart(integers: jax.Array, low: jax.Array) -> jax.Array:
    """Of each column of sixteen integers the least that is not below low, less low: uint32."""
    columns = integers.size // _DEPTH
    offsets = lax.bitcast_convert_type(integers.reshape(-1) - low, jnp.uint32)  # what is below becomes very large
    body, rest = offsets[: columns * _DEPTH].reshape(_DEPTH, columns), offsets[columns * _DEPTH :]
    return jnp.concatenate([jnp.min(body, 0), rest])
