"""Random source weights from a counter-based generator: the same bits in NumPy and JAX, on every device.

A ticket stores a seed, not weights, so a drawn weight may never depend on a library version, a device, or the
chunk it was drawn in. Element `i` of stream `s` is a pure function of (seed, s, i): `threefry` gives 32 random bits,
and integer arithmetic maps them to a float32 grid without rounding.
"""

import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np

from lottery_jax.environment import cores
from lottery_jax.errors import InputError
from lottery_jax.rng.threefry import bits_at, bits_of_blocks, multiply_high, seed_words

SAMPLER_VERSION = 1
"""Version of the map from (seed, stream, index) to a weight; tickets of another version are refused."""

MAX_SIZE = 2**32

MAX_GRID_BITS = 16
"""Bits below 1 of the finest grid's step: sums of 65,535 products of two such weights are float64 without rounding."""

_LARGEST, _LEAST = 2.0**64, 2.0**-64  # sizes of weights, so that products of two are float32 still

_TABLE_BITS = 16

_WORTH_THREADS = 16  # blocks from which drawing them side by side is worth it

_HOST_BLOCK = 1 << 16  # elements drawn at a time in NumPy, so that the rounds stay in cache

_COINS = 1 << 30  # which weights are absent, or locked, is drawn on streams that no weight uses: theirs are below 2**24


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Distribution of the weights of one source tensor.

    `uniform` on [low, high] (a 24-bit grid), `normal` with mean 0 and deviation `scale` (65,536 quantiles, so
    within 4.4 deviations), `signed_constant` (+scale or -scale), `log_uniform`: of either sign, sizes in [low, high]
    with density 1 / size (65,536 quantiles), which Orseau et al. 2020 call hyperbolic, or `grid`: the multiples of
    `scale` in [-1, 1], all of them equally likely, the quantised weights of Kumar and Natale 2025.

    density: the probability that a weight is there at all; else it is 0 (Gadhikar et al. 2023). locked: that it is
    there and in every mask (Otsuka et al. 2024). The seed decides both.

    >>> Sampler.uniform(-1, 1)
    Sampler(kind='uniform', low=-1.0, high=1.0, scale=1.0, density=1.0, locked=0.0)
    """

    kind: Literal["uniform", "normal", "signed_constant", "log_uniform", "grid"]
    low: float = -1.0
    high: float = 1.0
    scale: float = 1.0
    density: float = 1.0
    locked: float = 0.0

    def __post_init__(self) -> None:
        if type(self.density) not in (int, float) or not 0 < self.density <= 1:
            raise InputError(
                f"a sampler's density is the fraction of the weights that are there, above 0 and at most 1, not"
                f" {self.density!r}"
            )
        if type(self.locked) not in (int, float) or not 0 <= self.locked <= self.density:
            raise InputError(
                f"a sampler's locked weights are a fraction of all, from 0 to the density {self.density:g}, not"
                f" {self.locked!r}"
            )
        if self.kind not in ("uniform", "normal", "signed_constant", "log_uniform", "grid"):
            raise InputError(
                f"sampler {self.kind!r} is unknown; use uniform, normal, signed_constant, log_uniform or grid"
            )
        if not all(math.isfinite(v) for v in (self.low, self.high, self.scale)):
            raise InputError(f"sampler bounds must be finite, not {self.low}, {self.high}, {self.scale}")
        if self.kind == "uniform" and not (
            self.low < self.high and _LEAST <= max(-self.low, self.high) <= _LARGEST and _grid_steps(self)[1] > 1
        ):
            raise InputError(
                f"a uniform sampler needs low < high, more than a float32's step apart and of sizes from {_LEAST} to"
                f" {_LARGEST}, not [{self.low}, {self.high}]"
            )
        if self.kind == "log_uniform" and not (
            self.low >= _LEAST and 2 * self.low <= self.high <= _LARGEST and self.scale == 1
        ):
            raise InputError(
                f"a log-uniform sampler needs sizes from {_LEAST} to {_LARGEST}, the largest at least twice the least,"
                f" and scale 1, not [{self.low}, {self.high}] and {self.scale}"
            )
        if self.kind == "grid" and not (
            (self.low, self.high) == (-1, 1) and self.scale in [2.0**-bits for bits in range(1, MAX_GRID_BITS + 1)]
        ):
            raise InputError(
                f"a grid sampler is on [-1, 1] with a step of 2**-bits, bits from 1 to {MAX_GRID_BITS}, not on"
                f" [{self.low}, {self.high}] with a step of {self.scale}"
            )
        if self.kind in ("normal", "signed_constant") and not _LEAST <= self.scale <= _LARGEST:
            raise InputError(f"sampler scale must be positive, from {_LEAST} to {_LARGEST}, not {self.scale}")

    @classmethod
    def uniform(cls, low: float, high: float) -> "Sampler":
        return cls("uniform", low=float(low), high=float(high))

    @classmethod
    def normal(cls, scale: float) -> "Sampler":
        return cls("normal", scale=float(scale))

    @classmethod
    def signed_constant(cls, scale: float) -> "Sampler":
        return cls("signed_constant", scale=float(scale))

    @classmethod
    def log_uniform(cls, low: float, high: float) -> "Sampler":
        return cls("log_uniform", low=float(low), high=float(high))

    @classmethod
    def grid(cls, bits: int) -> "Sampler":
        return cls("grid", scale=2.0**-bits)

    def in_words(self) -> str:
        """As people write it.

        >>> Sampler.uniform(-1, 1).in_words(), Sampler.signed_constant(0.5).in_words()
        ('U[-1, 1]', '+-0.5')
        """
        if self.locked > 0:
            return f"{dataclasses.replace(self, locked=0.0).in_words()}, {self.locked:.3g} of them always kept"
        if self.density < 1:
            return f"{dataclasses.replace(self, density=1.0).in_words()}, {1 - self.density:.3g} of them absent"
        if self.kind == "uniform":
            return f"U[{self.low:.6g}, {self.high:.6g}]"
        if self.kind == "log_uniform":
            return f"+-log-U[{self.low:.6g}, {self.high:.6g}]"
        if self.kind == "grid":
            return f"{{-1, ..., 1}} in steps of 1/{round(1 / self.scale)}"
        return f"+-{self.scale:.6g}" if self.kind == "signed_constant" else f"N(0, {self.scale:.6g}^2)"

    @property
    def largest(self) -> float:
        """No weight is larger, of either sign.

        >>> Sampler.uniform(-1, 0.5).largest, Sampler.normal(2).largest
        (1.0, 9.0)
        """
        if self.kind in ("normal", "signed_constant"):
            return self.scale * (4.5 if self.kind == "normal" else 1.0)
        return max(abs(self.low), abs(self.high))

    @property
    def standard_deviation(self) -> float:
        if self.density < 1:
            return dataclasses.replace(self, density=1.0).standard_deviation * math.sqrt(self.density)
        if self.kind == "grid":
            return math.sqrt((1 + self.scale) / 3)
        if self.kind == "log_uniform":
            return math.sqrt((self.high - self.low) * (self.high + self.low) / 2 / math.log(self.high / self.low))
        return (self.high - self.low) / math.sqrt(12) if self.kind == "uniform" else self.scale


@functools.lru_cache(maxsize=4)
def _normal_table(scale: float) -> np.ndarray:
    half = 1 << (_TABLE_BITS - 1)
    upper = [NormalDist().inv_cdf(0.5 + (i + 0.5) / (2 * half)) for i in range(half)]
    # The quantiles are rounded to 2**-20 first, so that the last bit of a platform's log cannot show.
    grid = np.round(np.asarray(upper) * 2.0**20) / 2.0**20
    return (np.concatenate([-grid[::-1], grid]) * scale).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _log_uniform_table(low: float, high: float) -> np.ndarray:
    half = 1 << (_TABLE_BITS - 1)
    fraction, exponent = np.frexp(low * (high / low) ** ((np.arange(half) + 0.5) / half))
    # To 20 bits, so that the last bit of a platform's power cannot show; neighbours are 2**-16 apart at least.
    upper = np.ldexp(np.round(fraction * 2.0**20), exponent - 20)
    return np.concatenate([-upper[::-1], upper]).astype(np.float32)


class UniformGrid(NamedTuple):
    """A uniform or grid sampler as numbers: weights are (first, first + 1, ..., first + count - 1) * step."""

    first: np.int32
    count: np.uint32
    step: np.float32

    def weights(self, bits: Any, xp: Any) -> Any:
        steps = multiply_high(bits, self.count, xp).astype(xp.int32) + xp.asarray(self.first)
        return steps.astype(xp.float32) * self.step


class Quantiles(NamedTuple):
    """A sampler as a table of equally likely values, 2**_TABLE_BITS of them."""

    table: np.ndarray

    def weights(self, bits: Any, xp: Any) -> Any:
        return xp.asarray(self.table)[bits >> xp.uint32(32 - _TABLE_BITS)]


class TwoValues(NamedTuple):
    """A sampler of +value and -value."""

    value: np.float32

    def weights(self, bits: Any, xp: Any) -> Any:
        return xp.where(bits >> xp.uint32(31) == 1, self.value, -self.value)


class Thinned(NamedTuple):
    """A sampler some of whose weights are absent: those whose coin, 32 random bits, is not below a limit."""

    present: "UniformGrid | Quantiles | TwoValues"
    limit: np.uint32

    def weights(self, bits: Any, coins: Any, xp: Any) -> Any:
        return xp.where(coins < self.limit, self.present.weights(bits, xp), xp.float32(0))


SamplerArrays = UniformGrid | Quantiles | TwoValues | Thinned
"""A sampler as arrays: a compiled program takes them as arguments, so that it serves every sampler of a kind."""


def sampler_arrays(sampler: Sampler) -> SamplerArrays:
    """A sampler as the numbers by which random bits become weights.

    >>> grid = sampler_arrays(Sampler.uniform(-1, 1))
    >>> int(grid.first), int(grid.count)
    (-16777216, 33554433)
    """
    if sampler.density < 1:
        whole = sampler_arrays(dataclasses.replace(sampler, density=1.0))
        assert not isinstance(whole, Thinned)
        return Thinned(whole, np.uint32(_limit(sampler.density)))
    if sampler.kind == "normal":
        return Quantiles(_normal_table(sampler.scale))
    if sampler.kind == "signed_constant":
        return TwoValues(np.float32(sampler.scale))
    if sampler.kind == "log_uniform":
        return Quantiles(_log_uniform_table(sampler.low, sampler.high))
    first, count, exponent = _grid_steps(sampler)
    return UniformGrid(np.int32(first), np.uint32(count), np.float32(2.0**-exponent))


def _limit(fraction: float) -> int:
    """Coins below it are this fraction of all, one of them at least and not all."""
    return min(max(round(fraction * 2.0**32), 1), 2**32 - 1)


def forced_at(sampler: Sampler, key: tuple[Any, Any], stream: Any, index: Any) -> np.ndarray:
    """What the seed decides of the weights at uint32 positions of streams: -1 absent, 1 always kept, 0 neither."""
    coins = bits_at(key, np.asarray(stream).astype(np.uint32) ^ np.uint32(_COINS), index, np)
    found = np.zeros(coins.shape, np.int8)
    if sampler.density < 1:
        found[coins >= _limit(sampler.density)] = -1
    if sampler.locked > 0:
        found[(coins < _limit(sampler.locked)) & (found == 0)] = 1
    return found


def _grid_steps(sampler: Sampler) -> tuple[int, int, int]:
    """First step, number of steps, and how many bits a step is below 1, of a uniform or grid sampler."""
    if sampler.kind == "grid":
        each = round(1 / sampler.scale)
        return -each, 2 * each + 1, each.bit_length() - 1
    exponent = 24 - math.ceil(math.log2(max(abs(sampler.low), abs(sampler.high))))
    first, last = math.ceil(sampler.low * 2.0**exponent), math.floor(sampler.high * 2.0**exponent)
    return first, last - first + 1, exponent


def draw_pairs(arrays: SamplerArrays, key: tuple[Any, Any], stream: Any, first: Any, pairs: int, xp: Any = np) -> Any:
    """The weights at positions 2 * first ... 2 * (first + pairs) - 1 of a stream, float32 [2 * pairs].

    `xp` is `numpy` or `jax.numpy`; both give the same bits, on every device.
    """
    block = xp.arange(pairs, dtype=xp.uint32) + xp.asarray(first).astype(xp.uint32)
    return _weights(arrays, lambda stream: bits_of_blocks(key, stream, block, xp), stream, xp)


def draw_at(arrays: SamplerArrays, key: tuple[Any, Any], stream: Any, index: Any, xp: Any = np) -> Any:
    """Weights at the uint32 positions `index` of a stream: float32, the shape of `index`.

    `xp` is as in `draw_pairs`. Each position costs a whole Threefry block, which `draw_pairs` shares between two
    neighbours.
    """
    return _weights(arrays, lambda stream: bits_at(key, stream, index, xp), stream, xp)


def _weights(arrays: SamplerArrays, bits: Callable[[Any], Any], stream: Any, xp: Any) -> Any:
    """Weights of what `bits` gives for a stream uint32; of a thinned sampler also for the stream of its coins."""
    own = xp.asarray(stream).astype(xp.uint32)
    if isinstance(arrays, Thinned):
        return arrays.weights(bits(own), bits(own ^ xp.uint32(_COINS)), xp)
    return arrays.weights(bits(own), xp)


def draw_host(sampler: Sampler, *, seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """All weights of a stream in row-major order, with NumPy alone: what `verify` uses.

    >>> draw_host(Sampler.uniform(-1, 1), seed=0, stream=0, shape=(2,))
    array([-0.16308576,  0.20099819], dtype=float32)
    """
    return draw_range(sampler, seed=seed, stream=stream, first=0, count=_checked_size(shape)).reshape(shape)


def draw_range(sampler: Sampler, *, seed: int, stream: int, first: int, count: int) -> np.ndarray:
    """The weights at positions first ... first + count - 1 of a stream, with NumPy alone: a part of `draw_host`.

    >>> draw_range(Sampler.uniform(-1, 1), seed=0, stream=0, first=1, count=1)
    array([0.20099819], dtype=float32)
    """
    if not 0 <= first <= first + count <= MAX_SIZE:
        raise InputError(f"positions {first} to {first + count} are not within the 2**32 of a stream")
    # Threefry gives two neighbours at once: from the even position before to the one after.
    key, begin, end = seed_words(seed), first - first % 2, first + count + (first + count) % 2
    drawn = sampler_arrays(sampler)
    flat = np.empty(end - begin, np.float32)

    def draw(start: int) -> None:
        stop = min(start + _HOST_BLOCK, end)
        flat[start - begin : stop - begin] = draw_pairs(drawn, key, stream, start // 2, (stop - start) // 2)

    starts = range(begin, end, _HOST_BLOCK)
    if len(starts) < _WORTH_THREADS:
        for start in starts:
            draw(start)
    else:
        with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
            list(pool.map(draw, starts))
    return flat[first - begin :][:count]


def _checked_size(shape: tuple[int, ...]) -> int:
    size = math.prod(shape)
    if not 0 < size < MAX_SIZE:
        raise InputError(f"a source tensor needs 1 to 2**32 - 1 weights, not shape {tuple(shape)}")
    return size
