"""Theorem 1 of Pensia, Rajput, Nagle, Vishwakarma and Papailiopoulos 2020 (arXiv 2006.07990): the default construction.

Two random layers replace each target layer. A weight w of input x becomes g(x) = sum_k v_k relu(u_k x) over kept units
k: for each sign of x a subset of the products u_k v_k sums to w. All outputs share the u_k of an input (Figure 1). A
bias is the weight of the constant input 1. For a convolution the first layer is 1 x 1 (da Cunha et al. 2022). A gain
brings the weights of each layer to |w| <= ``MAX_SCALED_WEIGHT``, because products of two U[-1, 1] are rarely near 1.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.constructions.base import GadgetConstruction

MAX_SCALED_WEIGHT = 0.25
"""Largest scaled target weight; at 1/4 about one in 2,000 problems of 20 products fails to reach 0.001."""

MAX_SCALED_BIAS = 1.0
"""Largest scaled bias; biases are few, so that redrawing their blocks costs little."""


@dataclasses.dataclass(frozen=True)
class Pensia(GadgetConstruction):
    """Theorem 1 of Pensia et al. 2020: every trained layer by two random ones, with 2 n hidden units for each input.

    The units of an input are its gadget. A target of L layers gives a random network of depth 2 L.
    """

    name: ClassVar[str] = "pensia"
    scaled_bounds: ClassVar[Mapping[str, float]] = {"weight": MAX_SCALED_WEIGHT, "bias": MAX_SCALED_BIAS}

    def needs_redraw(self, first: np.ndarray, either_sign: np.ndarray) -> np.ndarray:
        # If the |u| of a branch sum to less than half of their expectation, a whole row of weights would fail.
        plus, minus = np.maximum(first, 0).sum(1), np.maximum(-first, 0).sum(1)
        return np.where(either_sign, np.minimum(plus, minus), plus) < self.candidates / 4
