"""One random weight in place of each target weight: the source of learned masks."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import numpy as np
from flax import nnx

from lottery_jax.networks.node import Operation, Weights
from lottery_jax.networks.sources.drawn import Drawn, Matrix
from lottery_jax.networks.sources.source import MaskedModule, Source, check_gain, numbered
from lottery_jax.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Single(Source):
    """The operation `of` with random weights, its output times `gain`; masks have the shapes of its tensors.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> {name: tensor.shape for name, tensor in Single(Dense(3, 2), Sampler.normal(1)).drawn().items()}
    {'weight': (2, 3)}
    """

    of: Operation
    sampler: Sampler
    gain: float = 1.0
    kind: ClassVar[str] = "single"

    def __post_init__(self) -> None:
        check_gain(self.gain)

    def drawn(self) -> dict[str, Drawn]:
        own, places = self.of.inputs // self.of.groups, math.prod(self.of.places)
        layouts = {"weight": Matrix(self.of.outputs, own, places, 1), "bias": Matrix(self.of.outputs, 1, 1, 1)}
        shapes = self.of.tensors()
        return numbered({name: Drawn(shape, 1, self.sampler, layouts[name]) for name, shape in shapes.items()})

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, edges: Mapping[str, np.ndarray]
    ) -> float:
        return self.gain

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedOperation(self, weights)


class MaskedOperation(MaskedModule):
    """x -> gain times the operation with the kept weights."""

    def __init__(self, source: Single, weights: Weights) -> None:
        super().__init__(source, weights, source.gain)
        self.of = source.of

    def __call__(self, x: jax.Array) -> jax.Array:
        kept = {name: self.masked(name) for name in self.of.tensors()}
        return self.scaled(self.of.module(Weights(kept))(x))  # type: ignore[operator]
