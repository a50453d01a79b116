"""A ladder of random layers with weights of +-1 in front of a layer (Sreenivasan et al. 2021, arXiv 2110.08996).

Its units compute powers of two: a unit with the edge +1 or -1 from its input x computes relu(x) or relu(-x), a unit
with two edges +1 from units of value v computes 2 v, and a unit with one edge +1 computes v. So after k rungs there are
units for 2^0 ... 2^k times relu(x) and relu(-x), the candidates of the last random matrix of +-1. The mask selects the
edges: any units of one input may be connected. Edges between units of different inputs are always pruned and not
drawn. A bias is one more input, the constant 1. In front of a convolution all layers of the ladder are 1 x 1.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Cost, LinearLayer, Spec, Weights
from lottery_jax.networks.sources.base import NamedArrays, Source
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.rng.random_tensor import ContiguousLayout, RandomTensor
from lottery_jax.rng.sampler import Sampler

MAX_RUNGS = 32
"""Rungs of a ladder: powers of two up to 2**32."""

_SIGNS = Sampler.signed_constant(1)


@dataclasses.dataclass(frozen=True)
class BinaryLadder(Source):
    """`layer` behind `rungs` layers with `units` U units of each input and weights of +-1.

    Masks: `first` [I, U] (one more row for the constant of a bias), `rung1` ... [I, U, U] (last axis: the incoming
    edges of a unit), `weight` and `bias` [*shape of the tensor, U]. `first`, `weight` and `bias` are drawn as in
    `Gadget`.

    Args:
        units: U, units of each input in each layer.
        rungs: Layers between the first and the last.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> {name: tensor.shape for name, tensor in BinaryLadder(Dense(3, 2), 8, 2).random_tensors().items()}
    {'first': (3, 8), 'rung1': (3, 8, 8), 'rung2': (3, 8, 8), 'weight': (2, 3, 8)}
    """

    layer: LinearLayer
    units: int
    rungs: int
    gain: float = 1.0
    kind: ClassVar[str] = "binary_ladder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rungs <= MAX_RUNGS:
            raise InputError(f"a ladder must have 0 to {MAX_RUNGS} rungs, got {self.rungs}")

    def random_tensors(self) -> dict[str, RandomTensor]:
        inputs, units = self.layer.inputs + self.layer.bias, self.units
        found, stream = Gadget(self.layer, units, _SIGNS, _SIGNS).random_tensors(), 2
        for name in self.hidden_tensors[1:]:
            found[name] = RandomTensor((inputs, units, units), units, _SIGNS, ContiguousLayout(units), stream=stream)
            stream += found[name].streams
        return {name: found[name] for name in (*self.hidden_tensors, *self.layer.tensors())}

    @property
    def hidden_tensors(self) -> tuple[str, ...]:
        return ("first", *(f"rung{number}" for number in range(1, self.rungs + 1)))

    @property
    def units_per_input(self) -> int:
        return self.units

    def cost(self, input_spec: Spec) -> Cost:
        return super().cost(input_spec) + Cost(math.prod(input_spec.shape) * self.units**2 * self.rungs)

    def input_signs(self, name: str, input_spec: Spec | None) -> tuple[int, ...]:
        return (1,) if name == "bias" or (input_spec is not None and input_spec.nonnegative) else (1, -1)

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: NamedArrays
    ) -> np.ndarray:
        value = self._values(sign, hidden)[-1]
        return sign * self.gain * value[self.layer.input_channels(name, rows), columns]

    def term_sizes(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: NamedArrays
    ) -> np.ndarray:
        return np.abs(self.coefficients(name, rows, columns, sign, self._without_signs(hidden)))

    def largest_hidden(self, hidden: NamedArrays) -> float:
        every = self._without_signs(hidden)
        return max(float(value.max()) for sign in (1, -1) for value in self._values(sign, every))

    def _values(self, sign: int, hidden: NamedArrays) -> list[np.ndarray]:
        """The values [I, U] of the units of each layer for x = `sign`."""
        # Units see one input and no bias, so they scale with |x|.
        values = [np.maximum(sign * hidden["first"].astype(np.float64), 0)]
        for rung in self.hidden_tensors[1:]:
            values.append(np.maximum(np.einsum("ivu,iu->iv", hidden[rung].astype(np.float64), values[-1]), 0))
        return values

    def _without_signs(self, hidden: NamedArrays) -> NamedArrays:
        """The hidden tensors with edges that do not cancel: their values bound those of the real ones."""
        return {"first": hidden["first"], **{rung: np.abs(hidden[rung]) for rung in self.hidden_tensors[1:]}}

    def hidden_roundings(self, hidden: NamedArrays) -> int:
        edges = [np.count_nonzero(hidden[rung], 2).max() for rung in self.hidden_tensors[1:]]
        return 1 + sum(max(int(count) - 1, 0) for count in edges)

    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        layer, first = self.layer, kept("first")
        inputs = layer.inputs
        hidden, constant = jax.nn.relu(x[..., None] * first[:inputs]), jax.nn.relu(first[inputs:])
        for name in self.hidden_tensors[1:]:
            rung = kept(name)
            hidden = jax.nn.relu(jnp.einsum("ivu,...iu->...iv", rung[:inputs], hidden))
            constant = jax.nn.relu(jnp.einsum("ivu,iu->iv", rung[inputs:], constant))
        last = jnp.moveaxis(kept("weight"), -1, 2)  # [O, I / groups, U, ...]
        weights = {"weight": last.reshape(layer.outputs, -1, *layer.kernel_shape)}
        if layer.bias:
            weights["bias"] = kept("bias") @ constant[0]
        module = layer.with_copies(self.units).module(Weights(weights))
        return module(hidden.reshape(*x.shape[:-1], -1))  # type: ignore[operator]
