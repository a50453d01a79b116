"""Every target weight is the sum of its kept candidates: the scalar setting of Pensia et al. 2020, Experiment 1.

Candidates are plain weights, not products. Row p of a mask (the target's weights, row-major) has its C candidates at
positions p * C ... p * C + C - 1 of the tensor's stream. With `shared`, the weights of one output (the target's
first axis) share one vector of candidates, as in the published code.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax

from lottery_jax.errors import InputError
from lottery_jax.networks.node import WeightNode, Weights
from lottery_jax.networks.sources.base import Source, assign_streams
from lottery_jax.rng.random_tensor import ContiguousLayout, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class CandidatesPerWeight(Source):
    """`layer` with C `candidates` of every weight; masks are [*shape of the tensor, C].

    Args:
        candidates: C, random weights for each target weight.
        samplers: One for each tensor of `layer`, in order.
        shared: Whether the weights of one output share their candidates.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> tensor = CandidatesPerWeight(Dense(3, 2), 21, (Sampler.uniform(-1, 1),), shared=True).random_tensors()["weight"]
    >>> tensor.shape, tensor.rows, tensor.blocks
    ((2, 3, 21), 6, 2)
    """

    layer: WeightNode
    candidates: int
    samplers: tuple[Sampler, ...]
    shared: bool = False
    gain: float = 1.0
    kind: ClassVar[str] = "candidates_per_weight"
    sums_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.samplers) != len(self.layer.tensors()):
            raise InputError(
                f"samplers must have one entry for each of the {len(self.layer.tensors())} tensors, got"
                f" {len(self.samplers)}"
            )

    def random_tensors(self) -> dict[str, RandomTensor]:
        layout = ContiguousLayout(self.candidates)
        shapes = self.layer.tensors()
        return assign_streams(
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

    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        weights = {name: kept(name).sum(-1) for name in self.layer.tensors()}
        return self.layer.module(Weights(weights))(x)  # type: ignore[operator]
