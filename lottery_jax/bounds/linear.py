"""Linear bounds of g - f by back-substitution: CROWN (Zhang et al. 2018, arXiv 1811.00866) for a pair of networks.

Unlike intervals, linear bounds remember which differences come from the same input.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lottery_jax.bounds.difference import (
    ROUNDING,
    IntervalArray,
    LayerBounds,
    WeightLayer,
    apply_stateless,
    slope_range,
    transposed_map,
)
from lottery_jax.networks.layers.activations import Activation, LeakyRelu, Relu
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, Tokens
from lottery_jax.networks.node import Node

_LINEAR = AveragePool, GlobalPool, Normalize, Flatten, Tokens


@dataclasses.dataclass(frozen=True, eq=False)
class LinearBound:
    """Upper bounds of R numbers, difference . d + f . a + constant: coefficients [R, *shape], constants [R]."""

    difference: np.ndarray
    f: np.ndarray
    constant: np.ndarray

    def upper(self, inputs: LayerBounds) -> np.ndarray:
        """The largest values [R] for d and a in their intervals."""
        parts = (self.difference, inputs.difference), (self.f, inputs.f)
        total = self.constant + sum(_upper(rows, values) for rows, values in parts)
        return total + ROUNDING * (np.abs(self.constant) + sum(_magnitude(rows, values) for rows, values in parts))


@dataclasses.dataclass(frozen=True, eq=False)
class LayerRecord:
    """A layer of both networks with bounds of its inputs and outputs; `parts`: chains of a residual block."""

    node: Node | WeightLayer
    inputs: LayerBounds
    out: LayerBounds
    parts: tuple[tuple["LayerRecord", ...], ...] = ()


def back_substitute(records: Sequence[LayerRecord], bound: LinearBound) -> LinearBound:
    """A linear bound in the outputs of the last layer as one in the inputs of the first."""
    for record in reversed(records):
        bound = _through_layer(record, bound)
    return bound


def _through_layer(record: LayerRecord, bound: LinearBound) -> LinearBound:
    node, inputs = record.node, record.inputs
    if record.parts:
        branch = LinearBound(bound.difference, bound.f, np.zeros_like(bound.constant))
        body, shortcut = (back_substitute(part, branch) for part in record.parts)
        constant = bound.constant + (body.constant + shortcut.constant)
        return LinearBound(body.difference + shortcut.difference, body.f + shortcut.f, constant)
    if isinstance(node, WeightLayer):
        return _through_weights(node, inputs, bound)
    if isinstance(node, Activation):
        return _through_activation(node, inputs, bound)
    shape = inputs.f.low.shape
    if isinstance(node, _LINEAR):
        transposed, constant = transposed_map(node, None, shape), bound.constant
        if isinstance(node, Normalize):
            constant = constant + _flat(bound.f) @ np.ravel(apply_stateless(node, np.zeros((1, *shape)))[0])
        return LinearBound(transposed(bound.difference), transposed(bound.f), constant)
    # A maximum has no linear bound here: its interval is used.
    none = np.zeros((len(bound.constant), *shape))
    return LinearBound(none, none, bound.upper(record.out))


def _through_weights(layer: WeightLayer, inputs: LayerBounds, bound: LinearBound) -> LinearBound:
    shape = inputs.f.low.shape
    transposed = transposed_map(layer.linear_layer, layer.weight, shape)
    f = transposed(bound.f)
    constant = bound.constant + _times_bias(bound.f, layer.bias)
    if len(layer.effective) == 1:
        difference = transposed_map(layer.linear_layer, layer.effective[0], shape)(bound.difference)
        f = f + transposed_map(layer.linear_layer, layer.effective[0] - layer.weight, shape)(bound.difference)
        constant = constant + _times_bias(bound.difference, layer.effective_bias - layer.bias)
    else:
        # With weights by sign the error is not linear in the inputs: its interval is used.
        difference = transposed(bound.difference)
        constant = constant + _upper(bound.difference, layer.error(inputs))
    # Rounding of these sums: each product at its largest absolute value.
    sizes = np.abs(layer.weight) + np.abs(layer.effective).max(0)
    spread = transposed_map(layer.linear_layer, sizes, shape)(np.abs(bound.difference) + np.abs(bound.f))
    biases = np.abs(layer.bias) + np.abs(layer.effective_bias)
    rounding = _flat(spread) @ np.ravel(inputs.f.magnitude + inputs.difference.magnitude)
    rounding = rounding + _times_bias(np.abs(bound.difference) + np.abs(bound.f), biases)
    return LinearBound(difference, f, constant + ROUNDING * (rounding + np.abs(constant)))


def _through_activation(node: Activation, inputs: LayerBounds, bound: LinearBound) -> LinearBound:
    slope, d = slope_range(node, inputs.hull), inputs.difference
    upper = _chord(d.low, d.high, slope.low * d.low, slope.high * d.high, slope.high, slope.low)
    lower = _chord(d.low, d.high, slope.high * d.low, slope.low * d.high, slope.low, slope.high)
    difference, first = _by_sign(bound.difference, upper, lower)
    f, second = _by_sign(bound.f, *_relax(node, inputs.f))
    sizes = _magnitude(bound.difference, d) + _magnitude(bound.f, inputs.f)
    return LinearBound(difference, f, bound.constant + first + second + ROUNDING * sizes)


Line = tuple[np.ndarray, np.ndarray]
"""Slope and intercept of a line, elementwise."""


def _chord(
    low: np.ndarray, high: np.ndarray, at_low: np.ndarray, at_high: np.ndarray, right: np.ndarray, left: np.ndarray
) -> Line:
    """The chord of left * d (d < 0), right * d (d > 0) if the interval contains 0, else the function itself."""
    inside = (low < 0) & (high > 0)
    width = np.where(inside, high - low, 1.0)
    slope = np.where(inside, (at_high - at_low) / width, np.where(low >= 0, right, left))
    return slope, np.where(inside, at_low - slope * low, 0.0)


def _relax(node: Activation, f: IntervalArray) -> tuple[Line, Line]:
    """Linear relaxation of an activation: lines above and below it."""
    if isinstance(node, Relu | LeakyRelu):
        lower_slope = node.slope if isinstance(node, LeakyRelu) else 0.0
        ones, few = np.ones_like(f.low), np.full_like(f.low, lower_slope)
        upper = _chord(f.low, f.high, lower_slope * f.low, f.high, ones, few)
        # Below, the line with the smaller area to the activation.
        below = np.where((f.low >= 0) | (f.high > np.maximum(-f.low, 0)), 1.0, lower_slope)
        return upper, (below, np.zeros_like(below))
    flat = np.zeros_like(f.low)
    ends = IntervalArray(apply_stateless(node, f.low), apply_stateless(node, f.high)).widened()
    return (flat, ends.high), (flat, ends.low)


def _by_sign(rows: np.ndarray, upper: Line, lower: Line) -> tuple[np.ndarray, np.ndarray]:
    """New coefficients and the change of constants: the upper line for positive coefficients, else the lower."""
    positive = rows > 0
    slope, height = (np.where(positive, above, below) for above, below in zip(upper, lower, strict=True))
    return rows * slope, (rows * height).reshape(len(rows), -1).sum(1)


def _upper(rows: np.ndarray, values: IntervalArray) -> np.ndarray:
    flat = _flat(rows)
    return np.maximum(flat, 0) @ np.ravel(values.high) + np.minimum(flat, 0) @ np.ravel(values.low)


def _magnitude(rows: np.ndarray, values: IntervalArray) -> np.ndarray:
    return np.abs(_flat(rows)) @ np.ravel(values.magnitude)


def _times_bias(rows: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Coefficients [R, ..., O] times a bias [O]."""
    return rows.reshape(len(rows), -1, rows.shape[-1]).sum(1) @ bias


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1)
