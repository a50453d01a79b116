"""A construction: normal random copies of each weight. With a line in `constructions/registry.py` it is a method."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.constructions.base import Construction, TensorProblem
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import WeightNode, child_path
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Normal(Construction):
    """n normal copies of each weight; kept copies sum to it."""

    name: ClassVar[str] = "normal"

    spread: float = 0.5
    """Standard deviation of the copies, as a part of the largest |weight| of their tensor."""

    def random_layer(self, target: Target, path: str, of: WeightNode) -> CandidatesPerWeight:
        largest = [target.scan(child_path(path, name)).largest or 1.0 for name in of.tensors()]
        return CandidatesPerWeight(of, self.candidates, tuple(Sampler.normal(self.spread * size) for size in largest))

    def problems(
        self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int
    ) -> tuple[list[TensorProblem], dict[str, np.ndarray]]:
        bounds = {name: 4.5 * tensor.sampler.scale for name, tensor in drawn.items()}  # where the normal is cut off
        found = [
            TensorProblem(child_path(path, name), drawn[name], self.candidates, bound=bounds[name]) for name in drawn
        ]
        return found, {}
