"""Every construction with what it takes, and small targets of every kind: one that is missing here fails a test."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from lottery_jax.approximation import ToleranceObjective
from lottery_jax.constructions import Binary, Construction, Kumar, Pensia, Scalar, ScalarShared
from lottery_jax.constructions.burkholz import Burkholz
from lottery_jax.constructions.dacunha import DaCunha
from lottery_jax.constructions.ferbach import Ferbach
from lottery_jax.constructions.malach import Malach
from lottery_jax.constructions.natale import Natale
from lottery_jax.constructions.orseau import Orseau
from lottery_jax.constructions.otsuka import Otsuka
from lottery_jax.networks.architectures import mlp, resnet, vit
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import Flatten, GlobalPool
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec, child_path
from lottery_jax.networks.rewrites import quantise
from lottery_jax.networks.target import Target
from lottery_jax.subset_sum.solver import SearchPass, Solver
from lottery_jax.subset_sum.solvers.smallest import Enumerate
from lottery_jax.tasks import load_model

COUNT = 8
"""Candidates of most tests. With 64 problems at a time they all run the same compiled programs."""
CHUNK = 64


@dataclasses.dataclass(frozen=True)
class Entry:
    """A construction, the tolerance that it reaches with few candidates, and its error messages by refused target."""

    construction: Construction
    tolerance: float
    max_redraws: int = 20
    refusals: dict[str, str] = dataclasses.field(default_factory=dict)
    quick: tuple[str, ...] | None = None
    """Targets of the fast tests, where not all: those of other constructions on the same source find what is in it."""
    takes: Callable[[Target], Target] = lambda target: target
    """From a target to one that the construction takes."""
    dense: bool = True
    """Whether it takes any chain of dense layers."""

    def objective(self, objective: str = "least-error", part: float = 1.0) -> ToleranceObjective:
        """The objective with `part` times the tolerance."""
        return ToleranceObjective(part * self.tolerance, objective, self.max_redraws)


class Nearest(Solver):
    """The best subset of one candidate: where the engine is tested, for this compiles quickly."""

    max_candidates = 64

    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        return (Enumerate((0, 1)),)

    def __repr__(self) -> str:
        return "Nearest()"


def random_target(network: Network, seed: int = 0) -> Target:
    """A network with random tensors; what normalisations divide and multiply by is near 1."""
    random = np.random.default_rng(seed)
    values = {}
    for path, node in network.nodes():
        for own, shape in node.tensors().items():
            near_one = own == "running_var" or (own == "weight" and len(shape) == 1)
            # Biases are seldom negative, so that most units are alive.
            low, high = (-0.1, 0.5) if own == "bias" else (-0.3, 0.3)
            values[child_path(path, own)] = (near_one + random.uniform(low, high, shape)).astype(np.float32)
    return Target(network, values)  # type: ignore[arg-type]


def _mlp(nonnegative: bool) -> Network:
    return mlp((9, 6, 4), Spec((9,), nonnegative))


def _mlp_with_biases(nonnegative: bool) -> Network:
    return mlp((8, 6, 4), Spec((2, 2, 2), nonnegative), bias=True)


def _convolutions(nonnegative: bool) -> Network:
    """Stride, padding and a depthwise one, whose outputs the last layer is given with either sign."""
    strided = Conv(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=True)
    nodes = (("conv1", strided), ("relu", Relu()), ("conv2", Conv(4, 4, (2, 2), groups=4)), ("flatten", Flatten()))
    return Network(Chain((*nodes, ("fc", Dense(16, 3)))), Spec((5, 4, 2), nonnegative))


def _residual(nonnegative: bool) -> Network:
    given = Spec((4, 4, 1), nonnegative)
    return resnet(given, 3, 1.0, channels=(2, 2), blocks=(1, 1), bottleneck=False)


def _transformer(nonnegative: bool) -> Network:
    return vit(Spec((4, 4, 1), nonnegative), 3, 1 / 32, patch=2, depth=1)


def _rotations(nonnegative: bool) -> Network:
    layers = (("conv1", RotationConv(1, 4, 3)), ("relu", Relu()), ("conv2", RotationConv(4, 4, 2, rotations=4)))
    return Network(Chain((*layers, ("pool", GlobalPool()), ("fc", Dense(4, 3)))), Spec((4, 4, 1), nonnegative))


NETWORKS: dict[str, Callable[[bool], Network]] = {
    "mlp": _mlp,
    "mlp with biases": _mlp_with_biases,
    "convolutions": _convolutions,
    "residual": _residual,
    "transformer": _transformer,
    "rotations": _rotations,
}
"""From whether the inputs are never negative to a network."""


def bag() -> Target:
    """Tensors of every type of float, of one to four dimensions, one of them zero; sizes are no multiple of 8."""
    random = np.random.default_rng(0)
    arrays = {
        "first": random.normal(size=(7, 5)).astype(np.float32),
        "conv": random.normal(size=(3, 2, 2, 3)).astype(np.float16),
        "double": random.uniform(-0.3, 0.3, (9, 5)),
        "half": (random.normal(size=11) * 0.1).astype(ml_dtypes.bfloat16),
        "zero": np.zeros((3, 2), np.float32),
    }
    tree = TensorDict(tuple((name, NamedTensor(value.shape)) for name, value in arrays.items()))
    return Target(Network(tree), arrays)  # type: ignore[arg-type]


TARGETS: dict[str, Callable[[], Target]] = {
    f"{name}, {words}": lambda make=make, nonnegative=nonnegative: random_target(make(nonnegative))
    for name, make in NETWORKS.items()
    for words, nonnegative in (("inputs never negative", True), ("inputs of any sign", False))
    # What these are given shows in their first leaf alone.
    if not (nonnegative and name in ("residual", "transformer", "rotations"))
} | {"bag": bag}


def _without(networks: str, words: str) -> dict[str, str]:
    """The words in which all targets of other networks are refused."""
    return {of: words for of in TARGETS if of.partition(",")[0] not in networks.split()}


_NO_BAG = {"bag": r"units in front of layers.*'first' .*use scalar"}
_QUICK = ("mlp, inputs of any sign",)
COVERED = {
    entry.construction.name: entry
    for entry in (
        Entry(Pensia(COUNT), 0.03, refusals=_NO_BAG),
        Entry(Scalar(COUNT), 0.015),
        # A whole output is redrawn where one of its weights fails.
        Entry(ScalarShared(COUNT), 0.04, max_redraws=100),
        Entry(Natale(12, size=3), 0.015, refusals=_NO_BAG, quick=_QUICK),
        Entry(Malach(64), 0.025, max_redraws=60, refusals=_NO_BAG, quick=_QUICK),
        Entry(Orseau(40), 0.008, refusals=_NO_BAG, quick=_QUICK),
        Entry(
            Burkholz(COUNT),
            0.05,
            max_redraws=60,
            refusals={
                "bag": r"copies of their inputs.*'first' .*use scalar",
                "transformer, inputs of any sign": r"several times, which 'pos_embed' .*use pensia",
            },
            quick=_QUICK,
        ),
        Entry(Binary(24, copies=4), 0.02, refusals=_NO_BAG, quick=_QUICK),
        Entry(*(Kumar(12, bits=5), 0.0, 60), refusals=_NO_BAG, quick=_QUICK, takes=lambda target: quantise(target, 4)),
        Entry(
            DaCunha(COUNT),
            0.03,
            refusals=_without("convolutions residual", "is for networks of convolutions"),
            quick=(),
            dense=False,
        ),
        Entry(Ferbach(COUNT), 0.03, refusals=_without("rotations", "has none, use pensia"), quick=(), dense=False),
        Entry(Otsuka(COUNT), 0.03, refusals=_without("transformer", "is for attention"), quick=(), dense=False),
    )
}


def model_file(path: Path, sizes: dict[str, tuple[int, ...]], seed: int = 0) -> Target:
    """A model's file with normal weights, and the target that it is."""
    random = np.random.default_rng(seed)
    save_file({name: random.normal(size=size).astype(np.float32) for name, size in sizes.items()}, path)
    return load_model(path)[0]
