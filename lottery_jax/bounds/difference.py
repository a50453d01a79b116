"""Interval bounds of a target f and of g - f for a ticket's network g, layer by layer, for all inputs of a box.

Float64, rounded outwards. Residuals of the weights times the layer's input add to a difference.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.intervals import ROUNDING, IntervalArray
from lottery_jax.networks.layers.activations import Activation, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.node import LinearLayer, Node, StatelessLayer, Weights


def multiply(slopes: IntervalArray, values: IntervalArray) -> IntervalArray:
    """Products of nonnegative slopes with values."""
    low = np.minimum(slopes.low * values.low, slopes.high * values.low)
    high = np.maximum(slopes.low * values.high, slopes.high * values.high)
    return IntervalArray(low, high).widened()


Map = Callable[[np.ndarray], np.ndarray]
"""Arrays [B, *in] to [B, *out]."""


def linear_map(layer: LinearLayer, weight: np.ndarray) -> Map:
    """The linear layer with these weights and no bias: x [B, *in] -> [B, *out]."""
    return lambda x: in_float64(functools.partial(_linear, layer), weight, x)


def transposed_map(layer: LinearLayer | StatelessLayer, weight: np.ndarray | None, inputs: tuple[int, ...]) -> Map:
    """The transpose of a layer that is linear up to a constant: coefficients [B, *out] to coefficients [B, *in].

    `weight` is None for a stateless layer.
    """
    own = np.zeros(0) if weight is None else weight
    return lambda rows: in_float64(functools.partial(_transposed, layer, inputs), own, rows)


def apply_stateless(node: StatelessLayer, x: np.ndarray) -> np.ndarray:
    """A layer without weights applied to x [B, ...] in float64."""
    return in_float64(functools.partial(_stateless, node), x)


def in_float64(function: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    """A function of arrays in float64, on the host."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        return np.asarray(function(*(jnp.asarray(array, jnp.float64) for array in arrays)))


@functools.partial(jax.jit, static_argnums=0)
def _stateless(node: StatelessLayer, x: jax.Array) -> jax.Array:
    return node(x)  # type: ignore[operator]


@functools.partial(jax.jit, static_argnums=0)
def _linear(layer: LinearLayer, weight: jax.Array, x: jax.Array) -> jax.Array:
    # Callers add biases: they know which of them differ.
    zero = {"bias": jnp.zeros(layer.outputs, x.dtype)} if "bias" in layer.tensors() else {}
    return layer.module(Weights({"weight": weight, **zero}))(x)  # type: ignore[operator]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _transposed(
    layer: LinearLayer | StatelessLayer, inputs: tuple[int, ...], weight: jax.Array, rows: jax.Array
) -> jax.Array:
    def apply(x: jax.Array) -> jax.Array:
        return _linear(layer, weight, x) if isinstance(layer, LinearLayer) else _stateless(layer, x)

    # The maps are affine: the slope is the same everywhere.
    (coefficients,) = jax.vjp(apply, jnp.zeros((len(rows), *inputs), rows.dtype))[1](rows)
    return coefficients


@dataclasses.dataclass(frozen=True, eq=False)
class LayerBounds:
    """Intervals of the target's values f [*shape] and of the difference g - f [*shape]."""

    f: IntervalArray
    difference: IntervalArray

    @property
    def g(self) -> IntervalArray:
        """Values of the ticket's network."""
        return self.f + self.difference

    def without_difference(self) -> "LayerBounds":
        """The same values in both networks."""
        return LayerBounds(self.f, IntervalArray(*[np.zeros_like(self.f.low)] * 2))

    @property
    def hull(self) -> IntervalArray:
        """Values of both networks."""
        return IntervalArray(np.minimum(self.f.low, self.g.low), np.maximum(self.f.high, self.g.high))


@dataclasses.dataclass(frozen=True, eq=False)
class WeightLayer:
    """A layer of both networks: the target's weight and bias, and effective ones, the weight for each sign of input."""

    linear_layer: Dense | Conv | RotationConv
    weight: np.ndarray
    bias: np.ndarray
    effective: np.ndarray
    effective_bias: np.ndarray

    def propagate(self, inputs: LayerBounds) -> LayerBounds:
        """Bounds of the outputs."""
        f = self._multiply(self.weight, inputs.f)
        shifted = IntervalArray(f.low + self.bias, f.high + self.bias).widened()
        return LayerBounds(shifted, self._multiply(self.weight, inputs.difference) + self.error(inputs))

    def error(self, inputs: LayerBounds) -> IntervalArray:
        """(effective weights - target weights) times the input of g, plus the difference of biases."""
        change = self.effective_bias - self.bias
        total = IntervalArray(change, change).widened(ROUNDING * (np.abs(self.effective_bias) + np.abs(self.bias)))
        if len(self.effective) == 1:
            return total + self._multiply(self.effective[0] - self.weight, inputs.g, self.effective[0])
        for effective, bound in zip(self.effective, (np.maximum, np.minimum), strict=True):
            part = IntervalArray(bound(inputs.g.low, 0), bound(inputs.g.high, 0))
            total = total + self._multiply(effective - self.weight, part, effective)
        # An input has one sign at a time; the sum counts an input of unknown sign twice.
        residual = np.abs(self.effective - self.weight).max(0)
        return total.intersect(self.error_from_residuals(residual, np.abs(change), inputs))

    def error_from_residuals(
        self, residual: np.ndarray, bias_residual: np.ndarray, inputs: LayerBounds
    ) -> IntervalArray:
        """Residuals of these absolute values and any signs, times the input of g."""
        layer, magnitude = self.linear_layer, inputs.g.magnitude[None]
        spread = linear_map(layer, residual)(magnitude)[0] + bias_residual
        products = linear_map(layer, 2 * np.abs(self.weight) + residual)(magnitude)[0]
        rounding = products + 2 * np.abs(self.bias) + bias_residual
        return IntervalArray(-spread, spread).widened(ROUNDING * rounding)

    def _multiply(
        self, weight: np.ndarray, inputs: IntervalArray, effective: np.ndarray | None = None
    ) -> IntervalArray:
        """Weights times an interval; effective weights are rounded sums themselves."""
        centre, radius = linear_map(self.linear_layer, weight)(inputs.centre[None])[0], inputs.radius[None]
        spread = linear_map(self.linear_layer, np.abs(weight))(radius)[0]
        size = np.abs(weight) if effective is None else np.abs(effective) + np.abs(self.weight)
        rounding = ROUNDING * linear_map(self.linear_layer, size)(inputs.magnitude[None])[0]
        return IntervalArray(centre - spread, centre + spread).widened(rounding)


@dataclasses.dataclass(frozen=True, eq=False)
class ToleranceLayer(WeightLayer):
    """A layer of any ticket with all weights within a tolerance: `effective` is not used."""

    tolerance: float

    def error(self, inputs: LayerBounds) -> IntervalArray:
        bias_residual = np.full_like(self.bias, self.tolerance if self.linear_layer.bias else 0.0)
        return self.error_from_residuals(np.full_like(self.weight, self.tolerance), bias_residual, inputs)


@functools.singledispatch
def propagate(node: Node, inputs: LayerBounds) -> LayerBounds:
    """Bounds of the outputs of a layer without weights; raises `InputError` if no bound is known."""
    raise InputError(
        f"the output cannot be bounded through {node.kind!r}, only through dense layers, convolutions (of rotations,"
        " too), ReLU, LeakyReLU, tanh, sigmoid, pooling and residual blocks"
    )


@propagate.register
def _(node: Activation, inputs: LayerBounds) -> LayerBounds:
    outputs = _apply_to_ends(node, inputs.f).widened()  # activations with a slope range are monotone
    return LayerBounds(outputs, multiply(slope_range(node, inputs.hull), inputs.difference))


@propagate.register(Flatten)
@propagate.register(Tokens)
@propagate.register(MaxPool)
def _(node: Node, inputs: LayerBounds) -> LayerBounds:
    difference = _apply_to_ends(node, inputs.difference)
    if isinstance(node, MaxPool):
        # The difference of two maxima is at least the smallest difference.
        difference = IntervalArray(-_apply_to_one(node, -inputs.difference.low), difference.high)
    return LayerBounds(_apply_to_ends(node, inputs.f), difference)


@propagate.register(AveragePool)
@propagate.register(GlobalPool)
@propagate.register(Normalize)
def _(node: Node, inputs: LayerBounds) -> LayerBounds:
    constant = _apply_to_one(node, np.zeros_like(inputs.f.low))
    rounding = ROUNDING * np.abs(constant)
    moved = _apply_to_ends(node, inputs.difference)
    difference = IntervalArray(moved.low - constant, moved.high - constant)
    return LayerBounds(_apply_to_ends(node, inputs.f).widened(rounding), difference.widened(rounding))


def slope_range(node: Activation, values: IntervalArray) -> IntervalArray:
    """Slopes of an activation between any two values of an interval."""
    if isinstance(node, Relu | LeakyRelu):
        least, most = np.float64(node.slope if isinstance(node, LeakyRelu) else 0), np.float64(1)
        if not 0 <= least <= 1:
            raise InputError(
                f"the output cannot be bounded through a LeakyReLU of slope {least:g}, only with a slope from 0 to 1"
            )
        return IntervalArray(np.where(values.low >= 0, most, least), np.where(values.high <= 0, least, most))
    if isinstance(node, Tanh | Sigmoid):
        near = np.maximum(np.maximum(values.low, -values.high), 0.0)
        scale = 1.0 if isinstance(node, Tanh) else 0.5
        slope = [scale**2 / np.cosh(np.minimum(scale * at, 300.0)) ** 2 for at in (values.magnitude, near)]
        return IntervalArray(slope[0] * (1 - ROUNDING), slope[1] * (1 + ROUNDING))
    raise InputError(f"the output cannot be bounded through {node.kind!r}: it is not monotone")


def _apply_to_one(node: Node, x: np.ndarray) -> np.ndarray:
    return apply_stateless(node, x[None])[0]  # type: ignore[arg-type]


def _apply_to_ends(node: Node, values: IntervalArray) -> IntervalArray:
    return IntervalArray(_apply_to_one(node, values.low), _apply_to_one(node, values.high))
