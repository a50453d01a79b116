"""Theorem 1 of Pensia et al. 2020: each target layer by two random ones, each weight by one subset sum.

A weight w of input x is g(x) = sum_k v_k relu(u_k x) over kept units k. For x >= 0 only the units with u_k > 0 speak
and give (sum u_k v_k) x; for x < 0 those with u_k < 0 do. So each sign of input that can occur needs a subset of the
products u_k v_k that sums to w. The u_k of an input are shared by all outputs, the v_k are separate (Figure 1).

Products of two U[-1, 1] seldom reach |w| near 1 (their mean size is 1/4), but a ReLU layer may be divided by any
positive gain: each layer's targets are brought to |w| <= REACH, and the gain is given back at its output.
"""

import numpy as np

from lottery_jax.constructions.plan import Plan
from lottery_jax.networks.architecture import ATTEMPT_STRIDE, Gadget, block_positions
from lottery_jax.sampler import Sampler, draw_at, seed_words

REACH = 0.25
"""Largest scaled target weight; at |w| <= 1/4 some one in 2,000 problems of 20 products fails to reach 0.001."""

_UNIFORM = Sampler.uniform(-1, 1)
_FIRST_ATTEMPTS = 1000


def pensia_layer(inputs: int, outputs: int, candidates: int, *, signed: bool = False, gain: float = 1.0) -> Gadget:
    """The random source of one target layer: 2 * candidates hidden units for each input, all U[-1, 1]."""
    return Gadget(inputs, 2 * candidates, outputs, _UNIFORM, _UNIFORM, signed=signed, gain=gain)


def layer_gain(weights: np.ndarray) -> float:
    """The factor that brings a layer's largest |weight| to REACH (1 for a layer of zeros)."""
    largest = float(np.abs(weights).max())
    return largest / REACH if largest > 0 else 1.0


def pensia_plan(layer: Gadget, weights: np.ndarray, position: int, stream: int, seed: int) -> Plan:
    """Draw the first matrix, redraw inputs whose units are too weak, and list each input's usable units.

    The u_i of input i serve all its outputs, so a weak draw fails a whole row of weights at once: an input is drawn
    again (and recorded) until the |u| of every branch sum to at least half of what is expected.
    """
    candidates = layer.units // 2
    first, redraws = _first_weights(layer, candidates, stream, seed)
    signs = (1.0, -1.0) if layer.signed else (1.0,)
    multipliers = np.zeros((len(signs), layer.inputs, candidates), np.float32)
    slots = np.zeros(multipliers.shape, np.int32)
    for branch, sign in enumerate(signs):
        usable = sign * first > 0
        order = np.argsort(~usable, axis=1, kind="stable")[:, :candidates]
        slots[branch] = order
        chosen = np.take_along_axis(usable, order, 1)
        multipliers[branch] = np.where(chosen, np.take_along_axis(first, order, 1), 0)
    return Plan(layer, f"{position}.second", weights / layer.gain, multipliers, slots, 1.0, redraws)


def _first_weights(layer: Gadget, candidates: int, stream: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    key = seed_words(seed)
    first = np.empty((layer.inputs, layer.units), np.float32)
    weak = np.arange(layer.inputs)
    last = np.zeros(layer.inputs, np.int32)
    for attempt in range(_FIRST_ATTEMPTS):
        index = block_positions(layer, "first", weak, np.zeros(1, np.uint32))
        first[weak] = draw_at(_UNIFORM, key, stream + ATTEMPT_STRIDE * attempt, index)
        last[weak] = attempt
        reach = np.maximum(first, 0).sum(1)
        if layer.signed:
            reach = np.minimum(reach, np.maximum(-first, 0).sum(1))
        weak = np.flatnonzero(reach < candidates / 4)
        if not len(weak):
            break
    redrawn = np.flatnonzero(last)
    return first, np.stack([redrawn, np.zeros_like(redrawn), last[redrawn]], 1).astype(np.int32)
