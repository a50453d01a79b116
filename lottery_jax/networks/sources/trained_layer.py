"""Layers whose weights are random at initialisation and then trained: the result of magnitude pruning.

The seed gives the initial weights, the mask the kept ones, and the trained values are stored. So the network is not a
strong ticket. Pruned weights are zero, or some of them have their initial values.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.errors import InputError
from lottery_jax.networks.node import LinearLayer, Weights
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.random_tensor import RandomTensor
from lottery_jax.rng.sampler import Sampler

STORED_NAME = "trained_weight"
FROZEN_NAME = "frozen"


@dataclasses.dataclass(frozen=True)
class TrainedLayer(Source):
    """`layer` with weights initialised from `sampler` as in `RandomLayer`, then trained and stored.

    The only mask is that of `weight`; the stored `trained_weight` is zero where pruned. A bias is stored without mask.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> layer = TrainedLayer(Dense(3, 2, bias=True), Sampler.normal(1))
    >>> list(layer.random_tensors()), layer.tensors()
    (['weight'], {'trained_weight': (2, 3), 'bias': (2,)})
    """

    layer: LinearLayer
    sampler: Sampler
    gain: float = 1.0
    kind: ClassVar[str] = "trained_layer"
    trained_tensors: ClassVar[Mapping[str, str]] = {"weight": STORED_NAME}

    def __post_init__(self) -> None:
        if self.gain != 1.0:
            raise InputError(f"the gain of trained weights must be 1, got {self.gain}. Multiply the weights instead.")
        if self.sampler.density < 1:
            raise InputError("the density of trained weights must be 1. Prune them by their mask.")
        if self.sampler.locked > 0:
            raise InputError("locked must be 0 for trained weights. Keep them by their mask.")

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {self.trained_tensors.get(name, name): shape for name, shape in self.layer.tensors().items()}

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        # Initial weights come from a ticket's seed, which is unknown here.
        return {name: jnp.zeros(shape) for name, shape in self.tensors().items()}

    def random_tensors(self) -> dict[str, RandomTensor]:
        return {"weight": RandomLayer(self.layer, self.sampler).random_tensors()["weight"]}

    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        weights = {name: kept(name) for name in self.layer.tensors()}
        for name in self.frozen_tensors.values():
            weights["weight"] = weights["weight"] + kept(name)
        return self.layer.module(Weights(weights))(x)  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class PartlyTrainedLayer(TrainedLayer):
    """`TrainedLayer` in which the pruned weights that the mask of `frozen` keeps have their initial values.

    `frozen` is the same random tensor as `weight`, at the same positions; the weights of both masks are added.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> layer = PartlyTrainedLayer(Dense(3, 2), Sampler.normal(1))
    >>> layer.random_tensors()["weight"] == layer.random_tensors()["frozen"]
    True
    """

    kind: ClassVar[str] = "partly_trained_layer"
    frozen_tensors: ClassVar[Mapping[str, str]] = {"weight": FROZEN_NAME}

    def random_tensors(self) -> dict[str, RandomTensor]:
        (weight,) = super().random_tensors().values()
        return {"weight": weight, FROZEN_NAME: weight}
