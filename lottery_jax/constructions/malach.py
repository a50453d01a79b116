"""The first strong ticket theorem (Malach, Yehudai, Shalev-Shwartz and Shamir 2020, arXiv 2002.00585, Theorem 2.1).

Each weight and sign branch keeps the one of n random products u v that is nearest to it, or none if 0 is nearer. There
are no sums. The theorem asks for about 1 / eps**2 units, so that one unit has both factors near their ideal values.
Only the product matters here, and its density is at least 0.69 for |w| <= 1/4. The nearest of n products is then
farther than eps with probability about (1 - 1.38 eps)**n. With 32,767 candidates, the maximum, one weight in a million
is farther than 3.1e-4 (the largest weight is scaled to 1/4). Weights beyond the tolerance are redrawn, and counted if
they never succeed. Use it to compare single products with subset sums. The paper's tickets of whole neurons reach only
random features: `experiments/malach_neurons.py` shows how slowly these approach one ReLU neuron.
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
