"""The linear layers of a ticket, and of its target, as the bounds of a box need them."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from lottery_jax.networks.node import LinearLayer, child_path
from lottery_jax.tickets.rounding import SMALLEST, LayerRounding, gamma


@dataclasses.dataclass(frozen=True, eq=False)
class LinearTerms:
    """A linear layer as intervals need it; copies of an output are rows.

    Attributes:
        weight: [signs, rows, inputs of a group, positions of the kernel].
        bias: [rows].
        size: Sums of absolute terms of one output for inputs of absolute value 1, [rows].
        bias_size: The same of its bias, [rows].
        relative: Rounding of a sum, relative to its absolute terms, [rows].
        underflow: Absolute error of a sum, [rows].
        gain: Multiplies the sum.
        hidden: Largest hidden value for inputs of absolute value 1.
        copies: Copies of each output; rows are [copies, outputs].
        spread: Absolute weights on all copies of an input, in the shape of `weight` without signs; None for one copy.
        target: The target's weights and biases for each row, without signs; None if neurons have no copies.
        tolerance: Of the weights and of the biases.
    """

    weight: np.ndarray
    bias: np.ndarray
    size: np.ndarray
    bias_size: np.ndarray
    relative: np.ndarray
    underflow: np.ndarray
    gain: float = 1.0
    hidden: float = 1.0
    copies: int = 1
    spread: np.ndarray | None = None
    target: tuple[np.ndarray, np.ndarray] | None = None
    tolerance: tuple[float, float] = (0.0, 0.0)

    @property
    def largest_sum(self) -> float:
        """Bound of all partial sums and hidden values for inputs of absolute value 1, at least 1."""
        size = float((self.size + self.bias_size).max())
        return max(size, size / self.gain, self.hidden, 1.0)


Terms = Callable[[str, LinearLayer], LinearTerms]
"""From a path and a layer of the target to the weights of a network in its place."""

TargetTensor = Callable[[str], np.ndarray]
"""From a name to the target's tensor, float64."""


def random_terms(
    layers: Mapping[str, LayerRounding],
    weights: Mapping[str, np.ndarray],
    copy_sizes: Mapping[str, np.ndarray],
    tolerances: Mapping[str, float],
    tensor: TargetTensor | None = None,
) -> Terms:
    """The linear layers of a ticket.

    Args:
        weights: Effective weights by tensor, [signs * copies, *shape].
        copy_sizes: Their sums of absolute terms, of tensors whose inputs have copies, in the same shape.
        tolerances: Tolerance of each tensor.
        tensor: Gives the target's tensors if neurons have copies.
    """

    def terms(path: str, layer: LinearLayer) -> LinearTerms:
        own, name, bias_name = layers[path], child_path(path, "weight"), child_path(path, "bias")
        copies = own.source.rows_per_weight
        shape = (layer.outputs, layer.inputs // layer.groups, math.prod(layer.kernel_shape))
        rows = copies * layer.outputs
        bias = bias_size = np.zeros(rows)
        target = None
        if layer.bias:
            bias, bias_size = weights[bias_name].reshape(rows), own.sums["bias"].total.reshape(rows)
        if tensor is not None:
            wanted = np.tile(tensor(name).reshape(shape), (copies, 1, 1))
            target = wanted, np.tile(tensor(bias_name), copies) if layer.bias else np.zeros(rows)
        return LinearTerms(
            weight=weights[name].reshape(-1, rows, *shape[1:]),
            bias=bias,
            size=own.sums["weight"].total.reshape(rows),
            bias_size=bias_size,
            relative=own.relative.reshape(rows),
            underflow=own.underflow.reshape(rows),
            gain=own.source.gain,
            hidden=own.hidden,
            copies=copies,
            spread=copy_sizes[name].reshape(rows, *shape[1:]) if name in copy_sizes else None,
            target=target,
            tolerance=(tolerances[name], tolerances[bias_name] if layer.bias else 0.0),
        )

    return terms


def target_terms(tensor: TargetTensor) -> Terms:
    """The linear layers of a target."""

    def terms(path: str, layer: LinearLayer) -> LinearTerms:
        weight = tensor(child_path(path, "weight")).reshape(1, layer.outputs, layer.inputs // layer.groups, -1)
        bias = tensor(child_path(path, "bias")) if layer.bias else np.zeros(layer.outputs)
        count, zero = weight[0, 0].size + layer.bias, np.zeros(layer.outputs)
        size = np.abs(weight[0]).sum((1, 2))
        return LinearTerms(weight, bias, size, np.abs(bias), zero + gamma(count + 1), zero + count * SMALLEST)

    return terms
