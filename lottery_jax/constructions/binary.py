"""Binary weights +-1 (Sreenivasan, Rajput, Sohn and Papailiopoulos 2021, arXiv 2110.08996, Theorem 1).

A ladder of layers (`networks.sources.binary_ladder`) doubles each input, so that its last layer carries 2^0 ... 2^k
times relu(x) and relu(-x), each in c copies. A weight takes the largest power that fits, greedily, among copies whose
last edge has its sign. The error is below one step, the layer's largest weight over 2^(k + 1) - 1/2.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.constructions.base import GadgetConstruction, TensorProblem, TensorProblems, redraw_until, sign_branch
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import MIN_MAGNITUDE, WeightNode, child_path
from lottery_jax.networks.sources.binary_ladder import MAX_RUNGS, BinaryLadder
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS, RandomTensor
from lottery_jax.rng.sampler import Sampler
from lottery_jax.subset_sum import Greedy, Solver


@dataclasses.dataclass(frozen=True)
class Binary(GadgetConstruction):
    """Weights of +-1 (Sreenivasan et al. 2021): layers that double, and each weight as a binary number.

    n candidates are the copies of n / c powers of two; residuals are below the layer's largest weight over 2^(n / c).

    >>> Binary(80).powers, Binary(21).powers
    (10, 2)
    """

    name: ClassVar[str] = "binary"
    objectives: ClassVar[tuple[str, ...]] = ("least-error",)

    copies: int = 8
    """Units c for each power of two, at least 2; the n candidates are those of n / c powers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.copies) is not int or not 2 <= self.copies <= 256:
            raise InputError(f"copies must be a whole number from 2 to 256, got {self.copies!r}; 8 are usual")

    @property
    def powers(self) -> int:
        """Number of powers of two, from 2^0 up."""
        return min(max(self.candidates // self.copies, 1), MAX_RUNGS // 2)

    @property
    def sampler(self) -> Sampler:
        return Sampler.signed_constant(1)

    @property
    def min_units(self) -> int:
        # At least one unit of each power, and two of the power below to double into the largest.
        return (self.powers * self.copies + 1) // 2

    def solver(self, objective: str) -> Solver:
        return Greedy()

    def random_layer(self, target: Target, path: str, of: WeightNode) -> BinaryLadder:  # type: ignore[override]
        gadget = super().random_layer(target, path, of)
        largest = gadget.gain * self.scaled_bounds["weight"]
        # The largest weight is half a step above the sum of all powers; at a whole step it could round below.
        gain = max(float(np.float32(largest / (2.0**self.powers - 0.5))), MIN_MAGNITUDE)
        return BinaryLadder(gadget.layer, 2 * self.powers * self.copies, self.powers - 1, gain=gain)

    def check_tolerance(self, network: Network, tolerance: float) -> None:
        path, step = max(((path, source.gain) for path, source in network.sources.items()), key=lambda one: one[1])
        if tolerance >= step / 2:  # half of the weights between two steps are within the tolerance
            return
        needed = self.copies * (self.powers + math.ceil(math.log2(step / tolerance)))
        raise InputError(
            f"{self.candidates} candidates are {self.powers} powers of two, so that weights of {path!r} lie {step:.3g}"
            f" apart; for a tolerance of {tolerance:g} use {needed} candidates, or another construction"
        )

    def problems(self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int) -> TensorProblems:
        ladder = network.sources[path]
        assert isinstance(ladder, BinaryLadder)
        of, given = ladder.layer, network.input_spec_of(path)
        signs = ladder.input_signs("weight", given)
        first, either_sign, first_redraws = self._first_weights(drawn["first"], of.inputs, signs, seed, relu=True)
        powers = self._powers(first, either_sign)
        # Edges join only units of the same sign.
        masks, redraws = {child_path(path, "first"): powers >= 0}, {"first": first_redraws}
        for rung, name in enumerate(ladder.hidden_tensors[1:]):
            masks[child_path(path, name)], redraws[name] = _rung_mask(drawn[name], first, powers, rung, seed)
        multiples = np.where(powers >= 0, np.sign(first) * 2.0 ** np.maximum(powers, 0), 0)
        count = self.powers * self.copies
        branches = {sign: sign_branch(np.where(sign * first > 0, multiples, 0), count) for sign in signs}
        found = [
            TensorProblem(
                child_path(path, name),
                drawn[name],
                branches[1].indices.shape[1],
                bound=2.0 ** (self.powers - 1),
                gain=ladder.gain,
                branches=tuple(branches[sign] for sign in ladder.input_signs(name, given)),
                group_of=functools.partial(of.input_channels, name),
                edge_masks=masks,
            )
            for name in of.tensors()
        ]
        return found, redraws

    def _powers(self, first: np.ndarray, either_sign: np.ndarray) -> np.ndarray:
        """The power of two that each unit carries in the last layer, int [I, U]; -1 for unused units.

        Units of one sign take the powers in turn, so that the counts of the powers differ by at most one.
        """
        powers = np.full(first.shape, -1)
        for sign in (1, -1):
            usable = (sign * first > 0) & (either_sign[:, None] | (sign > 0))
            rank = usable.cumsum(1) - 1
            chosen = usable & (rank < self.powers * self.copies)
            powers[chosen] = rank[chosen] % self.powers
        return powers


def _rung_mask(
    drawn: RandomTensor, first: np.ndarray, powers: np.ndarray, rung: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The mask [I, U, U] of a rung from 0 up, and rows (unit, attempt) of units with redrawn edges.

    Before it a unit of power p carries 2^min(p, rung), after it 2^min(p, rung + 1): two edges +1 from units of the same
    sign that carry 2^rung double the value, one edge from a unit with the same value copies it.
    """
    inputs, units = powers.shape
    before, after = np.minimum(powers, rung), np.minimum(powers, rung + 1)
    joined = (powers >= 0)[:, :, None] & (powers >= 0)[:, None, :] & (first[:, :, None] == first[:, None, :])
    joined &= before[:, :, None] == before[:, None, :]  # a unit that doubles carried 2^rung as its inputs do
    edges = np.where(powers >= 0, 1 + (after > before), 0).reshape(-1)
    joined = joined.reshape(-1, units)

    def accept(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return (joined[rows] & (weights > 0)).sum(1) >= edges[rows]

    weights, redraws, failed = redraw_until(drawn, seed, accept, np.flatnonzero(edges))
    if failed:
        raise InputError(
            f"{failed} units of a ladder found no edges of the right sign in {MAX_ATTEMPTS + 1} draws; use more copies"
        )
    positive = joined & (weights > 0)
    return (positive & (positive.cumsum(1) <= edges[:, None])).reshape(inputs, units, units), redraws
