"""Bounds of sup |g - f| over a box of inputs, for a target f and a ticket's network g.

The minimum of interval and linear bounds of effective weights, in float64 rounded outwards, for each output. Hidden
layers of up to 1,024 units get linear bounds of their own first. A third bound uses the tolerance alone and holds for
every ticket within it. Refused are attention, LayerNorm, GELU, replicated neurons, and models without a graph. A
`Graph` has interval bounds alone (`bounds/graph_difference.py`).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from lottery_jax.bounds.difference import IntervalArray, LayerBounds, ToleranceLayer, WeightLayer, propagate
from lottery_jax.bounds.graph_difference import propagate_graph
from lottery_jax.bounds.linear import LayerRecord, LinearBound, back_substitute
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import Graph
from lottery_jax.networks.node import Node, child_path
from lottery_jax.networks.rewrites import fold_batch_norm, match_rewrites
from lottery_jax.networks.target import Target
from lottery_jax.tickets.box_bounds import Box
from lottery_jax.tickets.header import check_tolerance
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket

MAX_TIGHTENED_UNITS = 1024
"""Units of a hidden layer up to which it gets linear bounds of its own."""

_BATCH = 256  # rows of coefficients
_MAX_COEFFICIENTS = 1 << 25  # in a batch


@dataclasses.dataclass(frozen=True, eq=False)
class OutputBound:
    """Upper bounds of |g - f| for each output [C].

    Attributes:
        linear: None for a graph, which has interval bounds alone.
        from_tolerance: For every ticket within the tolerance.
    """

    interval: np.ndarray
    linear: np.ndarray | None
    from_tolerance: np.ndarray | None

    @property
    def by_output(self) -> np.ndarray:
        """The smaller of both bounds for each output."""
        return self.interval if self.linear is None else np.minimum(self.interval, self.linear)

    @property
    def largest(self) -> float:
        """The bound for all outputs."""
        return float(self.by_output.max())


def bound_output(
    ticket: Ticket,
    target: Target,
    *,
    box: Box = (0.0, 1.0),
    tolerance: float | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> OutputBound:
    """Bound the difference between a ticket's outputs and its target's on all inputs of a box.

    Args:
        ticket: A ticket of dense layers, convolutions, ReLU, LeakyReLU, tanh, sigmoid, pooling and residual blocks.
        box: The smallest and the largest input; nonnegative if the ticket is for nonnegative inputs.
        tolerance: For ``from_tolerance``; default: the tolerance of the ticket.
        weights: ``effective_weights(ticket)`` if they are known already.

    Raises:
        InputError: The network or the box has no bound.
    """
    low, network = box[0], ticket.network
    if network.input_spec is None:
        raise InputError("the outputs of a model without a graph cannot be bounded; give a ticket of a network")
    if network.input_spec.nonnegative and low < 0:
        raise InputError(
            f"the ticket is for inputs that are never negative, and the box begins at {low}; give 0 or more"
        )
    copied = [path for path, source in network.sources.items() if source.rows_per_weight > 1]
    if copied:
        raise InputError(
            f"the outputs of a network with replicated neurons, as in the layer {copied[0]!r}, cannot be bounded; use a"
            " ticket of another construction"
        )
    target = match_rewrites(target, network)
    root = target.network.root
    if root != network.target.root:
        raise InputError("the ticket's network has other layers than this target; give the target that it approximates")
    weights = effective_weights(ticket) if weights is None else weights
    stored = sorted(set(target.network.approximated) - set(weights))
    if stored:
        raise InputError(f"the outputs of a ticket with stored weights cannot be bounded, and {stored[0]!r} is stored")
    inputs, pair = _input_bounds(target, box), _NetworkPair(target, weights)
    by_interval = pair.outputs(inputs)
    linear = None
    if not isinstance(root, Graph):
        records = pair.records(root, "", inputs, tighten=True)
        linear = _tighten(records, inputs, records[-1].out if records else inputs).difference.magnitude
    if tolerance is None and ticket.header.tolerance is not None:
        # A relative tolerance is that of the tensor with the largest weight.
        tolerance = ticket.header.tolerance
        if ticket.header.relative:
            tolerance *= max(target.scan(name).largest for name in target.network.approximated)
    from_tolerance = None if tolerance is None else bound_output_from_tolerance(target, tolerance, box=box)
    return OutputBound(by_interval, linear, from_tolerance)


def bound_output_from_tolerance(target: Target, tolerance: float, *, box: Box = (0.0, 1.0)) -> np.ndarray:
    """Bound |g - f| for each output [C] and every ticket with all weights within a tolerance, by intervals.

    Raises:
        InputError: The network or the box has no bound, as in ``bound_output``.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.5, -0.5]], np.float32)])
    >>> bound_output_from_tolerance(target, 0.01).round(9).tolist()
    [0.02]
    """
    tolerance, target = check_tolerance(float(tolerance), zero=True), fold_batch_norm(target)
    return _NetworkPair(target, tolerance).outputs(_input_bounds(target, box))


def _input_bounds(target: Target, box: Box) -> LayerBounds:
    """The inputs of both networks: any of the box, and without a difference."""
    (low, high), given = box, target.network.input_spec
    if given is None or not (low <= high and max(-low, high) <= float(np.finfo(np.float32).max)):  # false for NaN
        raise InputError(
            f"the box is [{low}, {high}]; give two numbers in order, within float32, and a network whose graph is known"
        )
    zero = np.zeros(given.shape)
    return LayerBounds(IntervalArray(zero + np.float64(low), zero + np.float64(high)), IntervalArray(zero, zero))


@dataclasses.dataclass(frozen=True, eq=False)
class _NetworkPair:
    """Target and ticket; `weights`: effective weights, or the tolerance that is all that is known of them."""

    target: Target
    weights: Mapping[str, np.ndarray] | float

    def outputs(self, inputs: LayerBounds) -> np.ndarray:
        """Bounds [C] of the difference by intervals alone."""
        records = self.records(self.target.network.root, "", inputs, tighten=False)
        return (records[-1].out if records else inputs).difference.magnitude

    def records(self, node: Node, path: str, inputs: LayerBounds, *, tighten: bool) -> list[LayerRecord]:
        """The layers of a node, in order, with bounds of their inputs and outputs."""
        if isinstance(node, Chain):
            found: list[LayerRecord] = []
            for name, child in node.nodes:
                last = found[-1].out if found else inputs
                found += self.records(child, child_path(path, name), last, tighten=tighten)
                if tighten and len(found) > 1 and isinstance(found[-1].node, WeightLayer):
                    out = found[-1].out
                    if out.f.low.size <= MAX_TIGHTENED_UNITS:
                        found[-1] = dataclasses.replace(found[-1], out=_tighten(found, inputs, out))
            return found
        if isinstance(node, Residual):
            body = self.records(node.body, path, inputs, tighten=tighten)
            shortcut = self.records(node.shortcut, child_path(path, "downsample"), inputs, tighten=tighten)
            a, b = (part[-1].out if part else inputs for part in (body, shortcut))
            out = LayerBounds(a.f + b.f, a.difference + b.difference)
            return [LayerRecord(node, inputs, out, (tuple(body), tuple(shortcut)))]
        if isinstance(node, Graph):
            return [LayerRecord(node, inputs, propagate_graph(node, path, inputs, self._output, self._tensor))]
        if isinstance(node, Dense | Conv | RotationConv):
            layer = self._layer(node, path)
            return [LayerRecord(layer, inputs, layer.propagate(inputs))]
        try:
            return [LayerRecord(node, inputs, propagate(node, inputs))]
        except InputError as error:
            raise InputError(f"at the layer {path!r} {error}") from None

    def _output(self, node: Node, path: str, inputs: LayerBounds) -> LayerBounds:
        """Bounds of the outputs of a layer in a graph."""
        found = self.records(node, path, inputs, tighten=False)
        return found[-1].out if found else inputs

    def _tensor(self, name: str) -> np.ndarray:
        return self.target.array(name).astype(np.float64)

    def _layer(self, layer: Dense | Conv | RotationConv, path: str) -> WeightLayer:
        weight_name, bias_name = child_path(path, "weight"), child_path(path, "bias")
        weight, zero = self._tensor(weight_name), np.zeros(layer.outputs)
        bias = self._tensor(bias_name) if layer.bias else zero
        if not isinstance(self.weights, Mapping):
            return ToleranceLayer(layer, weight, bias, weight[None], bias, self.weights)
        effective_bias = self.weights[bias_name][0] if layer.bias else zero
        return WeightLayer(layer, weight, bias, self.weights[weight_name], effective_bias)


def _tighten(records: list[LayerRecord], inputs: LayerBounds, out: LayerBounds) -> LayerBounds:
    """Bounds of the last layer's outputs, intersected with linear bounds in the inputs of the first."""
    size, shape = out.f.low.size, out.f.low.shape
    ends: list[list[np.ndarray]] = [[], [], [], []]
    widest = max([size, *(record.inputs.f.low.size for record in records)])
    batch = max(min(_BATCH, _MAX_COEFFICIENTS // widest), 1)
    for first in range(0, size, batch):
        rows = np.eye(min(batch, size - first), size, first).reshape(-1, *shape)
        zeros, constant = np.zeros_like(rows), np.zeros(len(rows))
        pairs = (rows, zeros), (-rows, zeros), (zeros, rows), (zeros, -rows)
        for end, (difference, f) in zip(ends, pairs, strict=True):
            end.append(back_substitute(records, LinearBound(difference, f, constant)).upper(inputs))
    high, low, f_high, f_low = (np.concatenate(end).reshape(shape) for end in ends)
    return LayerBounds(
        out.f.intersect(IntervalArray(-f_low, f_high)), out.difference.intersect(IntervalArray(-low, high))
    )
