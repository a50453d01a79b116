"""Bounds of every value of a float32 network for all inputs of a box: does it overflow, and how far can copies differ?

Intervals of whole channels, the hull over all positions and copies, in float64. They contain the rounding of float32
and underflow. If no interval is known for a layer, the network counts as not bounded.
"""

import dataclasses
import functools
import math

import numpy as np

from lottery_jax.networks.intervals import ROUNDING, IntervalArray
from lottery_jax.networks.layers.activations import Activation, Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.dense import PositionEmbedding
from lottery_jax.networks.layers.graph import Graph
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm, Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, child_path
from lottery_jax.tickets.graph_bounds import through_graph
from lottery_jax.tickets.linear_terms import LinearTerms, TargetTensor, Terms
from lottery_jax.tickets.operation_bounds import FUNCTION_ERROR
from lottery_jax.tickets.rounding import LARGEST, SMALLEST, gamma

Box = tuple[float, float]
"""The smallest and the largest value of every input."""

COPY_MULTIPLE = 4.0
"""For each layer whose inputs have copies: outputs may differ this many times as much as the tolerance explains."""


class NotBounded(Exception):
    """The values behind a layer have no bound in float32; the message is the path of the layer."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelBounds:
    """Intervals of the values of each channel [C].

    Attributes:
        apart: None, or for networks with copies two rows [2, C]: how far any copy can be from the target's value, and
            how far it may be.
    """

    values: IntervalArray
    apart: np.ndarray | None = None

    def scaled_apart(self, values: IntervalArray, slope: np.ndarray | float = 1.0) -> "ChannelBounds":
        """Other values, whose differences are at most `slope` times as large."""
        return ChannelBounds(values, None if self.apart is None else self.apart * slope)


@dataclasses.dataclass(frozen=True)
class BoxBound:
    """What is known of all values of a float32 network on a box.

    Attributes:
        largest: Bound of the largest absolute partial sum; infinite if there is none.
        layer: Path of its layer, or of the one behind which values are not bounded.
        apart: Bound of the difference that copies of neurons make to an output; 0 without copies. `apart_allowed` is
            what it may be. They are those of the output with the largest quotient.
    """

    largest: float
    layer: str
    apart: float = 0.0
    apart_allowed: float = 0.0

    @property
    def bounded(self) -> bool:
        """Whether no value overflows."""
        return math.isfinite(self.largest)

    @property
    def copy_faults(self) -> list[str]:
        """Why a ticket with copies does not compute what its target does, in sentences."""
        if self.apart <= self.apart_allowed:
            return []
        return [
            f"the copies of its neurons differ so much that an output may be {self.apart:.3g} away from the target's;"
            f" {self.apart_allowed:.3g} is allowed"
        ]


def bound_box(network: Network, terms: Terms, tensor: TargetTensor, box: Box, *, copied: bool = False) -> BoxBound:
    """Bound all values of a float32 network for all inputs of a box.

    Args:
        network: The target's network; `terms` gives the weights of its linear layers, `tensor` the other tensors.
        copied: Whether neurons have copies, whose differences are bounded too.
    """
    assert network.input_spec is not None
    channels = network.input_spec.shape[-1]
    inputs = IntervalArray(np.full(channels, np.float64(box[0])), np.full(channels, np.float64(box[1])))
    walk, given = _Walk(network, terms, tensor), ChannelBounds(inputs, np.zeros((2, channels)) if copied else None)
    try:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            apart = walk.through(network.root, "", walk.checked("", given)).apart
    except NotBounded as error:
        return BoxBound(math.inf, str(error))
    if apart is None:
        return BoxBound(walk.largest, walk.layer)
    if not np.isfinite(apart).all():
        return BoxBound(math.inf, walk.layer)
    found, allowed = apart[:, np.argmax(apart[0] / np.maximum(apart[1], np.finfo(np.float64).tiny))]
    return BoxBound(walk.largest, walk.layer, float(found), float(allowed))


class _Walk:
    """A pass through a network; `largest` is the largest value so far, in the layer `layer`."""

    def __init__(self, network: Network, terms: Terms, tensor: TargetTensor) -> None:
        self.network, self.terms, self.tensor = network, terms, tensor
        self.largest, self.layer = 0.0, ""

    def through(self, node: Node, path: str, x: ChannelBounds) -> ChannelBounds:
        """Bounds of the outputs of a node."""
        return self.checked(path, _through(node, self, path, x))

    def checked(self, path: str, x: ChannelBounds) -> ChannelBounds:
        """The same bounds if float32 has them."""
        self.note(path, x.values.magnitude)
        return x

    def note(self, path: str, sizes: np.ndarray | float) -> None:
        """Record partial results of a layer; raises `NotBounded` if they may overflow."""
        largest = float(np.max(sizes))
        if not largest < LARGEST:
            raise NotBounded(path)
        if largest > self.largest:
            self.largest, self.layer = largest, path

    def through_layer(
        self, node: Node, path: str, values: IntervalArray, apart: np.ndarray | None
    ) -> tuple[IntervalArray, np.ndarray | None]:
        """`through` for a layer of a graph."""
        found = self.through(node, path, ChannelBounds(values, apart))
        return found.values, found.apart

    def positions(self, path: str) -> int:
        """Positions of the input of a layer."""
        spec = self.network.input_spec_of(path)
        if spec is None:
            raise NotBounded(path)
        return math.prod(spec.shape[:-1])


@functools.singledispatch
def _through(node: Node, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    raise NotBounded(path)


@_through.register
def _(node: Chain, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    for name, child in node.nodes:
        x = walk.through(child, child_path(path, name), x)
    return x


@_through.register
def _(node: Graph, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    given = walk.network.input_spec_of(path)
    assert given is not None
    return ChannelBounds(*through_graph(node, walk, path, given, x.values, x.apart))


@_through.register
def _(node: Residual, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    body = walk.through(node.body, path, x)
    shortcut = walk.through(node.shortcut, child_path(path, "downsample"), x)
    both = body.values + shortcut.values
    apart = None if body.apart is None or shortcut.apart is None else body.apart + shortcut.apart
    return ChannelBounds(both.widened(gamma(1) * both.magnitude), apart)


@_through.register
def _(node: LinearLayer, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    terms, values = walk.terms(path, node), x.values
    if node.kernel_shape:  # windows may reach into the padding
        values = IntervalArray(np.minimum(values.low, 0), np.maximum(values.high, 0))
    largest = max(float(values.magnitude.max(initial=0.0)), 1.0)
    sizes = terms.size * largest + terms.bias_size
    walk.note(path, np.maximum(sizes, sizes / terms.gain) * (1 + terms.relative) + terms.underflow)
    walk.note(path, terms.hidden * largest)
    parts = [values]
    if len(terms.weight) == 2:
        parts = [IntervalArray(bound(values.low, 0), bound(values.high, 0)) for bound in (np.maximum, np.minimum)]
    total = IntervalArray(terms.bias, terms.bias)
    for weight, part in zip(terms.weight, parts, strict=True):
        centre = _product(node, weight.sum(-1), part.centre)
        radius = _product(node, np.abs(weight if terms.spread is None else terms.spread).sum(-1), part.radius)
        total = total + IntervalArray(centre - radius, centre + radius)
    total = total.widened((terms.relative + ROUNDING) * sizes + terms.underflow)
    shape = terms.copies, -1
    outputs = IntervalArray(total.low.reshape(shape).min(0), total.high.reshape(shape).max(0))
    return ChannelBounds(outputs, None if x.apart is None else _apart(node, terms, values, x.apart))


def _product(node: LinearLayer, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Weights [rows, inputs of a group] times channels [C], [rows]."""
    if node.groups == 1:
        return weight @ x
    split = weight.reshape(-1, node.groups, node.outputs // node.groups, weight.shape[-1])
    return np.einsum("cgoi,gi->cgo", split, x.reshape(node.groups, -1)).reshape(-1)


def _apart(node: LinearLayer, terms: LinearTerms, values: IntervalArray, apart: np.ndarray) -> np.ndarray:
    """How far copies can be from the target's values behind a layer, and how far they may be."""
    assert terms.target is not None
    (target, target_bias), (tolerance, bias_tolerance) = terms.target, terms.tolerance
    residuals, sizes = np.abs(terms.weight - target).max(0), np.abs(target)
    passed = np.abs(terms.weight).max(0) if terms.spread is None else terms.spread
    found = _product(node, passed.sum(-1), apart[0]) + _product(node, residuals.sum(-1), values.magnitude)
    found = found + np.abs(terms.bias - target_bias)
    every = np.full(sizes.shape[:2], tolerance * sizes.shape[-1])
    moved = _product(node, sizes.sum(-1) + every, apart[1]) + _product(node, every, values.magnitude)
    moved = (moved + bias_tolerance) * (1.0 if terms.spread is None else COPY_MULTIPLE)
    shape = terms.copies, -1
    return np.stack([found.reshape(shape).max(0), moved.reshape(shape).min(0)])


@_through.register
def _(node: Activation, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    low, high = x.values.low, x.values.high
    if isinstance(node, Relu):
        return x.scaled_apart(IntervalArray(np.maximum(low, 0), np.maximum(high, 0)))
    if isinstance(node, LeakyRelu):
        ends = np.stack([np.where(end >= 0, end, node.slope * end) for end in (low, high, np.clip(0, low, high))])
        values = IntervalArray(ends.min(0), ends.max(0))
        return x.scaled_apart(values.widened(gamma(1) * values.magnitude), max(1.0, abs(node.slope)))
    if isinstance(node, Tanh | Sigmoid):
        least = np.full_like(low, -1.0 if isinstance(node, Tanh) else 0.0)
        return x.scaled_apart(IntervalArray(least, np.ones_like(low)).widened(FUNCTION_ERROR))
    if isinstance(node, Gelu):  # its least value is above -0.18, its slope below 1.13
        values = IntervalArray(np.full_like(low, -0.18), np.maximum(high, 0.0))
        return x.scaled_apart(values.widened(FUNCTION_ERROR * values.magnitude), 1.13)
    raise NotBounded(path)


@_through.register(MaxPool)
@_through.register(Tokens)
def _(node: Node, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    return x


@_through.register
def _(node: Flatten, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    count = walk.positions(path)  # channels come first
    values = IntervalArray(np.repeat(x.values.low, count), np.repeat(x.values.high, count))
    return ChannelBounds(values, None if x.apart is None else np.repeat(x.apart, count, 1))


@_through.register(AveragePool)
@_through.register(GlobalPool)
def _(node: AveragePool | GlobalPool, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    count = math.prod(node.size) if isinstance(node, AveragePool) else walk.positions(path)
    low, high = x.values.low, x.values.high
    if isinstance(node, AveragePool) and any(node.padding):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    values = IntervalArray(low, high)
    walk.note(path, count * values.magnitude)
    return x.scaled_apart(values.widened(gamma(count + 1) * values.magnitude + count * SMALLEST))


@_through.register
def _(node: Normalize, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    return _affine(walk, path, x, np.asarray(node.mean), 1 / np.asarray(node.deviation), np.zeros(len(node.mean)))


@_through.register
def _(node: BatchNorm, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    mean, variance = (walk.tensor(child_path(path, name)) for name in ("running_mean", "running_var"))
    scale, bias = np.ones_like(mean), np.zeros_like(mean)
    if node.affine:
        scale, bias = (walk.tensor(child_path(path, name)) for name in ("weight", "bias"))
    return _affine(walk, path, x, mean, scale / np.sqrt(variance + node.epsilon), bias)


def _affine(
    walk: _Walk, path: str, x: ChannelBounds, mean: np.ndarray, factor: np.ndarray, bias: np.ndarray
) -> ChannelBounds:
    """(x - mean) * factor + bias of each channel."""
    centred = np.stack([x.values.low - mean, x.values.high - mean])
    ends = centred * factor + bias
    sizes = (x.values.magnitude + np.abs(mean)) * np.abs(factor) + np.abs(bias)
    walk.note(path, np.maximum(sizes, np.abs(centred)))
    values = IntervalArray(ends.min(0), ends.max(0)).widened(FUNCTION_ERROR * sizes)
    return x.scaled_apart(values, np.abs(factor) * (1 + FUNCTION_ERROR))


@_through.register
def _(node: PositionEmbedding, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    added = walk.tensor(path)[0]
    values = x.values + IntervalArray(added.min(0), added.max(0))
    return x.scaled_apart(values.widened(gamma(1) * values.magnitude))


@_through.register
def _(node: LayerNorm, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    if x.apart is not None:
        raise NotBounded(path)
    largest, count = float(x.values.magnitude.max()), node.features
    walk.note(path, count * largest**2)
    # Exactly, no feature is more than sqrt(count) deviations from the mean. In float32 the variance is rounded.
    lost = math.sqrt(2 * count * float(gamma(count + 4)) / node.epsilon) * largest
    size = (math.sqrt(2 * count) + 2 * lost) * (1 + FUNCTION_ERROR)
    weight, bias = (walk.tensor(child_path(path, name)) for name in ("weight", "bias"))
    spread = np.abs(weight) * size
    return ChannelBounds(IntervalArray(bias - spread, bias + spread).widened(gamma(2) * (spread + np.abs(bias))))


@_through.register
def _(node: Attention, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    projected = walk.through(node.qkv, child_path(path, "qkv"), x)
    query, key, value = (_part(projected, third, 3) for third in range(3))
    mixed = _attend(walk, child_path(path, "qkv"), query, key, value, node.heads)
    return walk.through(node.proj, child_path(path, "proj"), mixed)


@_through.register
def _(node: MergedAttention, walk: _Walk, path: str, x: ChannelBounds) -> ChannelBounds:
    query = walk.through(node.qk, child_path(path, "qk"), x)
    mixed = _attend(walk, child_path(path, "qk"), query, x, x, 1)
    tiled = IntervalArray(np.tile(mixed.values.low, node.heads), np.tile(mixed.values.high, node.heads))
    return walk.through(node.vo, child_path(path, "vo"), ChannelBounds(tiled))


def _part(x: ChannelBounds, number: int, parts: int) -> ChannelBounds:
    size = len(x.values.low) // parts
    own = slice(number * size, (number + 1) * size)
    return ChannelBounds(IntervalArray(x.values.low[own], x.values.high[own]), x.apart)


def _attend(
    walk: _Walk, path: str, query: ChannelBounds, key: ChannelBounds, value: ChannelBounds, heads: int
) -> ChannelBounds:
    """Weighted means of tokens: their weights are at least 0 and add up to 1, whatever the scores are."""
    if query.apart is not None:
        raise NotBounded(path)
    size = len(key.values.low) // heads
    walk.note(path, size * float(query.values.magnitude.max()) * float(key.values.magnitude.max()))
    tokens = walk.positions(path)
    values = value.values
    walk.note(path, tokens * values.magnitude)
    margin = (gamma(2 * tokens + 4) + FUNCTION_ERROR) * values.magnitude + tokens * SMALLEST
    return ChannelBounds(values.widened(margin))
