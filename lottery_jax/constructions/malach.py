"""The first strong ticket theorem (Malach et al. 2020, arXiv 2002.00585): one random pair for each weight.

Of the 2 n hidden units of an input, each weight and sign branch keeps the one whose product u v is nearest to it, or
none where 0 is nearer: no sums. The theorem asks for some 1 / eps**2 units, so that one has both factors near what is
wanted. Of the product alone that is asked sooner: its density is 0.69 or more at |w| <= 1/4, so that the nearest of n
is farther than eps with a probability of about (1 - 1.38 eps)**n. With 32,767 candidates, the most, one weight in a
million is farther than 3.1e-4, where the largest weight is scaled to 1/4. What is farther than the tolerance is drawn
again, and counted if it stays. Their other kind of ticket, of whole neurons, is no construction here, for it reaches
random features alone: `experiments/malach_neurons.py` shows how slowly these come nearer to one ReLU neuron.
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
