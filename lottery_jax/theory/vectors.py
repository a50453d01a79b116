"""Multidimensional random subset sums: one subset for several numbers at once (Becchetti et al., arXiv 2207.13944).

It is what structured pruning asks for: a neuron or a channel is kept whole or not at all, and all of its weights must
be met by the same choice. Every coordinate costs as many candidates again: the residual falls as 2^(-n / d).
"""

import dataclasses
from typing import ClassVar

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.sampler import draw_host
from lottery_jax.subset_sum import Solution, Solver, Vector
from lottery_jax.theory.candidates import STREAMS, UNIFORM, SizedCandidates


@dataclasses.dataclass(frozen=True)
class VectorCandidates(SizedCandidates):
    """Vectors of `size` numbers from U[-1, 1], and a target of as many; the error is that of the worst coordinate.

    >>> VectorCandidates(2).draw(6, 10, seed=0).shape
    (10, 6, 2)
    """

    name: ClassVar[str] = "vectors"

    size: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 8:
            raise InputError(f"size must be from 1 to 8 numbers in a vector, not {self.size}")

    def solver(self) -> Solver[Solution]:
        return Vector()

    @property
    def dimension(self) -> int:
        return self.size

    @property
    def most(self) -> int:
        return 16

    def draw(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(UNIFORM, seed=seed, stream=STREAMS * count, shape=(trials, count, self.size))

    def targets(self, count: int, trials: int, seed: int) -> np.ndarray:
        return draw_host(UNIFORM, seed=seed, stream=STREAMS * count + 3, shape=(trials, self.size))
