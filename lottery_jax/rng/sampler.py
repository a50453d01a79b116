"""Samplers: random source weights from a counter-based generator, bit-equal in NumPy and JAX on every device.

A ticket stores a seed instead of weights, so a weight must not depend on library versions, devices or chunks.
Weight i of stream s is a pure function of (seed, s, i): ``threefry`` gives 32 random bits, and integer arithmetic maps
them to float32 without rounding.
"""

import concurrent.futures
import dataclasses
import functools
import math
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np

from lottery_jax.environment import cores
from lottery_jax.errors import InputError
from lottery_jax.rng.threefry import bits_at, bits_of_blocks, multiply_high, seed_words

SAMPLER_VERSION = 1
"""Version of the map from (seed, stream, position) to a weight; tickets of another version are refused."""

MAX_SIZE = 2**32

MAX_GRID_BITS = 16
"""The finest grid sampler has a step of 2**-16, so that a float64 holds sums of 65,535 products exactly."""

_LARGEST, _LEAST = 2.0**64, 2.0**-64  # of |weight|, so that a product of two is in the float32 range

_TABLE_BITS = 16

_MIN_THREADED_BLOCKS = 16

_HOST_BLOCK = 1 << 16  # weights per NumPy call, which stay in the cache

_FORCED_STREAMS = 1 << 30  # added to a stream for absent and locked weights; streams of weights are below 2**24


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Distribution of the weights of one random tensor.

    Kinds:
        uniform: On [low, high], a grid of 24 bits.
        normal: Mean 0 and standard deviation ``scale``, as 65,536 quantiles within 4.4 deviations.
        signed_constant: +scale or -scale.
        log_uniform: Random sign, |weight| in [low, high] with density 1 / |weight|, as 65,536 quantiles; the
            hyperbolic distribution of Orseau et al. 2020.
        grid: Multiples of ``scale`` in [-1, 1], equally likely; the quantised weights of Kumar and Natale 2025.

    Args:
        kind: The distribution.
        low: Lower bound.
        high: Upper bound.
        scale: Standard deviation, value or step.
        density: Probability that a weight is present; an absent one is 0 (Gadhikar et al. 2023).
        locked: Probability that a weight is present and kept by every mask (Otsuka et al. 2024).

    Raises:
        InputError: A parameter is out of range.

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
                f"a sampler's density is the fraction of present weights, above 0 and at most 1, got {self.density!r}"
            )
        if type(self.locked) not in (int, float) or not 0 <= self.locked <= self.density:
            raise InputError(
                f"a sampler's locked weights are a fraction of all, from 0 to the density {self.density:g}, got"
                f" {self.locked!r}"
            )
        if self.kind not in ("uniform", "normal", "signed_constant", "log_uniform", "grid"):
            raise InputError(
                f"sampler {self.kind!r} is unknown; use uniform, normal, signed_constant, log_uniform or grid"
            )
        if not all(map(math.isfinite, (self.low, self.high, self.scale))):
            raise InputError(f"sampler bounds must be finite, got {self.low}, {self.high}, {self.scale}")
        if self.kind == "uniform" and not (
            self.low < self.high and _LEAST <= max(-self.low, self.high) <= _LARGEST and _grid_steps(self)[1] > 1
        ):
            raise InputError(
                f"a uniform sampler needs low < high, more than a float32's step apart and of sizes from {_LEAST} to"
                f" {_LARGEST}, got [{self.low}, {self.high}]"
            )
        if self.kind == "log_uniform" and not (
            self.low >= _LEAST and 2 * self.low <= self.high <= _LARGEST and self.scale == 1
        ):
            raise InputError(
                f"a log-uniform sampler needs sizes from {_LEAST} to {_LARGEST}, the largest at least twice the least,"
                f" and scale 1, got [{self.low}, {self.high}] and {self.scale}"
            )
        if self.kind == "grid" and not (
            (self.low, self.high) == (-1, 1) and self.scale in [2.0**-bits for bits in range(1, MAX_GRID_BITS + 1)]
        ):
            raise InputError(
                f"a grid sampler is on [-1, 1] with a step of 2**-bits, bits from 1 to {MAX_GRID_BITS}, got"
                f" [{self.low}, {self.high}] with a step of {self.scale}"
            )
        if self.kind in ("normal", "signed_constant") and not _LEAST <= self.scale <= _LARGEST:
            raise InputError(f"sampler scale must be positive, from {_LEAST} to {_LARGEST}, got {self.scale}")

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
        """The distribution in mathematical notation.

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
        """Upper bound of |weight|.

        >>> Sampler.uniform(-1, 0.5).largest, Sampler.normal(2).largest
        (1.0, 9.0)
        """
        if self.kind in ("normal", "signed_constant"):
            return self.scale * (4.5 if self.kind == "normal" else 1.0)
        return max(abs(self.low), abs(self.high))

    @property
    def standard_deviation(self) -> float:
        """Of the weights, absent ones included."""
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
    # Rounded to 2**-20 first, so that they are equal on platforms whose logarithms differ in the last bit.
    grid = np.round(np.asarray(upper) * 2.0**20) / 2.0**20
    return (np.concatenate([-grid[::-1], grid]) * scale).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _log_uniform_table(low: float, high: float) -> np.ndarray:
    half = 1 << (_TABLE_BITS - 1)
    fraction, exponent = np.frexp(low * (high / low) ** ((np.arange(half) + 0.5) / half))
    # Rounded to 20 bits, so that they are equal on platforms whose powers differ in the last bit.
    upper = np.ldexp(np.round(fraction * 2.0**20), exponent - 20)
    return np.concatenate([-upper[::-1], upper]).astype(np.float32)


class UniformGrid(NamedTuple):
    """Weights first * step, (first + 1) * step, ..., (first + count - 1) * step, equally likely."""

    first: np.int32
    count: np.uint32
    step: np.float32

    def weights(self, bits: Any, xp: Any) -> Any:
        steps = multiply_high(bits, self.count, xp).astype(xp.int32) + xp.asarray(self.first)
        return steps.astype(xp.float32) * self.step


class Quantiles(NamedTuple):
    """A table of 2**16 equally likely weights."""

    table: np.ndarray

    def weights(self, bits: Any, xp: Any) -> Any:
        return xp.asarray(self.table)[bits >> xp.uint32(32 - _TABLE_BITS)]


class TwoValues(NamedTuple):
    """Weights +value and -value."""

    value: np.float32

    def weights(self, bits: Any, xp: Any) -> Any:
        return xp.where(bits >> xp.uint32(31) == 1, self.value, -self.value)


class Thinned(NamedTuple):
    """A sampler with absent weights: those whose second 32 random bits are not below ``limit``."""

    present: "UniformGrid | Quantiles | TwoValues"
    limit: np.uint32

    def weights(self, bits: Any, forced_bits: Any, xp: Any) -> Any:
        return xp.where(forced_bits < self.limit, self.present.weights(bits, xp), xp.float32(0))


SamplerArrays = UniformGrid | Quantiles | TwoValues | Thinned
"""A sampler as arrays: arguments of a compiled program, which then serves every sampler of a kind."""


def sampler_arrays(sampler: Sampler) -> SamplerArrays:
    """The arrays that map random bits to the weights of a sampler.

    >>> grid = sampler_arrays(Sampler.uniform(-1, 1))
    >>> int(grid.first), int(grid.count)
    (-16777216, 33554433)
    """
    if sampler.density < 1:
        present = sampler_arrays(dataclasses.replace(sampler, density=1.0))
        assert not isinstance(present, Thinned)
        return Thinned(present, np.uint32(_limit(sampler.density)))
    if sampler.kind == "normal":
        return Quantiles(_normal_table(sampler.scale))
    if sampler.kind == "signed_constant":
        return TwoValues(np.float32(sampler.scale))
    if sampler.kind == "log_uniform":
        return Quantiles(_log_uniform_table(sampler.low, sampler.high))
    first, count, exponent = _grid_steps(sampler)
    return UniformGrid(np.int32(first), np.uint32(count), np.float32(2.0**-exponent))


def _limit(fraction: float) -> int:
    """The uint32 below which lies this fraction of all: at least one and not all."""
    return min(max(round(fraction * 2.0**32), 1), 2**32 - 1)


def forced_at(sampler: Sampler, key: tuple[Any, Any], stream: Any, index: Any) -> np.ndarray:
    """Forced mask entries at positions of streams: -1 absent, 1 locked, 0 free, int8."""
    bits = bits_at(key, np.asarray(stream).astype(np.uint32) ^ np.uint32(_FORCED_STREAMS), index, np)
    found = np.zeros(bits.shape, np.int8)
    if sampler.density < 1:
        found[bits >= _limit(sampler.density)] = -1
    if sampler.locked > 0:
        found[(bits < _limit(sampler.locked)) & (found == 0)] = 1
    return found


def _grid_steps(sampler: Sampler) -> tuple[int, int, int]:
    """First multiple, number of multiples, and b for a step of 2**-b, of a uniform or grid sampler."""
    if sampler.kind == "grid":
        last = round(1 / sampler.scale)
        return -last, 2 * last + 1, last.bit_length() - 1
    exponent = 24 - math.ceil(math.log2(max(abs(sampler.low), abs(sampler.high))))
    first, last = math.ceil(sampler.low * 2.0**exponent), math.floor(sampler.high * 2.0**exponent)
    return first, last - first + 1, exponent


def draw_pairs(arrays: SamplerArrays, key: tuple[Any, Any], stream: Any, first: Any, pairs: int, xp: Any = np) -> Any:
    """The weights at positions 2 * first ... 2 * (first + pairs) - 1 of a stream, float32 [2 * pairs].

    ``xp`` is ``numpy`` or ``jax.numpy``; both give the same bits.
    """
    block = xp.arange(pairs, dtype=xp.uint32) + xp.asarray(first).astype(xp.uint32)
    stream = xp.asarray(stream).astype(xp.uint32)
    bits = bits_of_blocks(key, stream, block, xp)
    if isinstance(arrays, Thinned):
        return arrays.weights(bits, bits_of_blocks(key, stream ^ xp.uint32(_FORCED_STREAMS), block, xp), xp)
    return arrays.weights(bits, xp)


def draw_at(arrays: SamplerArrays, key: tuple[Any, Any], stream: Any, index: Any, xp: Any = np) -> Any:
    """Weights at positions ``index`` of a stream, or of one stream for each: float32, the shape of ``index``.

    Each position costs one Threefry block, of which ``draw_pairs`` uses both words.
    """
    stream = xp.asarray(stream).astype(xp.uint32)
    bits = bits_at(key, stream, index, xp)
    if isinstance(arrays, Thinned):
        return arrays.weights(bits, bits_at(key, stream ^ xp.uint32(_FORCED_STREAMS), index, xp), xp)
    return arrays.weights(bits, xp)


def draw_host(sampler: Sampler, *, seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """The first weights of a stream as an array of ``shape``, row-major, drawn with NumPy only.

    >>> draw_host(Sampler.uniform(-1, 1), seed=0, stream=0, shape=(2,))
    array([-0.16308576,  0.20099819], dtype=float32)
    """
    size = math.prod(shape)
    if not 0 < size < MAX_SIZE:
        raise InputError(f"a source tensor needs 1 to 2**32 - 1 weights, not shape {tuple(shape)}")
    return draw_range(sampler, seed=seed, stream=stream, first=0, count=size).reshape(shape)


def draw_range(sampler: Sampler, *, seed: int, stream: int, first: int, count: int) -> np.ndarray:
    """The weights at positions first ... first + count - 1 of a stream, float32, drawn with NumPy only.

    >>> draw_range(Sampler.uniform(-1, 1), seed=0, stream=0, first=1, count=1)
    array([0.20099819], dtype=float32)
    """
    if not 0 <= first <= first + count <= MAX_SIZE:
        raise InputError(f"positions {first} to {first + count} are not within the 2**32 of a stream")
    # Threefry gives two adjacent positions at once.
    key, begin, end = seed_words(seed), first - first % 2, first + count + (first + count) % 2
    arrays = sampler_arrays(sampler)
    flat = np.empty(end - begin, np.float32)

    def draw(start: int) -> None:
        stop = min(start + _HOST_BLOCK, end)
        flat[start - begin : stop - begin] = draw_pairs(arrays, key, stream, start // 2, (stop - start) // 2)

    starts = range(begin, end, _HOST_BLOCK)
    if len(starts) < _MIN_THREADED_BLOCKS:
        for start in starts:
            draw(start)
    else:
        with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
            list(pool.map(draw, starts))
    return flat[first - begin :][:count]
