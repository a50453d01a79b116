"""The scalar setting that Pensia et al. 2020 ran as Experiment 1: candidates are plain weights, not products.

Every edge has n random copies drawn from U[min w, max w] over the whole target; `shared` draws one vector of copies
per output row, as the published code does, otherwise each weight has its own.
"""

import numpy as np

from lottery_jax.constructions.plan import Plan
from lottery_jax.networks.architecture import Parallel
from lottery_jax.sampler import Sampler


def scalar_layer(inputs: int, outputs: int, candidates: int, low: float, high: float, shared: bool) -> Parallel:
    """The random source of one target layer: `candidates` copies of each edge, U[low, high]."""
    return Parallel(inputs, candidates, outputs, Sampler.uniform(low, high), shared)


def scalar_plan(layer: Parallel, weights: np.ndarray, position: int) -> Plan:
    """Every copy of an edge is a candidate for its weight."""
    shape = (1, layer.inputs, layer.copies)
    slots = np.broadcast_to(np.arange(layer.copies, dtype=np.int32), shape)
    bound = max(abs(layer.sampler.low), abs(layer.sampler.high))
    return Plan(layer, f"{position}.kernel", weights, np.ones(shape, np.float32), slots, bound)
