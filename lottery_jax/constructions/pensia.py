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

from lottery_jax.constructions.base import Branch, Construction, Plan
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LEAST, Affine, Operation, child_path
from lottery_jax.networks.sources.drawn import MOST_ATTEMPTS, Drawn
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.sampler import Sampler

REACH = 0.25
"""Largest scaled target weight; at |w| <= 1/4 some one in 2,000 problems of 20 products fails to reach 0.001."""
BIAS_REACH = 1.0
"""Largest scaled bias: there are few, so that a draw of their blocks again costs little."""

_UNIFORM = Sampler.uniform(-1, 1)


@dataclasses.dataclass(frozen=True)
class Pensia(Construction):
    """Theorem 1 of Pensia et al. 2020: every trained layer by two random ones, with 2 n hidden units for each input.

    Those units are the input's gadget; a target of L layers gives a random network of depth 2L.
    """

    name: ClassVar[str] = "pensia"

    def leaf(self, target: Target, path: str, of: Affine) -> Gadget:
        if not isinstance(of, Operation):
            raise InputError(
                f"pensia puts units in front of layers, and what the tensor {path!r} is fed with is unknown; name the"
                " model's architecture, or use scalar"
            )
        reaches = {"weight": REACH, "bias": BIAS_REACH}
        gain = max(target.scan(child_path(path, name)).largest / reaches[name] for name in of.tensors())
        gain = max(float(np.float32(gain)), LEAST) if gain > 0 else 1.0
        return Gadget(of, 2 * self.candidates, _UNIFORM, _UNIFORM, gain=gain)

    def plans(
        self, network: Network, path: str, drawn: Mapping[str, Drawn], seed: int
    ) -> tuple[list[Plan], dict[str, np.ndarray]]:
        gadget = network.sources[path]
        assert isinstance(gadget, Gadget)
        of = gadget.of
        signs = {name: gadget.signs(name, network.given_to(path)) for name in gadget.of.tensors()}
        both = np.full(drawn["first"].blocks, len(signs["weight"]) > 1)
        both[gadget.of.inputs :] = False  # the constant 1 has one sign
        first, redraws = _first_weights(drawn["first"], both, self.candidates, seed)
        branches = {sign: _branch(sign * first > 0, first, self.candidates) for sign in signs["weight"]}
        plans = [
            Plan(
                child_path(path, name),
                drawn[name],
                self.candidates,
                bound=1.0,
                gain=gadget.gain,
                branches=tuple(branches[sign] for sign in signs[name]),
                group=lambda weights, name=name: of.channels(name, weights),
                edges=child_path(path, "first"),
            )
            for name in gadget.of.tensors()
        ]
        return plans, {"first": redraws}


def _branch(usable: np.ndarray, first: np.ndarray, candidates: int) -> Branch:
    """The first `candidates` usable units of each input; where there are fewer, others with multiplier 0."""
    slots = np.argsort(~usable, axis=1, kind="stable")[:, :candidates]
    chosen = np.take_along_axis(usable, slots, 1)
    multipliers = np.where(chosen, np.take_along_axis(first, slots, 1), 0).astype(np.float32)
    return Branch(multipliers, slots.astype(np.int32))


def _first_weights(drawn: Drawn, both: np.ndarray, candidates: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first matrix [I, U], inputs whose units are too weak drawn again, and rows (input, attempt) of those.

    The u_i of input i serve all its outputs, so a weak draw fails a whole row of weights at once: an input is drawn
    again (and recorded) until the |u| of every branch it needs sum to at least half of what is expected.
    """
    first = np.empty((drawn.blocks, drawn.width), np.float32)
    weak = np.arange(drawn.blocks)
    last = np.zeros(drawn.blocks, np.int64)
    for attempt in range(MOST_ATTEMPTS + 1):
        first[weak] = drawn.draw(seed, weak, attempt)
        last[weak] = attempt
        reach = np.maximum(first, 0).sum(1)
        reach = np.where(both, np.minimum(reach, np.maximum(-first, 0).sum(1)), reach)
        weak = np.flatnonzero(reach < candidates / 4)
        if not len(weak):
            break
    redrawn = np.flatnonzero(last)
    return first, np.stack([redrawn, last[redrawn]], 1)
