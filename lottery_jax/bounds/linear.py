"""Linear bounds of the difference network, backwards (CROWN, Zhang et al. 2018, arXiv 1811.00866, for g - f).

Coefficients of an outer layer's difference and of the target's values are taken back, layer by layer, to those
of the input: through a layer of weights exactly, through an activation by the line above (or below) what it may do.
Unlike intervals, they remember which differences come from the same input.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lottery_jax.bounds.difference import SLACK, Box, Layer, Pair, exactly, slopes, transposed_map
from lottery_jax.networks.layers.activations import Activation, LeakyRelu, Relu
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, Tokens
from lottery_jax.networks.node import Node

_LINEAR = AveragePool, GlobalPool, Normalize, Flatten, Tokens


@dataclasses.dataclass(frozen=True, eq=False)
class Coefficients:
    """difference . d + f . a + constant, an upper bound of R numbers: coefficients [R, *shape], constants [R]."""

    difference: np.ndarray
    f: np.ndarray
    constant: np.ndarray

    def at_most(self, given: Pair) -> np.ndarray:
        """The largest values [R] where d and a are anywhere in their intervals."""
        parts = (self.difference, given.difference), (self.f, given.f)
        total = self.constant + sum(_largest(rows, values) for rows, values in parts)
        return total + SLACK * (np.abs(self.constant) + sum(_size(rows, values) for rows, values in parts))


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One layer of the network, what it is given and what comes out; `parts`: chains whose sum it is."""

    node: Node | Layer
    given: Pair
    out: Pair
    parts: tuple[tuple["Step", ...], ...] = ()


def back(steps: Sequence[Step], rows: Coefficients) -> Coefficients:
    """Coefficients of what comes out of the last step, taken back to what the first one is given."""
    for step in reversed(steps):
        rows = _back(step, rows)
    return rows


def _back(step: Step, rows: Coefficients) -> Coefficients:
    node, given = step.node, step.given
    if step.parts:
        found = [back(part, Coefficients(rows.difference, rows.f, np.zeros_like(rows.constant))) for part in step.parts]
        difference, f = (sum(getattr(one, name) for one in found) for name in ("difference", "f"))
        return Coefficients(difference, f, rows.constant + sum(one.constant for one in found))  # type: ignore[arg-type]
    if isinstance(node, Layer):
        return _through_weights(node, given, rows)
    if isinstance(node, Activation):
        return _through_activation(node, given, rows)
    shape = given.f.low.shape
    if isinstance(node, _LINEAR):
        turn = transposed_map(node, None, shape)
        zero = np.zeros((1, *shape))
        constant = exactly(node, zero)[0] if isinstance(node, Normalize) else np.zeros(step.out.f.low.shape)
        return Coefficients(turn(rows.difference), turn(rows.f), rows.constant + _flat(rows.f) @ np.ravel(constant))
    # The largest of a window is no line: from here on only its interval is known.
    none = np.zeros((len(rows.constant), *shape))
    return Coefficients(none, none, rows.at_most(step.out))


def _through_weights(layer: Layer, given: Pair, rows: Coefficients) -> Coefficients:
    shape = given.f.low.shape
    turn = transposed_map(layer.of, layer.weight, shape)
    f = turn(rows.f)
    constant = rows.constant + _summed(rows.f, layer.bias)
    if len(layer.made) == 1:
        difference = transposed_map(layer.of, layer.made[0], shape)(rows.difference)
        f = f + transposed_map(layer.of, layer.made[0] - layer.weight, shape)(rows.difference)
        constant = constant + _summed(rows.difference, layer.made_bias - layer.bias)
    else:
        # What inputs of both signs are given is no linear function of the target's: its interval is added.
        difference = turn(rows.difference)
        constant = constant + _largest(rows.difference, layer.error(given))
    # Rounding of these sums: each product at its largest size.
    sizes = np.abs(layer.weight) + np.abs(layer.made).max(0)
    spread = transposed_map(layer.of, sizes, shape)(np.abs(rows.difference) + np.abs(rows.f))
    biases = np.abs(layer.bias) + np.abs(layer.made_bias)
    room = _flat(spread) @ np.ravel(given.f.largest + given.difference.largest)
    room = room + _summed(np.abs(rows.difference) + np.abs(rows.f), biases)
    return Coefficients(difference, f, constant + SLACK * (room + np.abs(constant)))


def _through_activation(node: Activation, given: Pair, rows: Coefficients) -> Coefficients:
    hull = Box(np.minimum(given.f.low, given.g.low), np.maximum(given.f.high, given.g.high))
    slope, d = slopes(node, hull), given.difference
    upper = _chord(d.low, d.high, slope.low * d.low, slope.high * d.high, slope.high, slope.low)
    lower = _chord(d.low, d.high, slope.high * d.low, slope.low * d.high, slope.low, slope.high)
    difference, first = _by_sign(rows.difference, upper, lower)
    f, second = _by_sign(rows.f, *_lines(node, given.f))
    sizes = _size(rows.difference, d) + _size(rows.f, given.f)
    return Coefficients(difference, f, rows.constant + first + second + SLACK * sizes)


Line = tuple[np.ndarray, np.ndarray]
"""Slope and height at 0 of a line, place by place."""


def _chord(
    low: np.ndarray, high: np.ndarray, at_low: np.ndarray, at_high: np.ndarray, right: np.ndarray, left: np.ndarray
) -> Line:
    """The chord of a function that is left * d below 0 and right * d above, where 0 is inside; else the function."""
    inside = (low < 0) & (high > 0)
    width = np.where(inside, high - low, 1.0)
    slope = np.where(inside, (at_high - at_low) / width, np.where(low >= 0, right, left))
    return slope, np.where(inside, at_low - slope * low, 0.0)


def _lines(node: Activation, f: Box) -> tuple[Line, Line]:
    """Lines above and below an activation of the target's values."""
    if isinstance(node, Relu | LeakyRelu):
        least = node.slope if isinstance(node, LeakyRelu) else 0.0
        ones, few = np.ones_like(f.low), np.full_like(f.low, least)
        upper = _chord(f.low, f.high, least * f.low, f.high, ones, few)
        # Below, the one of both lines that is nearer in the mean.
        below = np.where(f.low >= 0, 1.0, np.where(f.high <= 0, least, np.where(f.high > -f.low, 1.0, least)))
        return upper, (below, np.zeros_like(below))
    flat = np.zeros_like(f.low)
    ends = Box(exactly(node, f.low), exactly(node, f.high)).wider()
    return (flat, ends.high), (flat, ends.low)


def _by_sign(rows: np.ndarray, upper: Line, lower: Line) -> tuple[np.ndarray, np.ndarray]:
    """New coefficients and what is added to constants, for the line above where a coefficient is positive."""
    positive = rows > 0
    slope, height = (np.where(positive, above, below) for above, below in zip(upper, lower, strict=True))
    return rows * slope, (rows * height).reshape(len(rows), -1).sum(1)


def _largest(rows: np.ndarray, values: Box) -> np.ndarray:
    flat = _flat(rows)
    return np.maximum(flat, 0) @ np.ravel(values.high) + np.minimum(flat, 0) @ np.ravel(values.low)


def _size(rows: np.ndarray, values: Box) -> np.ndarray:
    return np.abs(_flat(rows)) @ np.ravel(values.largest)


def _summed(rows: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Coefficients [R, ..., O] times a number for each output."""
    return rows.reshape(len(rows), -1, rows.shape[-1]).sum(1) @ bias


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1)
