"""One weight in place of each target weight that was random and was then trained: what magnitude pruning leaves.

The seed still says where the weights began, and the mask which of them are left; what they became is stored. So the
network is no strong ticket: nothing about it follows from seed and bits alone. Pruned weights are zero, or some of them
as they were drawn.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import LinearLayer, Weights
from lottery_jax.networks.sources.base import MaskedModule, Source, selected
from lottery_jax.rng.random_tensor import Matrix, RandomTensor
from lottery_jax.rng.sampler import Sampler

STORED_NAME = "trained_weight"

FROZEN_NAME = "frozen"


@dataclasses.dataclass(frozen=True)
class TrainedLayer(Source):
    """The operation `of` with weights drawn from `sampler` as `RandomLayer` draws them, then trained, then stored.

    The mask is that of `weight`; `trained_weight` is zero outside it. A bias is stored as it is.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> leaf = TrainedLayer(Dense(3, 2, bias=True), Sampler.normal(1))
    >>> list(leaf.random_tensors()), leaf.tensors()
    (['weight'], {'trained_weight': (2, 3), 'bias': (2,)})
    """

    layer: LinearLayer
    sampler: Sampler
    gain: float = 1.0
    kind: ClassVar[str] = "trained_layer"

    def __post_init__(self) -> None:
        if self.gain != 1.0:
            raise InputError(f"the gain of trained weights is 1, not {self.gain}; multiply the weights instead")
        if self.sampler.density < 1:
            raise InputError("weights that are trained are all there: their density is 1; prune them by their mask")
        if self.sampler.locked > 0:
            raise InputError("weights that are trained are kept by their mask alone: none of them is locked; use 0")

    @property
    def trained_tensors(self) -> dict[str, str]:
        return {"weight": STORED_NAME}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {self.trained_tensors.get(name, name): shape for name, shape in self.layer.tensors().items()}

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        # Where the weights began is drawn from a ticket's seed, which is not known here.
        return {name: jnp.zeros(shape) for name, shape in self.tensors().items()}

    def random_tensors(self) -> dict[str, RandomTensor]:
        own, places = self.layer.inputs // self.layer.groups, math.prod(self.layer.kernel_shape)
        shape = self.layer.tensors()["weight"]
        return {"weight": RandomTensor(shape, 1, self.sampler, Matrix(self.layer.outputs, own, places, 1))}

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: Mapping[str, np.ndarray]
    ) -> float:
        return self.gain

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedTrainedLayer(self, weights)


@dataclasses.dataclass(frozen=True)
class PartlyTrainedLayer(TrainedLayer):
    """As `TrainedLayer`, but pruned weights may stay as they were drawn: where the mask of `frozen` has them.

    `frozen` is the same random tensor as `weight`, from the same positions; what both masks have is added.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> leaf = PartlyTrainedLayer(Dense(3, 2), Sampler.normal(1))
    >>> leaf.random_tensors()["weight"] == leaf.random_tensors()["frozen"]
    True
    """

    kind: ClassVar[str] = "partly_trained_layer"

    @property
    def frozen_tensors(self) -> dict[str, str]:
        return {"weight": FROZEN_NAME}

    def random_tensors(self) -> dict[str, RandomTensor]:
        (weight,) = super().random_tensors().values()
        return {"weight": weight, FROZEN_NAME: weight}


class MaskedTrainedLayer(MaskedModule):
    """x -> the operation with the kept trained weights, what is frozen of the drawn ones, and its bias."""

    def __init__(self, source: TrainedLayer, weights: Weights) -> None:
        super().__init__(source, weights, source.gain)
        self.layer, self.beside = source.layer, tuple(source.frozen_tensors.values())
        self.stored = nnx.Dict({name: nnx.Param(jnp.asarray(weights[name])) for name in source.tensors()})

    def __call__(self, x: jax.Array) -> jax.Array:
        kept = {name: value[...] for name, value in self.stored.items()}
        kept["weight"] = selected(self.gates["weight"](), kept.pop(STORED_NAME))  # type: ignore[operator]
        for name in self.beside:
            kept["weight"] = kept["weight"] + self.masked(name)
        return self.scaled(self.layer.module(Weights(kept))(x))  # type: ignore[operator]
