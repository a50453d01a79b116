"""Theorem 1 of Pensia et al. 2020: each target layer by two random ones, each weight by one subset sum.

A weight w of input x is g(x) = sum_k v_k relu(u_k x) over kept units k. For x >= 0 only the units with u_k > 0 speak
and give (sum u_k v_k) x; for x < 0 those with u_k < 0 do. So each sign of input that can occur needs a subset of the
products u_k v_k that sums to w. The u_k of an input are shared by all outputs, the v_k are separate (Figure 1). A bias
is the weight of one more input, the constant 1; for a convolution the first layer is 1 x 1 (da Cunha et al. 2022).

Products of two U[-1, 1] seldom reach |w| near 1 (their mean size is 1/4), but a layer may be divided by any positive
gain: its targets are brought to |w| <= REACH, and the gain is given back at its output.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.constructions.base import GadgetConstruction

REACH = 0.25
"""Largest scaled target weight; at |w| <= 1/4 some one in 2,000 problems of 20 products fails to reach 0.001."""

BIAS_REACH = 1.0
"""Largest scaled bias: there are few, so that a draw of their blocks again costs little."""


@dataclasses.dataclass(frozen=True)
class Pensia(GadgetConstruction):
    """Theorem 1 of Pensia et al. 2020: every trained layer by two random ones, with 2 n hidden units for each input.

    Those units are the input's gadget; a target of L layers gives a random network of depth 2L.
    """

    name: ClassVar[str] = "pensia"
    reaches: ClassVar[Mapping[str, float]] = {"weight": REACH, "bias": BIAS_REACH}

    def weak(self, first: np.ndarray, both: np.ndarray) -> np.ndarray:
        """Where the |u| of a branch sum to less than half of what is expected: it would fail a whole row of weights."""
        plus, minus = np.maximum(first, 0).sum(1), np.maximum(-first, 0).sum(1)
        return np.where(both, np.minimum(plus, minus), plus) < self.candidates / 4
