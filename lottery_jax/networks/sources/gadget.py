"""The gadget of Pensia et al. 2020 (Figure 1): two random layers with a ReLU between them replace one layer.

Each input has its own hidden units: the first random matrix is masked to a block-column pattern, so that a unit keeps
only the edge from its input. The second matrix has a random weight for each unit and target weight. In front of a
convolution the first layer is a random 1 x 1 convolution (da Cunha et al. 2022). A bias is the weight of one more
input, the constant 1, with its own units (Theorem 1 with biases).

A unit with first weight u computes relu(u x). So for inputs >= 0 the target weight is a sum of u v over units with
u > 0, and for inputs < 0 over units with u < 0.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import numpy as np

from lottery_jax.networks.node import LinearLayer, Spec, Weights
from lottery_jax.networks.sources.base import NamedArrays, Source, merge_copies
from lottery_jax.rng.random_tensor import DiagonalLayout, MatrixLayout, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Gadget(Source):
    """`layer` behind `units` U hidden units of each input.

    Masks: `first` [I, U] (one more row for the constant of a bias), `weight` and `bias` [*shape of the tensor, U].
    Weights are drawn at their positions in the theorem's full matrices.

    Args:
        units: U, hidden units of each input.
        first: Sampler of the first random layer.
        second: Sampler of the second random layer.
        relu: Whether there is a ReLU between the two.

    >>> from lottery_jax.networks.layers.conv import Conv
    >>> gadget = Gadget(Conv(3, 8, (5, 5), bias=True), 42, Sampler.uniform(-1, 1), Sampler.uniform(-1, 1))
    >>> {name: tensor.shape for name, tensor in gadget.random_tensors().items()}
    {'first': (4, 42), 'weight': (8, 3, 5, 5, 42), 'bias': (8, 42)}
    """

    layer: LinearLayer
    units: int
    first: Sampler
    second: Sampler
    relu: bool = True
    gain: float = 1.0
    kind: ClassVar[str] = "gadget"
    hidden_tensors: ClassVar[tuple[str, ...]] = ("first",)

    def random_tensors(self) -> dict[str, RandomTensor]:
        layer, units = self.layer, self.units
        inputs, per_group = layer.inputs + layer.bias, layer.inputs // layer.groups
        size = math.prod(layer.kernel_shape)
        offset = per_group * units * size * layer.outputs * self.rows_per_weight
        layouts = {
            "weight": MatrixLayout(layer.outputs, per_group, size, units, copies=self.rows_per_weight),
            # The constant is the last input of the same matrix.
            "bias": MatrixLayout(layer.outputs, 1, 1, units, offset, self.rows_per_weight),
        }
        found = {"first": RandomTensor((inputs, units), units, self.first, DiagonalLayout(inputs, units))}
        for name, shape in layer.tensors().items():
            found[name] = RandomTensor((*shape, units), units, self.second, layouts[name], stream=1)
        return found

    @property
    def units_per_input(self) -> int:
        return self.units

    def input_signs(self, name: str, input_spec: Spec | None) -> tuple[int, ...]:
        one = name == "bias" or not self.relu or (input_spec is not None and input_spec.nonnegative)
        return (1,) if one else (1, -1)

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: NamedArrays
    ) -> np.ndarray:
        first = hidden["first"].astype(np.float64)[
            self.layer.input_channels(name, rows // self.rows_per_weight), columns
        ]
        if self.relu:
            first = np.maximum(first, 0) if sign > 0 else np.minimum(first, 0)
        return self.gain * first

    def without_dead_units(self, pruned: NamedArrays) -> tuple[Source, NamedArrays]:
        half, alive = self.units // 2, pruned["first"] != 0
        # Half of the units or none: any other number would differ from mask to mask and compile again.
        if not half or alive.sum(1).max() > half:
            return self, pruned
        units = np.argsort(~alive, axis=1, kind="stable")[:, :half]
        found = {"first": np.take_along_axis(pruned["first"], units, 1)}
        layer, of_inputs = self.layer, units[: self.layer.inputs].reshape(self.layer.groups, -1, half)
        if layer.groups > 1:
            of_inputs = of_inputs.repeat(layer.outputs // layer.groups, 0)
        others = (1 for _ in pruned["weight"].shape[2:-1])
        index = of_inputs.reshape(*of_inputs.shape[:2], *others, half)  # [O or 1, I / groups, ..., U / 2]
        found["weight"] = np.take_along_axis(pruned["weight"], index, -1)
        if layer.bias:
            found["bias"] = pruned["bias"][..., units[layer.inputs]]
        return dataclasses.replace(self, units=half), found

    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        layer, first, second = self.layer, kept("first"), kept("weight")
        hidden = self._activated(x[..., None] * first[: layer.inputs])
        shape = second.shape[: 2 + len(layer.kernel_shape)]
        weights = {"weight": merge_copies(second.reshape(*shape, -1, self.units))}
        if layer.bias:
            weights["bias"] = (kept("bias") @ self._activated(first[layer.inputs])).reshape(-1)
        module = layer.with_copies(self.units, self.rows_per_weight).module(Weights(weights))
        return module(hidden.reshape(*x.shape[:-1], -1))  # type: ignore[operator]

    def _activated(self, hidden: jax.Array) -> jax.Array:
        return jax.nn.relu(hidden) if self.relu else hidden
