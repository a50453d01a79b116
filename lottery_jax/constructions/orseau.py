"""Logarithmic pruning (Orseau, Hutter and Rivasplata 2020, arXiv 2006.12156): log-uniform weights, and no search.

Sizes are drawn with density 1 / size, which they call hyperbolic, so that products u v are of every scale. The largest
one not above a weight is taken, then the largest not above what it leaves, and so on: where each interval [x, 1.618 x]
has a product, a step leaves at most 0.382 of what was left (their golden-ratio decomposition), and O(log 1/eps) units
do. Every residual has the sign of its weight.

They recycle samples: what one weight left unused is tried for the next. Of that a masked network can have:

- a first weight u, with its unit, is a sample of all weights of its input, whether others use it or not: the source has
  2 n units for each input, and without that would have them for each weight;
- a second weight v stands behind one unit and in front of one output, so that it is a sample of one weight alone;
- a unit that no output of its input uses could be given to another input, whose edge to it is one more random weight.
  That is not built: the block pattern of the gadget gives each input units of its own.
"""

import dataclasses
from typing import ClassVar

from lottery_jax.constructions.base import GadgetConstruction
from lottery_jax.errors import InputError
from lottery_jax.rng.sampler import Sampler
from lottery_jax.subset_sum import Greedy, Solver


@dataclasses.dataclass(frozen=True)
class Orseau(GadgetConstruction):
    """Log-uniform weights and greedy sums (Orseau et al. 2020): the largest product that still fits, again and again.

    >>> Orseau(50).sampler.in_words()
    '+-log-U[0.02, 1]'
    """

    name: ClassVar[str] = "orseau"
    objectives: ClassVar[tuple[str, ...]] = ("least-error",)

    least: float = 0.02
    """Least size of a random weight, the largest is 1; smaller suits more candidates, or a smaller tolerance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.least, float | int) and 2.0**-16 <= self.least <= 0.5):
            raise InputError(f"least must be from 2**-16 to 1/2, not {self.least!r}; random weights are up to 1")

    @property
    def sampler(self) -> Sampler:
        return Sampler.log_uniform(self.least, 1)

    def solver(self, objective: str) -> Solver:
        return Greedy()
