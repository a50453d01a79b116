"""A ladder of random layers with weights of +-1 in front of an operation (Sreenivasan et al. 2021, arXiv 2110.08996).

Its units carry powers of two: a unit with the edge +1 or -1 from its input x carries relu(x) or relu(-x), one with two
edges +1 from units that carry v carries 2 v, and one with a single edge +1 carries v on. So after k rungs there are
units for 2^0 ... 2^k times relu(x) and relu(-x), and the last random matrix of +-1 has them as candidates. Which edges
do that is the mask's matter: here all units of an input may be joined with each other, and a masked ladder is whatever
it computes. A bias is one more input, the constant 1. Edges between units of different inputs are always pruned, so
that they are not drawn; in front of a convolution all layers of the ladder are 1 x 1.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import LinearLayer, Spec, Weights
from lottery_jax.networks.sources.base import MaskedModule, Source, check_gain
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.rng.random_tensor import Contiguous, RandomTensor
from lottery_jax.rng.sampler import Sampler

MOST_RUNGS = 32
"""Of a ladder: 2**32 times a unit's number is as much as anyone needs of a float32."""

_SIGNS = Sampler.signed_constant(1)


@dataclasses.dataclass(frozen=True)
class BinaryLadder(Source):
    """The operation `of` behind `rungs` layers on `units` U units for each input, weights +-1; its output times `gain`.

    Masks: `first` [I, U] (one row more for a bias' constant), `rung1` ... [I, U, U], a unit's edges last, `weight` and
    `bias` [*shape of the tensor, U]. The first and the last matrix are drawn as a gadget's.

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
        check_gain(self.gain)
        if not 0 <= self.rungs <= MOST_RUNGS:
            raise InputError(f"a ladder has 0 to {MOST_RUNGS} rungs, not {self.rungs}")

    def random_tensors(self) -> dict[str, RandomTensor]:
        inputs, units = self.layer.inputs + self.layer.bias, self.units
        found, stream = Gadget(self.layer, units, _SIGNS, _SIGNS).random_tensors(), 2
        for name in self.hidden_tensors[1:]:
            found[name] = RandomTensor((inputs, units, units), units, _SIGNS, Contiguous(units), stream=stream)
            stream += found[name].streams
        return {name: found[name] for name in (*self.hidden_tensors, *self.layer.tensors())}

    @property
    def hidden_tensors(self) -> tuple[str, ...]:
        return ("first", *(f"rung{place + 1}" for place in range(self.rungs)))

    @property
    def units_per_input(self) -> int:
        return self.units

    def input_signs(self, name: str, input_spec: Spec | None) -> tuple[int, ...]:
        return (1,) if name == "bias" or (input_spec is not None and input_spec.nonnegative) else (1, -1)

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        # What each unit carries for x = sign: units of an input see it alone and no bias, so it is all that they do.
        carried = np.maximum(sign * hidden["first"].astype(np.float64), 0)
        for place in self.hidden_tensors[1:]:
            carried = np.maximum(np.einsum("ivu,iu->iv", hidden[place].astype(np.float64), carried), 0)
        return sign * self.gain * carried[self.layer.input_channels(name, rows), columns]

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedBinaryLadder(self, weights)


class MaskedBinaryLadder(MaskedModule):
    """x -> hidden units of each input, ReLU -> rung after rung, ReLU -> the operation on the last rung's units."""

    def __init__(self, source: BinaryLadder, weights: Weights) -> None:
        super().__init__(source, weights, source.gain)
        self.layer, self.units, self.hidden_tensors = source.layer, source.units, source.hidden_tensors

    def __call__(self, x: jax.Array) -> jax.Array:
        inputs, first = self.layer.inputs, self.masked("first")
        hidden, constant = jax.nn.relu(x[..., None] * first[:inputs]), jax.nn.relu(first[inputs:])
        for name in self.hidden_tensors[1:]:
            rung = self.masked(name)
            hidden = jax.nn.relu(jnp.einsum("ivu,...iu->...iv", rung[:inputs], hidden))
            constant = jax.nn.relu(jnp.einsum("ivu,iu->iv", rung[inputs:], constant))
        last = jnp.moveaxis(self.masked("weight"), -1, 2)  # [O, I / groups, U, ...]
        kept = {"weight": last.reshape(self.layer.outputs, -1, *self.layer.kernel_shape)}
        if self.layer.bias:
            kept["bias"] = self.masked("bias") @ constant[0]
        operation = self.layer.with_copies(self.units).module(Weights(kept))
        return self.scaled(operation(hidden.reshape(*x.shape[:-1], -1)))  # type: ignore[operator]
