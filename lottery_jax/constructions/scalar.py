"""Plain random candidates, without a gadget: the setting of Experiment 1 of Pensia et al. 2020 (arXiv 2006.07990).

It takes any tensor, also of a model with unknown graph. Use it for small or lossless tickets.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from lottery_jax.constructions.base import Construction, TensorProblem, TensorProblems
from lottery_jax.errors import InputError, suggest
from lottery_jax.io.tensor_file import read_float64
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import WeightNode, child_path
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import RandomTensor
from lottery_jax.rng.sampler import Sampler

RANGES = ("tensor", "model", "quarter", "matched")

_LOSSLESS_CANDIDATES = {False: 32, True: 48}  # shared candidates are not redrawn for one weight: all must succeed
_SLICE = 1 << 20  # target weights read at once
_LEAST_BOUND = 2.0**-63  # of the candidates, so that no step of their grid falls below the normal float32


@dataclasses.dataclass(frozen=True)
class Scalar(Construction):
    """n random copies of each weight, and those that are kept sum to it: Experiment 1 of Pensia et al. 2020."""

    name: ClassVar[str] = "scalar"
    unrounded: ClassVar[bool] = True
    shared: ClassVar[bool] = False

    range: Literal["tensor", "model", "quarter", "matched"] = "tensor"
    """Copies are uniform: on [-m, m] with the largest |weight| m of their tensor, or (model) on [min w, max w] over all
    weights, as published, or (quarter) on [-m / 4, m / 4], whose finer grid lossless tickets need; or (matched) they
    are normal, one distribution for all tensors, as wide as the spread says."""
    spread: float = 2.0
    """Deviation of matched copies, in root mean squares of all the target's weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.range not in RANGES:
            raise InputError(f"range {self.range!r} is unknown; {suggest(self.range, RANGES)}")
        if not (math.isfinite(self.spread) and self.spread > 0):
            raise InputError(f"spread must be positive and finite, got {self.spread!r}. Use, for example, 2.")

    def lossless(self, candidates: int | None) -> "Scalar":
        if self.range not in (Scalar.range, "quarter"):
            raise InputError(f"range must be 'quarter' for a lossless ticket, got {self.range!r}. Omit the range.")
        # A step of the grid on [-m, m] is up to twice 2**-24 m, and half of it more than a lossless residual may be.
        return dataclasses.replace(self, range="quarter", candidates=candidates or _LOSSLESS_CANDIDATES[self.shared])

    def random_layer(self, target: Target, path: str, of: WeightNode) -> CandidatesPerWeight:
        samplers = tuple(self._sampler(target, child_path(path, name)) for name in of.tensors())
        return CandidatesPerWeight(of, self.candidates, samplers, self.shared)

    def _sampler(self, target: Target, name: str) -> Sampler:
        if self.range == "model":
            scans = [target.scan(name) for name in target.network.approximated]
            low, high = min(scan.low for scan in scans), max(scan.high for scan in scans)
            if low < high:
                return Sampler.uniform(low, high)
        if self.range == "matched":
            scale = self.spread * _root_mean_square(target)
            return Sampler.normal(max(scale, _LEAST_BOUND) if scale > 0 else 1.0)
        largest = target.scan(name).largest / (4 if self.range == "quarter" else 1)
        bound = max(largest, _LEAST_BOUND) if largest > 0 else 1.0
        return Sampler.uniform(-bound, bound)

    def problems(self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int) -> TensorProblems:
        found = []
        for name, tensor in drawn.items():
            found.append(TensorProblem(child_path(path, name), tensor, self.candidates, bound=tensor.sampler.largest))
        return found, {}


def _root_mean_square(target: Target) -> float:
    """The root mean square of all the target's weights, read slice by slice."""
    squares, weights = 0.0, 0
    for name in target.network.approximated:
        size = target.tensors.tensors[name].size
        for start in range(0, size, _SLICE):
            part = read_float64(target.tensors, name, start, min(_SLICE, size - start))
            squares, weights = squares + float(part @ part), weights + len(part)
    return math.sqrt(squares / weights)


@dataclasses.dataclass(frozen=True)
class ScalarShared(Scalar):
    """As scalar, with n random copies for each output that all its weights share, as published."""

    name: ClassVar[str] = "scalar-shared"
    shared: ClassVar[bool] = True
