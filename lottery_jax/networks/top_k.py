"""The limit below which a wanted number of integers lie, in few readings of them.

An interval of limits is narrowed: each reading counts the integers below five limits, the probes. What is sought is
nearly known beforehand, so that the probes need not share out the whole interval: they lie where a sample, or a
straight line through the counts at the interval's ends, says that the limit is, and as far around as chance may err.
Where that was wrong, the next probes share out the interval evenly; so some thirty readings do for any integers.

Two million scores, 8 MB, usually take three readings: one with probes about what a sample says, which leaves some
seven thousand scores, one along the straight line, which leaves some fifty, and one that sets these apart from all
others. The floor is one reading: whoever knew the limit would still have to count.

Top-k mask of a score tensor: exact in count, ties included, without sorting.

Sorting two million scores costs more than the rest of a training step together, and a mask needs no order,
only one threshold. The bits of non-negative floats, read as integers, are ordered like the floats, so the
threshold is found by counting integers below limits (`threshold`). Where equal scores straddle it, the same
search over positions keeps the earliest.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lottery_jax.errors import InputError

Count = Callable[[list[jax.Array]], jax.Array]  # how many lie below each limit

_PROBES = 5  # on a CPU core, reading two million integers and comparing them five times take about as long

_SMALL = 2**17  # up to here a search costs no more than what would make it shorter

_SMOOTH = 2**22  # floats within half a factor of two: as wide as an interval may be for a straight line

# Of 34 cache lines of 16 integers one is sampled; rows of a power of two are not in step with that.
_RUN, _PERIOD = 16, 544

_DEPTH = 16  # integers in a column of `_set_apart`

# XLA's CPU code counts long vectors three times as fast row by row as in one go.
_ROW, _LONG = 2048, 2**15


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


def find(ranks: Callable[[jax.Array], jax.Array], numbers: jax.Array, most: int, wanted: jax.Array) -> Interval:
    """The interval of `narrow` for the integers `ranks(numbers)`: int32 in [0, most), one for each number."""
    size = numbers.size

    def below(limits: list[jax.Array]) -> jax.Array:
        # The barrier keeps the ranks in the loop, where they are computed as they are counted and never stored.
        return count(ranks(lax.optimization_barrier((numbers, limits))[0]), limits)

    interval = Interval.whole(most, size)
    if size <= _SMALL:
        return narrow(below, wanted, interval)
    few = math.isqrt(size // _DEPTH) // 4  # so few that, of thirty times, about once two share a column
    interval = narrow(below, wanted, interval, among=_guess(ranks(numbers), most, wanted), enough=few)
    apart = _set_apart(ranks(numbers), interval.low)
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

    def aim(interval: Interval, trusted: bool | jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high, at_low, at_high = interval
        stride = (high - low + _PROBES) // (_PROBES + 1)
        first, last = low + stride, low + stride * _PROBES  # always narrows
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
        return interval, aim(interval, (low >= first) & (high <= probes[-1]))

    start = aim(interval, True) if among is None else among
    return lax.while_loop(unfinished, read, (interval, start))[0]


def count(integers: jax.Array, limits: list[jax.Array]) -> jax.Array:
    """How many integers lie below each limit, int32 [limits], in one reading."""
    flat = integers.reshape(-1)
    if flat.size < _LONG:
        return jnp.stack(_sums([flat < limit for limit in limits]))
    rows = flat.size // _ROW
    body, rest = flat[: rows * _ROW].reshape(rows, _ROW), flat[rows * _ROW :]
    counts = jnp.stack(_sums(_sums([body < limit for limit in limits])))
    return counts + jnp.stack(_sums([rest < limit for limit in limits])) if rest.size else counts


def _sums(terms: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """The sums of all terms over their last axis, in one reading."""

    def add(left, right):
        return tuple(x + y for x, y in zip(left, right, strict=True))

    terms = tuple(term.astype(jnp.int32) for term in terms)
    return lax.reduce(terms, (jnp.int32(0),) * len(terms), add, (terms[0].ndim - 1,))


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
