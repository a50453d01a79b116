"""Logarithmic pruning (Orseau, Hutter and Rivasplata 2020, arXiv 2006.12156): log-uniform weights, greedy sums.

Magnitudes have density 1 / size ("hyperbolic" in the paper), so that products u v exist at every scale. The greedy sum
takes the largest product not above the remainder, again and again. A unit serves all outputs of its input; the paper
also recycles units between inputs, which the block pattern of the gadget does not allow.
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
            raise InputError(f"least must be from 2**-16 to 1/2, got {self.least!r}. Random weights are at most 1.")

    @property
    def sampler(self) -> Sampler:
        return Sampler.log_uniform(self.least, 1)

    def solver(self, objective: str) -> Solver:
        return Greedy()
