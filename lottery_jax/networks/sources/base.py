"""What every kind of random source has in common: it wraps the affine leaf whose weights it makes.

So kinds of source and kinds of operation add up: each source works for dense layers, convolutions and the projections
of attention, and an operation for every source.
"""

import abc
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.gates import Frozen
from lottery_jax.networks.node import MAX_MAGNITUDE, MIN_MAGNITUDE, Node, Spec, WeightNode, Weights
from lottery_jax.rng.random_tensor import RandomTensor


class Source(Node):
    """A random leaf. Each tensor of `of` has a mask of its name with some random weights for every target weight."""

    layer: WeightNode
    gain: float

    @abc.abstractmethod
    def random_tensors(self) -> dict[str, RandomTensor]:
        """The random tensors by name: those of `of`, after the `edges`."""

    @property
    def units_per_input(self) -> int:
        """Hidden units for each input."""
        return 1

    @property
    def rows_per_weight(self) -> int:
        """Rows of a mask for each target weight: one for each copy of its output."""
        return 1

    @property
    def effective_layer(self) -> WeightNode:
        """The operation that is computed: `of`, on all copies of its inputs and outputs."""
        return self.layer

    @property
    def hidden_tensors(self) -> tuple[str, ...]:
        """Random tensors between the input and those of `of`; an edge is kept where a weight behind it is."""
        return ()

    @property
    def trained_tensors(self) -> dict[str, str]:
        """Stored tensors whose weights stand in place of random ones, by the random tensor whose mask they have."""
        return {}

    @property
    def frozen_tensors(self) -> dict[str, str]:
        """Random tensors on the same places whose weights are added as they were drawn, by the tensor beside them."""
        return {}

    def output_spec(self, input_spec: Spec) -> Spec:
        return self.layer.output_spec(input_spec)

    @abc.abstractmethod
    def module(self, weights: Weights) -> nnx.Module: ...

    def input_signs(self, name: str, input_spec: Spec | None) -> tuple[int, ...]:
        """The signs of input for which the weights of tensor `name` may differ: (1,) or (1, -1)."""
        return (1,)

    @abc.abstractmethod
    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: Mapping[str, np.ndarray]
    ) -> np.ndarray | float:
        """What kept random weights [R] of tensor `name`, at these rows and columns, count in the target weight.

        float64. The target weight that a source makes is the sum of coefficient times weight over what is kept.
        `edges`: the kept weights of the edge tensors, 0 where pruned. This is the verifier's side: no construction
        calls it.
        """

    def effective_tensor(self, name: str, made: np.ndarray, kept: Callable[[], np.ndarray]) -> np.ndarray:
        """What tensor `name` of `wide` is, [signs, *its shape], from what is made of it.

        made: the target weights that are made, [signs * rows_per_weight, *shape in `of`]. kept: gives the kept random
        weights in the mask's shape, float32.
        """
        return made

    def without_dead_units(self, pruned: Mapping[str, np.ndarray]) -> tuple["Source", Mapping[str, np.ndarray]]:
        """The leaf and its random tensors, zero where pruned, with fewer hidden units if many are never reached."""
        return self, pruned

    def statistics(self, module: Any) -> dict[str, jax.Array]:
        return {} if module.measured is None else {"gain": module.measured[...]}


class MaskedModule(nnx.Module):
    """Frozen random weights and their gates, by name; what comes out is multiplied by a gain.

    A module that measures finds the gain that gives its output root mean square 1, and uses that.
    """

    def __init__(self, source: Source, weights: Weights, gain: float = 1.0) -> None:
        names = tuple(source.random_tensors())
        self.gain = weights.scalar("gain", gain)
        self.measured = nnx.data(nnx.Intermediate(jnp.ones(())) if weights.measuring else None)
        self.frozen = nnx.Dict({name: Frozen(jnp.asarray(weights[name])) for name in names})
        self.gates = nnx.Dict({name: weights.gate(name) for name in names})

    def masked(self, name: str) -> jax.Array:
        """The kept weights of a tensor, zero where pruned."""
        return selected(self.gates[name](), self.frozen[name][...])  # type: ignore[operator]

    def scaled(self, output: jax.Array) -> jax.Array:
        """The output times the gain."""
        if self.measured is None:
            return output * self.gain
        size = jnp.sqrt(jnp.mean(output**2))
        self.measured[...] = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1.0), 1.0)
        return output * self.measured[...]


def selected(mask: jax.Array, weight: jax.Array) -> jax.Array:
    """The kept weights, zero where pruned."""
    # A boolean mask selects, so that a pruned weight is exactly zero; a float mask carries a gradient.
    return jnp.where(mask, weight, 0.0) if mask.dtype == bool else weight * mask


def side_by_side(weight: Any, copy_stride: int = 1) -> Any:
    """A weight with units U of each input and copies C of each output as one matrix, or kernel.

    [O, I, *places, C, U] -> [O C, I U, *places]. Units of an input are `apart` numbers apart: the new inputs are
    [I / apart, U, apart].
    """
    outputs, inputs, *places, copies, units = weight.shape
    split = weight.reshape(outputs, inputs // copy_stride, copy_stride, *places, copies, units)
    last = 3 + len(places)
    moved = split.transpose(0, last, 1, last + 1, 2, *range(3, last))
    return moved.reshape(outputs * copies, inputs * units, *places)


def check_gain(gain: float) -> None:
    """Refuse a gain that is not a positive float32 whose products stay within float32."""
    if not (MIN_MAGNITUDE <= gain <= MAX_MAGNITUDE and float(np.float32(gain)) == gain):
        raise InputError(f"a gain must be a float32 from {MIN_MAGNITUDE} to {MAX_MAGNITUDE}, not {gain}")


def numbered(drawn: dict[str, RandomTensor]) -> dict[str, RandomTensor]:
    """The tensors of one leaf on streams of their own, one after the other."""
    first = itertools.accumulate((tensor.streams for tensor in drawn.values()), initial=0)
    return {name: dataclasses.replace(drawn[name], stream=stream) for name, stream in zip(drawn, first, strict=False)}
