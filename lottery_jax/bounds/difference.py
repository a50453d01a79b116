"""Intervals of arrays in float64, rounded outwards: what is inside stays inside whatever rounding does.

The linear maps of dense layers and convolutions, and their transposes, in float64.
What lies between two layers of a target f and a ticket's network g: intervals of f, and of g - f, for all inputs.

One layer after the other: a difference grows by the weights, and by how far the ticket's weights are from the target's
times what goes in; an activation multiplies it by a slope that it has between both.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.activations import Activation, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.node import LinearLayer, Node, StatelessLayer, Weights

SLACK = 2.0**-40
"""Relative, for each sum of up to 2**12 products of float64: 2**-53 for each term, and as much to spare."""


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """Arrays between low and high, float64, place by place.

    >>> both = Box(np.array([-1.0]), np.array([2.0])) + Box(np.array([0.5]), np.array([0.5]))
    >>> bool(both.low[0] <= -0.5 <= 2.5 <= both.high[0])
    True
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """The largest size."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def centre(self) -> np.ndarray:
        return (self.low + self.high) / 2

    @property
    def radius(self) -> np.ndarray:
        """Half the width from the centre, and a little more."""
        return (self.high - self.low) / 2 * (1 + SLACK) + SLACK * self.largest * 2.0**-8

    def __add__(self, other: "Box") -> "Box":
        return Box(self.low + other.low, self.high + other.high).wider()

    def meet(self, other: "Box") -> "Box":
        """What is in both."""
        return Box(np.maximum(self.low, other.low), np.minimum(self.high, other.high))

    def wider(self, more: np.ndarray | float = 0.0) -> Self:
        """The interval with the last bits, and `more`, to spare."""
        room = more + SLACK * 2.0**-8 * self.largest + np.finfo(np.float64).tiny
        return dataclasses.replace(self, low=self.low - room, high=self.high + room)


def times(slopes: Box, values: Box) -> Box:
    """All products of slopes that are not negative with values."""
    low = np.minimum(slopes.low * values.low, slopes.high * values.low)
    high = np.maximum(slopes.low * values.high, slopes.high * values.high)
    return Box(low, high).wider()


Map = Callable[[np.ndarray], np.ndarray]
"""Arrays [B, *in] to [B, *out]."""


def linear_map(of: LinearLayer, weight: np.ndarray) -> Map:
    """x [B, *in] -> the operation with these weights and no bias, [B, *out]."""
    return lambda x: _in_float64(lambda weight, x: _applied(of, weight, x), weight, x)


def transposed_map(of: LinearLayer | StatelessLayer, weight: np.ndarray | None, given: tuple[int, ...]) -> Map:
    """The transpose: coefficients [B, *out] of what comes out to those [B, *in] of what is `given`.

    weight: of an operation; None for a node that has none and is linear but for a constant.
    """
    return lambda rows: _in_float64(
        lambda weight, rows: _turned(of, given, weight, rows), np.zeros(0) if weight is None else weight, rows
    )


def exactly(node: StatelessLayer, x: np.ndarray) -> np.ndarray:
    """A node without weights, of examples [B, ...], in float64."""
    return _in_float64(lambda x: _called(node, x), x)


def _in_float64(function: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        return np.asarray(function(*(jnp.asarray(array, jnp.float64) for array in arrays)))


@functools.partial(jax.jit, static_argnums=0)
def _called(node: StatelessLayer, x: jax.Array) -> jax.Array:
    return node(x)  # type: ignore[operator]


@functools.partial(jax.jit, static_argnums=0)
def _applied(of: LinearLayer, weight: jax.Array, x: jax.Array) -> jax.Array:
    # Biases are added by those who ask, where they know what differs.
    zero = {"bias": jnp.zeros(of.outputs, x.dtype)} if "bias" in of.tensors() else {}
    return of.module(Weights({"weight": weight, **zero}))(x)  # type: ignore[operator]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _turned(of: LinearLayer | StatelessLayer, given: tuple[int, ...], weight: jax.Array, rows: jax.Array) -> jax.Array:
    def map_of(x: jax.Array) -> jax.Array:
        return _applied(of, weight, x) if isinstance(of, LinearLayer) else _called(of, x)

    # Constants have no slope; any place serves, for these maps have none that depends on it.
    (found,) = jax.vjp(map_of, jnp.zeros((len(rows), *given), rows.dtype))[1](rows)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """The target's values f [*shape], and the difference g - f [*shape]."""

    f: Box
    difference: Box

    @property
    def g(self) -> Box:
        return self.f + self.difference


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A layer of both networks: the target's weight and bias, and the ticket's for inputs of each sign [signs, ...]."""

    of: Dense | Conv | RotationConv
    weight: np.ndarray
    bias: np.ndarray
    made: np.ndarray
    made_bias: np.ndarray

    def through(self, given: Pair) -> Pair:
        """What comes out."""
        f = self._times(self.weight, given.f)
        shifted = Box(f.low + self.bias, f.high + self.bias).wider()
        return Pair(shifted, self._times(self.weight, given.difference) + self.error(given))

    def error(self, given: Pair) -> Box:
        """(the ticket's weights - the target's) times the ticket's input, and the same of biases."""
        change = self.made_bias - self.bias
        total = Box(change, change).wider(SLACK * (np.abs(self.made_bias) + np.abs(self.bias)))
        if len(self.made) == 1:
            return total + self._times(self.made[0] - self.weight, given.g, self.made[0])
        for made, part in zip(self.made, (_positive(given.g), _negative(given.g)), strict=True):
            total = total + self._times(made - self.weight, part, made)
        # An input has one sign at a time: the sum over both counts it twice where it may have either.
        return total.meet(self.at_most(np.abs(self.made - self.weight).max(0), np.abs(change), given))

    def at_most(self, residual: np.ndarray, of_bias: np.ndarray, given: Pair) -> Box:
        """Residuals of these sizes, whatever their signs, times the ticket's input."""
        inputs = given.g.largest[None]
        spread = linear_map(self.of, residual)(inputs)[0] + of_bias
        slack = linear_map(self.of, 2 * np.abs(self.weight) + residual)(inputs)[0] + 2 * np.abs(self.bias) + of_bias
        return Box(-spread, spread).wider(SLACK * slack)

    def _times(self, weight: np.ndarray, given: Box, made: np.ndarray | None = None) -> Box:
        """Weights times an interval; what the weights were summed from is rounded, too, where they were made."""
        centre, radius = linear_map(self.of, weight)(given.centre[None])[0], given.radius[None]
        spread = linear_map(self.of, np.abs(weight))(radius)[0]
        size = np.abs(weight) if made is None else np.abs(made) + np.abs(self.weight)
        slack = SLACK * linear_map(self.of, size)(given.largest[None])[0]
        return Box(centre - spread, centre + spread).wider(slack)


@dataclasses.dataclass(frozen=True, eq=False)
class Promised(Layer):
    """A layer of any ticket whose weights are all within a tolerance: `made` is not looked at."""

    tolerance: float

    def error(self, given: Pair) -> Box:
        of_bias = np.full_like(self.bias, self.tolerance if self.of.bias else 0.0)
        return self.at_most(np.full_like(self.weight, self.tolerance), of_bias, given)


@functools.singledispatch
def through(node: Node, given: Pair) -> Pair:
    """What comes out of a node without weights; raises `InputError` where no bound is known."""
    raise InputError(
        f"there is no bound of the output through {node.kind!r}; it is there for dense layers, convolutions (of"
        " rotations, too), ReLU, LeakyReLU, tanh, sigmoid, pooling and residual blocks"
    )


@through.register
def _(node: Activation, given: Pair) -> Pair:
    hull = Box(np.minimum(given.f.low, given.g.low), np.maximum(given.f.high, given.g.high))
    ends = Box(exactly(node, given.f.low), exactly(node, given.f.high)).wider()  # these never fall
    return Pair(ends, times(slopes(node, hull), given.difference))


@through.register(Flatten)
@through.register(Tokens)
@through.register(MaxPool)
def _(node: Node, given: Pair) -> Pair:
    # The largest of some differences is at least that of the largest values, and the least at most.
    f, difference = given.f, given.difference
    low = -_plain(node, -difference.low) if isinstance(node, MaxPool) else _plain(node, difference.low)
    return Pair(Box(_plain(node, f.low), _plain(node, f.high)), Box(low, _plain(node, difference.high)))


@through.register(AveragePool)
@through.register(GlobalPool)
@through.register(Normalize)
def _(node: Node, given: Pair) -> Pair:
    zero = _plain(node, np.zeros_like(given.f.low))
    f, difference = given.f, given.difference
    moved = Box(_plain(node, difference.low) - zero, _plain(node, difference.high) - zero)
    return Pair(
        Box(_plain(node, f.low), _plain(node, f.high)).wider(SLACK * np.abs(zero)),
        moved.wider(SLACK * np.abs(zero)),
    )


def slopes(node: Activation, values: Box) -> Box:
    """The slopes of an activation between any two of some values."""
    least, most = (np.float64(number) for number in (0.0, 1.0))
    if isinstance(node, Relu | LeakyRelu):
        least = np.float64(node.slope) if isinstance(node, LeakyRelu) else least
        if not 0 <= least <= 1:
            raise InputError(
                f"there is no bound of the output through a LeakyReLU of slope {least:g}; from 0 to 1 it is"
            )
        return Box(np.where(values.low >= 0, most, least), np.where(values.high <= 0, least, most))
    if isinstance(node, Tanh | Sigmoid):
        near = np.where(
            (values.low <= 0) & (values.high >= 0), 0.0, np.minimum(np.abs(values.low), np.abs(values.high))
        )
        scale = 1.0 if isinstance(node, Tanh) else 0.5
        slope = [scale**2 / np.cosh(np.minimum(scale * at, 300.0)) ** 2 for at in (values.largest, near)]
        return Box(slope[0] * (1 - SLACK), slope[1] * (1 + SLACK))
    raise InputError(f"there is no bound of the output through {node.kind!r}: it falls somewhere")


def _plain(node: Node, x: np.ndarray) -> np.ndarray:
    return exactly(node, x[None])[0]  # type: ignore[arg-type]


def _positive(values: Box) -> Box:
    return Box(np.maximum(values.low, 0), np.maximum(values.high, 0))


def _negative(values: Box) -> Box:
    return Box(np.minimum(values.low, 0), np.minimum(values.high, 0))
