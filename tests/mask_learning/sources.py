"""Small random sources for learners, and data that they learn in a moment."""

import numpy as np

from lottery_jax.data import Dataset, Split
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.layers.pooling import Flatten, GlobalPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler

U = Sampler.uniform(-1, 1)


def small_data(size: int = 40) -> Dataset:
    """Images [2, 2, 1] of two classes that one of the numbers tells apart."""
    images = np.random.default_rng(3).uniform(size=(size, 2, 2, 1)).astype(np.float32)
    split = Split(images, (images[:, 0, 1, 0] > 0.5).astype(np.int32))
    return Dataset("small", split, split, split, classes=2, nonnegative=True)


def small(*nodes: tuple[str, Node]) -> Network:
    """A chain that is given the small images."""
    return Network(Chain(nodes), Spec((2, 2, 1), nonnegative=True))


GADGET = small(
    ("flatten", Flatten()),
    ("fc1", Gadget(Dense(4, 5), 3, U, U)),
    ("relu", Relu()),
    ("fc2", RandomLayer(Dense(5, 2), Sampler.signed_constant(0.5))),
)
BODY = Gadget(Conv(1, 2, (2, 2), padding=(1, 1)), 2, U, U)
SOURCES = {
    "gadget and single": GADGET,
    "shared copies": small(
        ("flatten", Flatten()), ("fc", CandidatesPerWeight(Dense(4, 2, bias=True), 3, (U, U), shared=True))
    ),
    "convolutions and a stored norm": small(
        ("(block)", Residual(BODY, RandomLayer(Conv(1, 2, (2, 2), padding=(1, 1)), Sampler.normal(1)))),
        ("bn", BatchNorm(2)),
        ("relu", Relu()),
        ("pool", GlobalPool()),
    ),
}
"""Few tensors: each costs its share of compilation."""
NORMAL = Sampler.normal(0.5)
PLAIN = small(
    ("flatten", Flatten()),
    ("fc1", RandomLayer(Dense(4, 9), NORMAL)),
    ("relu", Relu()),
    ("fc2", RandomLayer(Dense(9, 2), NORMAL)),
    ("bn", BatchNorm(2)),
)
"""For learners that a comparison puts on plain sources alone."""


def stored(source: Network) -> dict[str, np.ndarray]:
    """Tensors of the source that are not random."""
    return {name: np.full(shape, 1.5, np.float32) for name, shape in source.tensors.items()}
