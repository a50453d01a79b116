"""What a construction hands to the solver: for one layer, which random weights can stand for which target weight."""

import dataclasses

import numpy as np

from lottery_jax.networks.architecture import Layer


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The subset-sum problems of one layer of I inputs and O outputs.

    Target weight (i, o) is to be a sum of multipliers[b, i, n] * v[i, slots[b, i, n], o] over a subset of the N
    slots, for every branch b, where v is the layer's random tensor `tensor`. Slots of multiplier 0 are unused.

    weights: [I, O], float64, already divided by the layer's gain. multipliers: [branches, I, N], float32.
    slots: [branches, I, N], int32. bound: largest |candidate| possible.
    """

    layer: Layer
    tensor: str
    weights: np.ndarray
    multipliers: np.ndarray
    slots: np.ndarray
    bound: float
    redraws: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.int32))
    """Rows (input, 0, attempt) already redrawn in the layer's first tensor."""
