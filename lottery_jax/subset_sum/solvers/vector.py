"""One subset for several sums at once."""

import dataclasses
from typing import ClassVar

import jax

from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution
from lottery_jax.subset_sum.search.pairs import nearest_of_all
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class Vector(SinglePass[Solution]):
    """One subset of N vectors whose sum is nearest to a vector of D <= 8 components, exact up to N = 24.

    For structured pruning: a kept neuron or filter serves all D weights at once. Candidates are [P, N, D] or [N, D]
    and targets [P, D]. Nearest means the least largest |component| of the error, which is what a tolerance per
    weight asks for. All 2**N subsets are tried, as pairs of halves, 3 D vector operations each (sorting the halves by
    one component would still leave some 2**(N (1 - 1 / D)) pairs). The least error falls as 2**(-N / D). Beyond 24
    vectors use `VectorWindows`, which takes the same problems, re-decides windows of vectors exactly, and proves
    nothing. Becchetti et al. 2022.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> candidates = np.array([[0.5, 0.1], [-0.25, 0.2], [0.125, -0.3]])
    >>> solution = solve(Problem(candidates, np.array([[0.3, 0.25]]), tolerance=0.06), Vector())
    >>> solution.subsets, solution.residuals
    (array([[ True,  True, False]]), array([[-0.05,  0.05]]))
    """

    max_candidates: ClassVar[int] = 24
    vectors: ClassVar[tuple[bool, ...]] = (True,)

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return nearest_of_all(grid.candidates, grid.targets)

    def chunk(self, candidates: int, cpu: bool) -> int:
        half = (candidates + 1) // 2
        return min(64, 2 ** (16 - half)) if cpu else min(2**12, 2 ** (22 - half))
