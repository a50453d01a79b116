"""One random weight in place of each target weight: the source of learned masks.

One random weight in place of each target weight, taken several times: with its sign turned, or in part.

A mask has a bit for each factor of each weight, and the weight made is the random one times the sum of the factors that
are kept: (1, -1) makes masks in {-1, 0, 1}, (1, 1/2, 1/4) masks in quarters. Factors are powers of two, so that they
hide nothing of a target.
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
from lottery_jax.networks.sources.base import MaskedModule, Source, check_gain, numbered
from lottery_jax.rng.random_tensor import Layout, Matrix, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class RandomLayer(Source):
    """The operation `of` with random weights, its output times `gain`; masks have the shapes of its tensors.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> {name: tensor.shape for name, tensor in RandomLayer(Dense(3, 2), Sampler.normal(1)).random_tensors().items()}
    {'weight': (2, 3)}
    """

    layer: LinearLayer
    sampler: Sampler
    gain: float = 1.0
    kind: ClassVar[str] = "random_layer"

    def __post_init__(self) -> None:
        check_gain(self.gain)

    def random_tensors(self) -> dict[str, RandomTensor]:
        own, places = self.layer.inputs // self.layer.groups, math.prod(self.layer.kernel_shape)
        layouts = {"weight": Matrix(self.layer.outputs, own, places, 1), "bias": Matrix(self.layer.outputs, 1, 1, 1)}
        shapes = self.layer.tensors()
        return numbered({name: RandomTensor(shape, 1, self.sampler, layouts[name]) for name, shape in shapes.items()})

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: Mapping[str, np.ndarray]
    ) -> float:
        return self.gain

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedRandomLayer(self, weights)


class MaskedRandomLayer(MaskedModule):
    """x -> gain times the operation with the kept weights."""

    def __init__(self, source: RandomLayer, weights: Weights) -> None:
        super().__init__(source, weights, source.gain)
        self.layer = source.layer

    def __call__(self, x: jax.Array) -> jax.Array:
        kept = {name: self.masked(name) for name in self.layer.tensors()}
        return self.scaled(self.layer.module(Weights(kept))(x))  # type: ignore[operator]


LEAST_FACTOR = 2.0**-15


@dataclasses.dataclass(frozen=True)
class MultiLevelLayer(Source):
    """The operation `of`, each weight one random one times kept `factors` F; masks are [*shape of the tensor, F].

    factors: different powers of two, 1 to 2**-15, or these negative. Weights are drawn as `RandomLayer` draws them.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> tied = MultiLevelLayer(Dense(3, 2), Sampler.normal(1), (1.0, -1.0)).random_tensors()["weight"]
    >>> tied.shape, tied.weights
    ((2, 3, 2), 6)
    """

    layer: LinearLayer
    sampler: Sampler
    factors: tuple[float, ...]
    gain: float = 1.0
    kind: ClassVar[str] = "multi_level_layer"

    def __post_init__(self) -> None:
        check_gain(self.gain)
        powers = all(
            LEAST_FACTOR <= abs(factor) <= 1 and math.frexp(factor)[0] in (0.5, -0.5) for factor in self.factors
        )
        if not (self.factors and powers and len(set(self.factors)) == len(self.factors)):
            raise InputError(
                f"factors must be different powers of two, from 1 to {LEAST_FACTOR}, or these negative, not"
                f" {str(self.factors)[:60]}"
            )
        if self.sampler.locked > 0:
            raise InputError(
                "a mask with several bits for a weight says how it counts, so that none can be locked as kept; lock"
                " none, or use masks of one bit"
            )

    def random_tensors(self) -> dict[str, RandomTensor]:
        count, once = len(self.factors), RandomLayer(self.layer, self.sampler).random_tensors()
        return {
            name: dataclasses.replace(one, shape=(*one.shape, count), width=count, layout=RepeatedLayout(one.layout))
            for name, one in once.items()
        }

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        return self.gain * np.asarray(self.factors, np.float64)[columns]

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedMultiLevel(self, weights)


@dataclasses.dataclass(frozen=True)
class RepeatedLayout(Layout):
    """Blocks of one weight, that of the layout `of`, taken as often as a row is wide."""

    layout: Layout

    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.layout.start(blocks)

    @property
    def step(self) -> int:
        return 0

    def spans(self, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.layout.spans(blocks, 1)

    def draw_all(self, drawn: RandomTensor, seed: int) -> np.ndarray:
        once = dataclasses.replace(drawn, shape=drawn.shape[:-1], width=1, layout=self.layout)
        return np.repeat(self.layout.draw_all(once, seed), drawn.width, 1)


class MaskedMultiLevel(MaskedModule):
    """x -> the operation, every edge its random weight times the sum of its kept factors."""

    def __init__(self, source: MultiLevelLayer, weights: Weights) -> None:
        super().__init__(source, weights, source.gain)
        self.layer, self.factors = source.layer, source.factors

    def __call__(self, x: jax.Array) -> jax.Array:
        factors = np.asarray(self.factors, np.float32)

        def made(name: str) -> jax.Array:
            kept = self.masked(name)
            return (kept * jnp.asarray(factors, kept.dtype)).sum(-1)

        return self.scaled(self.layer.module(Weights({name: made(name) for name in self.layer.tensors()}))(x))  # type: ignore[operator]
