"""Every target weight in some random copies, whose kept ones sum to it: the scalar setting.

Pensia et al. 2020, Experiment 1: candidates are plain weights, not products. Row p of a mask (the target's weights,
row-major) has its C copies at positions p * C ... p * C + C - 1 of the tensor's stream; `shared` gives the weights of
an output (the target's first axis) one vector of copies in common, as the published code does.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import WeightNode, Weights
from lottery_jax.networks.sources.base import MaskedModule, Source, check_gain, numbered
from lottery_jax.rng.random_tensor import Contiguous, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class CandidatesPerWeight(Source):
    """The leaf `of` with `copies` C of every weight; masks are [*shape of the tensor, C].

    samplers: one for each tensor of `of`, in order. The output is multiplied by `gain`.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> copies = CandidatesPerWeight(Dense(3, 2), 21, (Sampler.uniform(-1, 1),), shared=True).random_tensors()["weight"]
    >>> copies.shape, copies.rows, copies.blocks
    ((2, 3, 21), 6, 2)
    """

    layer: WeightNode
    candidates: int
    samplers: tuple[Sampler, ...]
    shared: bool = False
    gain: float = 1.0
    kind: ClassVar[str] = "candidates_per_weight"

    def __post_init__(self) -> None:
        check_gain(self.gain)
        if len(self.samplers) != len(self.layer.tensors()):
            raise InputError(
                f"copies of {len(self.layer.tensors())} tensors need as many samplers, not {len(self.samplers)}"
            )

    def random_tensors(self) -> dict[str, RandomTensor]:
        layout = Contiguous(self.candidates)
        shapes = self.layer.tensors()
        return numbered(
            {
                name: RandomTensor(
                    (*shape, self.candidates),
                    self.candidates,
                    sampler,
                    layout,
                    math.prod(shape[1:]) if self.shared else 1,
                )
                for (name, shape), sampler in zip(shapes.items(), self.samplers, strict=True)
            }
        )

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: Mapping[str, np.ndarray]
    ) -> float:
        return self.gain

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedCandidates(self, weights)


class MaskedCandidates(MaskedModule):
    """x -> the operation, every edge the sum of its kept copies."""

    def __init__(self, source: CandidatesPerWeight, weights: Weights) -> None:
        super().__init__(source, weights, source.gain)
        self.layer = source.layer

    def __call__(self, x: jax.Array) -> jax.Array:
        kept = {name: self.masked(name).sum(-1) for name in self.layer.tensors()}
        return self.scaled(self.layer.module(Weights(kept))(x))  # type: ignore[operator]
