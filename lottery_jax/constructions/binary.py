"""Weights of +-1 alone (Sreenivasan, Rajput, Sohn and Papailiopoulos 2021, arXiv 2110.08996).

A ladder doubles each input, rung after rung (`networks.sources.ladder`), so that its last layer carries 2^0 ... 2^k
times relu(x) and relu(-x), each in some copies. A weight takes those whose last random edge has its sign: as a binary
number, the largest power that still fits first. A power whose copies all have the other sign is made up by two of the
power below. So the error is below one step, the layer's largest weight over 2^(k + 1) - 1/2.

Depth is k + 2 for each layer of the target, so that eps falls exponentially with it: the theorem's Theta(L log(d L /
eps)), where d and L are for an eps of the outputs, and ours is of single weights. The width is 2 c (k + 1) for each
input with c copies of each power, the theorem's Theta(d log^2(d L / eps)) in all: it takes a logarithm of copies for
everything to be there at once. Here c is given, and what is not there is drawn again.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.constructions.base import Branch, GadgetConstruction, Plan, drawn_until
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
            raise InputError(f"copies must be a whole number from 2 to 256, not {self.copies!r}; 8 are usual")

    @property
    def powers(self) -> int:
        """Powers of two, 2^0 the least."""
        return min(max(self.candidates // self.copies, 1), MAX_RUNGS // 2)

    @property
    def sampler(self) -> Sampler:
        return Sampler.signed_constant(1)

    @property
    def least_units(self) -> int:
        # Each power once, at least, and two units below that are doubled into the largest.
        return (self.powers * self.copies + 1) // 2

    def solver(self, objective: str) -> Solver:
        return Greedy()

    def leaf(self, target: Target, path: str, of: WeightNode) -> BinaryLadder:  # type: ignore[override]
        gadget = super().leaf(target, path, of)
        largest = gadget.gain * self.reaches["weight"]
        # The largest is half a step above what all powers make: rounded to a step it could fall below.
        gain = max(float(np.float32(largest / (2.0**self.powers - 0.5))), MIN_MAGNITUDE)
        return BinaryLadder(gadget.layer, 2 * self.powers * self.copies, self.powers - 1, gain=gain)

    def check_reachable(self, network: Network, tolerance: float) -> None:
        path, step = max(((path, source.gain) for path, source in network.sources.items()), key=lambda one: one[1])
        if tolerance >= step / 2:  # of weights anywhere between two steps half are within
            return
        needed = self.copies * (self.powers + math.ceil(math.log2(step / tolerance)))
        raise InputError(
            f"{self.candidates} candidates are {self.powers} powers of two, so that weights of {path!r} lie {step:.3g}"
            f" apart; for a tolerance of {tolerance:g} use {needed} candidates, or another construction"
        )

    def plans(
        self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int
    ) -> tuple[list[Plan], dict[str, np.ndarray]]:
        ladder = network.sources[path]
        assert isinstance(ladder, BinaryLadder)
        of, given = ladder.layer, network.input_spec_of(path)
        signs = {name: ladder.input_signs(name, given) for name in of.tensors()}
        both = np.full(drawn["first"].blocks, len(signs["weight"]) > 1)
        both[of.inputs :] = False  # the constant 1 has one sign
        first, again = self._first_weights(drawn["first"], both, seed, relu=True)
        powers = self._powers(first, both)
        # Units of one sign are joined with each other alone.
        masks, redraws = {"first": powers >= 0}, {"first": again}
        for place, name in enumerate(ladder.hidden_tensors[1:]):
            masks[name], redraws[name] = _rung(drawn[name], first, powers, place, seed)
        branches = {sign: self._carried(powers, first, sign) for sign in signs["weight"]}
        plans = [
            Plan(
                child_path(path, name),
                drawn[name],
                branches[1].slots.shape[1],
                bound=2.0 ** (self.powers - 1),
                gain=ladder.gain,
                branches=tuple(branches[sign] for sign in signs[name]),
                group=lambda weights, name=name: of.input_channels(name, weights),
                built={child_path(path, edge): mask for edge, mask in masks.items()},
            )
            for name in of.tensors()
        ]
        return plans, redraws

    def _powers(self, first: np.ndarray, both: np.ndarray) -> np.ndarray:
        """Which power each unit carries in the last layer, int [I, U], -1 for those that carry nothing.

        The first c powers' worth of an input's units of a sign in turns, so that where there are fewer each power is as
        often there, but for one.
        """
        powers = np.full(first.shape, -1)
        for sign in (1, -1):
            usable = (sign * first > 0) & (both[:, None] | (sign > 0))
            rank = usable.cumsum(1) - 1
            chosen = usable & (rank < self.powers * self.copies)
            powers[chosen] = rank[chosen] % self.powers
        return powers

    def _carried(self, powers: np.ndarray, first: np.ndarray, sign: int) -> Branch:
        """What the units of a sign carry, [I, n], over inputs of that sign; where there are fewer, others with 0."""
        usable = (sign * first > 0) & (powers >= 0)
        slots = np.argsort(~usable, axis=1, kind="stable")[:, : self.powers * self.copies]
        carried = np.where(usable, sign * 2.0 ** np.maximum(powers, 0), 0).astype(np.float32)
        return Branch(np.take_along_axis(carried, slots, 1), slots.astype(np.int32))


def _rung(
    drawn: RandomTensor, first: np.ndarray, powers: np.ndarray, place: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The mask [I, U, U] of rung `place`, and rows (unit, attempt) of units whose edges were drawn again.

    Before it a unit of power p carries 2^min(p, place), after it 2^min(p, place + 1): two edges +1 from units of the
    same sign that carry 2^place double, one edge from a unit that carries as much carries on.
    """
    inputs, units = powers.shape
    now, then = np.minimum(powers, place), np.minimum(powers, place + 1)
    doubles = then > now
    joined = (powers >= 0)[:, :, None] & (powers >= 0)[:, None, :] & (first[:, :, None] == first[:, None, :])
    joined &= now[:, :, None] == now[:, None, :]  # who doubles carries 2^place before, as those that it doubles
    wanted = np.where(powers >= 0, 1 + doubles, 0).reshape(-1)
    joined = joined.reshape(-1, units)

    def serves(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return (joined[rows] & (weights > 0)).sum(1) >= wanted[rows]

    weights, again, left = drawn_until(drawn, seed, serves, np.flatnonzero(wanted))
    if left:
        raise InputError(
            f"{left} units of a ladder found no edges of the right sign in {MAX_ATTEMPTS + 1} draws; use more copies"
        )
    fits = joined & (weights > 0)
    return (fits & (fits.cumsum(1) <= wanted[:, None])).reshape(inputs, units, units), again
