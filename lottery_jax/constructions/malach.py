"""The first strong ticket theorem (Malach, Yehudai, Shalev-Shwartz and Shamir 2020, arXiv 2002.00585, Theorem 2.1).

Each weight and sign branch keeps the one of n random products u v that is nearest to it, or none if 0 is nearer. For
|w| <= 1/4 it is farther than eps with probability about (1 - 1.38 eps)**n.
"""

import dataclasses
from typing import ClassVar

from lottery_jax.constructions.base import GadgetConstruction
from lottery_jax.subset_sum import NearestCandidate, Solver


@dataclasses.dataclass(frozen=True)
class Malach(GadgetConstruction):
    """One random pair for each weight and sign (Malach et al. 2020): the one of n whose product is nearest."""

    name: ClassVar[str] = "malach"
    objectives: ClassVar[tuple[str, ...]] = ("least-error",)

    def solver(self, objective: str) -> Solver:
        return NearestCandidate()
