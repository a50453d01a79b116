"""The base of random layers. Each wraps a target layer, so that every kind works with every kind of linear layer."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import MAX_MAGNITUDE, MIN_MAGNITUDE, Cost, Frozen, Node, Spec, WeightNode, Weights
from lottery_jax.rng.random_tensor import RandomTensor

NamedArrays = Mapping[str, np.ndarray]


class Source(Node):
    """A random layer that makes the weights of the target layer `layer`; its output is multiplied by `gain`.

    Each tensor of `layer` has a mask of the same name, with several random weights for every target weight.
    """

    layer: WeightNode
    gain: float
    units_per_input: ClassVar[int] = 1
    """Hidden units of each input."""
    rows_per_weight: ClassVar[int] = 1
    """Rows of a mask for each target weight: one per copy of its output."""
    hidden_tensors: ClassVar[tuple[str, ...]] = ()
    """Random tensors of the hidden layers in front of `layer`."""
    sums_weights: ClassVar[bool] = False
    """Whether the kept weights of a target weight are added up before they multiply an input."""
    trained_tensors: ClassVar[Mapping[str, str]] = {}
    """Trained tensors that replace random ones: stored names by the random tensor whose mask they have."""
    frozen_tensors: ClassVar[Mapping[str, str]] = {}
    """Random tensors added at their initial values: names by the random tensor that they complement."""

    def __post_init__(self) -> None:
        check_gain(self.gain)

    @abc.abstractmethod
    def random_tensors(self) -> dict[str, RandomTensor]:
        """The random tensors by name: `hidden_tensors`, then those of `layer`."""

    @property
    def effective_layer(self) -> WeightNode:
        """The layer that is computed: `layer` on all copies of its inputs and outputs."""
        return self.layer

    def output_spec(self, input_spec: Spec) -> Spec:
        return self.layer.output_spec(input_spec)

    def cost(self, input_spec: Spec) -> Cost:
        layer, weights = self.effective_layer.cost(input_spec), 0
        for tensor in self.random_tensors().values():
            weights += tensor.size
        hidden = math.prod(input_spec.shape) * self.units_per_input
        return Cost(layer.operations * self.units_per_input + weights, max(layer.numbers, hidden))

    @abc.abstractmethod
    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        """The output, before it is multiplied by the gain.

        Args:
            kept: Returns the weights of a random tensor, zero where pruned, or a stored tensor without a mask.
            x: [B, *input].
        """

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedModule(self, weights)

    def input_signs(self, name: str, input_spec: Spec | None) -> tuple[int, ...]:
        """The signs of inputs for which the weights of tensor `name` differ: (1,), or (1, -1)."""
        return (1,)

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: NamedArrays
    ) -> np.ndarray | float:
        """Coefficients of kept random weights: a target weight is the sum of coefficient times kept weight.

        Only verification calls this, no construction.

        Args:
            rows: Rows of the random weights in the mask, [R].
            columns: Their columns, [R].
            hidden: The weights of `hidden_tensors`, zero where pruned.

        Returns:
            float64 [R], or one number for all; by default the gain.
        """
        return self.gain

    def term_sizes(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: NamedArrays
    ) -> np.ndarray | None:
        """Bounds of ``|coefficients|`` that also hold if sums in the hidden layers cancel; None if there are no sums.

        The arguments are those of `coefficients`.
        """
        return None

    def hidden_roundings(self, hidden: NamedArrays) -> int:
        """Most roundings of a value in the hidden layers: by default one product in each."""
        return len(self.hidden_tensors)

    def largest_hidden(self, hidden: NamedArrays) -> float:
        """Largest absolute hidden value, also of hidden sums, for inputs of absolute value 1."""
        return max((float(np.abs(value).max()) for value in hidden.values()), default=1.0)

    def effective_tensor(self, name: str, values: np.ndarray, kept: Callable[[], np.ndarray]) -> np.ndarray:
        """Tensor `name` of `effective_layer`, [signs, *shape].

        Args:
            values: The target weights that the masks make, [signs * rows_per_weight, *shape in `layer`].
            kept: Returns the kept random weights in the shape of the mask, float32.
        """
        return values

    def without_dead_units(self, pruned: NamedArrays) -> tuple["Source", NamedArrays]:
        """The layer and its random tensors, zero where pruned, without hidden units that no kept weight reaches."""
        return self, pruned

    def statistics(self, module: Any) -> dict[str, jax.Array]:
        return {} if module.measured is None else {"gain": module.measured[...]}


class MaskedModule(nnx.Module):
    """The module of a random layer: its frozen random weights, trained tensors and gates.

    If `weights.measuring`, the gain is the one that gives the output root mean square 1.
    """

    def __init__(self, source: Source, weights: Weights) -> None:
        self.source, self.gain = source, weights.scalar("gain", source.gain)
        self.measured = nnx.data(nnx.Intermediate(jnp.ones(())) if weights.measuring else None)
        random, stored, gates = {}, {}, {}
        for name in source.random_tensors():
            random[name] = Frozen(jnp.asarray(weights[name]))
            gates[name] = weights.gate(name)
        for name in source.tensors():
            stored[name] = nnx.Param(jnp.asarray(weights[name]))
        self.random, self.stored, self.gates = nnx.Dict(random), nnx.Dict(stored), nnx.Dict(gates)

    def __call__(self, x: jax.Array) -> jax.Array:
        output = self.source.apply(self._kept, x)
        if self.measured is None:
            return output * self.gain
        size = jnp.sqrt(jnp.mean(output**2))
        self.measured[...] = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1.0), 1.0)
        return output * self.measured[...]

    def _kept(self, name: str) -> jax.Array:
        if name not in self.gates:
            return self.stored[name][...]
        trained = self.source.trained_tensors.get(name)
        weight = self.random[name][...] if trained is None else self.stored[trained][...]
        mask = self.gates[name]()  # type: ignore[operator]
        # A boolean mask makes pruned weights exactly zero; a float mask carries a gradient.
        return jnp.where(mask, weight, 0.0) if mask.dtype == bool else weight * mask


def merge_copies(weight: Any, copy_stride: int = 1) -> Any:
    """A weight [O, I, *kernel, C, U] with C copies of each output and U units of each input as [O C, I U, *kernel].

    The units of an input are `copy_stride` apart: the new inputs are [I / copy_stride, U, copy_stride].
    """
    outputs, inputs, *kernel, copies, units = weight.shape
    split = weight.reshape(outputs, inputs // copy_stride, copy_stride, *kernel, copies, units)
    last = 3 + len(kernel)
    moved = split.transpose(0, last, 1, last + 1, 2, *range(3, last))
    return moved.reshape(outputs * copies, inputs * units, *kernel)


def check_gain(gain: float) -> None:
    """Refuse a gain that is not a positive float32 with finite products."""
    if not (MIN_MAGNITUDE <= gain <= MAX_MAGNITUDE and float(np.float32(gain)) == gain):
        raise InputError(f"a gain must be a float32 from {MIN_MAGNITUDE} to {MAX_MAGNITUDE}, got {gain}")


def assign_streams(drawn: dict[str, RandomTensor]) -> dict[str, RandomTensor]:
    """The tensors of one layer on consecutive streams."""
    found, stream = {}, 0
    for name, tensor in drawn.items():
        found[name] = dataclasses.replace(tensor, stream=stream)
        stream += tensor.streams
    return found
