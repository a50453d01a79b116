"""One random weight for each target weight: the sources of learned masks, with binary or multi-level masks."""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.node import LinearLayer, Weights
from lottery_jax.networks.sources.base import NamedArrays, Source, assign_streams
from lottery_jax.rng.random_tensor import Layout, MatrixLayout, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class RandomLayer(Source):
    """`layer` with random weights from `sampler`; masks have the shapes of its tensors.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> {name: tensor.shape for name, tensor in RandomLayer(Dense(3, 2), Sampler.normal(1)).random_tensors().items()}
    {'weight': (2, 3)}
    """

    layer: LinearLayer
    sampler: Sampler
    gain: float = 1.0
    kind: ClassVar[str] = "random_layer"
    sums_weights: ClassVar[bool] = True

    def random_tensors(self) -> dict[str, RandomTensor]:
        per_group, size = self.layer.inputs // self.layer.groups, math.prod(self.layer.kernel_shape)
        shapes = self.layer.tensors()
        layout = MatrixLayout(self.layer.outputs, per_group, size, 1)
        found = {"weight": RandomTensor(shapes["weight"], 1, self.sampler, layout)}
        if self.layer.bias:
            layout = MatrixLayout(self.layer.outputs, 1, 1, 1)
            found["bias"] = RandomTensor(shapes["bias"], 1, self.sampler, layout)
        return assign_streams(found)

    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        weights = {"weight": kept("weight")}
        if self.layer.bias:
            weights["bias"] = kept("bias")
        return self.layer.module(Weights(weights))(x)  # type: ignore[operator]


_MIN_FACTOR = 2.0**-15


@dataclasses.dataclass(frozen=True)
class MultiLevelLayer(Source):
    """`layer` with each weight a random weight times the sum of its kept `factors`.

    Masks are [*shape of the tensor, F], a bit per factor: factors (1, -1) make masks in {-1, 0, 1}, and
    (1, 1/2, 1/4) masks in quarters. Weights are drawn as in `RandomLayer`.

    Args:
        factors: F different powers of two from 1 to 2**-15 or their negatives, so that they encode nothing of a target.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> tensor = MultiLevelLayer(Dense(3, 2), Sampler.normal(1), (1.0, -1.0)).random_tensors()["weight"]
    >>> tensor.shape, tensor.weights
    ((2, 3, 2), 6)
    """

    layer: LinearLayer
    sampler: Sampler
    factors: tuple[float, ...]
    gain: float = 1.0
    kind: ClassVar[str] = "multi_level_layer"
    sums_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        powers = all(
            _MIN_FACTOR <= abs(factor) <= 1 and math.frexp(factor)[0] in (0.5, -0.5) for factor in self.factors
        )
        if not (self.factors and powers and len(set(self.factors)) == len(self.factors)):
            raise InputError(
                f"factors must be different powers of two from 1 to {_MIN_FACTOR} or their negatives, got"
                f" {str(self.factors)[:60]}"
            )
        if self.sampler.locked > 0:
            raise InputError(
                "locked must be 0 for masks with several bits per weight, which have no single kept value. Use masks of"
                " one bit to lock weights."
            )

    def random_tensors(self) -> dict[str, RandomTensor]:
        count, single = len(self.factors), RandomLayer(self.layer, self.sampler).random_tensors()
        return {
            name: dataclasses.replace(one, shape=(*one.shape, count), width=count, layout=RepeatedLayout(one.layout))
            for name, one in single.items()
        }

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: NamedArrays
    ) -> np.ndarray:
        return self.gain * np.asarray(self.factors, np.float64)[columns]

    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        factors = jnp.asarray(self.factors, jnp.float32)
        bits = {name: kept(name) for name in self.layer.tensors()}
        weights = {name: (value * factors.astype(value.dtype)).sum(-1) for name, value in bits.items()}
        return self.layer.module(Weights(weights))(x)  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class RepeatedLayout(Layout):
    """Blocks of one weight at the positions of `layout`, repeated for each column of a row."""

    layout: Layout

    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.layout.start(blocks)

    @property
    def step(self) -> int:
        return 0

    def spans(self, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.layout.spans(blocks, 1)

    def draw_all(self, drawn: RandomTensor, seed: int) -> np.ndarray:
        single = dataclasses.replace(drawn, shape=drawn.shape[:-1], width=1, layout=self.layout)
        return np.repeat(self.layout.draw_all(single, seed), drawn.width, 1)
