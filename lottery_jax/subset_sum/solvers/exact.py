"""All subsets, one after the other.

Exact least residual.
"""

import dataclasses
from typing import ClassVar

import jax
import numpy as np

from lottery_jax.subset_sum.algorithms.pairs import nearest_of_all
from lottery_jax.subset_sum.algorithms.sorted_sums import closest_subset
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.kernels import at_hand
from lottery_jax.subset_sum.problem import Solution
from lottery_jax.subset_sum.solver import HostSearch, SharedSearch, SinglePass


@dataclasses.dataclass(frozen=True)
class Exhaustive(SinglePass[Solution]):
    """The subset of least residual, exact, by trying all 2**N: for checking the other solvers, and for small N.

    Three vector operations for each subset; memory for the 2**(N/2) sums of each half and no more.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, -0.25, 0.125]), np.array([0.3]), tolerance=0.2)
    >>> solve(problem, Exhaustive()).subsets
    array([[ True, True, False]])
    """

    max_candidates: ClassVar[int] = 26

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return nearest_of_all(grid.candidates, grid.targets)

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        half = (candidates + 1) // 2
        return min(128, 2 ** (17 - half)) if cpu else min(2**14, 2 ** (24 - half))


_WORTH_SHARING = 64  # targets of one row: with fewer, the row's long list costs more than it saves


@dataclasses.dataclass(frozen=True)
class MeetInTheMiddle(SinglePass[Solution]):
    """The subset of least residual, exact on the grid (see `grid`), in O(N 2**(N/2)) operations and memory.

    N = 21 takes some 100 thousand lane operations; each two more candidates double it. Horowitz and Sahni 1974.
    On CPU, with Numba installed, problems of 12 to 24 candidates go to `kernels.cpu` (where targets share them to
    `kernels.shared_cpu`), if there are many or it is compiled already: the same answers, sooner.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, -0.25, 0.125]), np.array([0.3, 0.6]), tolerance=0.2)
    >>> solve(problem, MeetInTheMiddle()).subsets
    array([[ True,  True, False],
           [ True, False,  True]])
    """

    max_candidates: ClassVar[int] = 44

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return closest_subset(grid.candidates, grid.targets)

    def on_host(self, candidates: int, problems: int, key: jax.Array | None) -> HostSearch | None:
        if not at_hand("cpu", candidates, problems):
            return None
        from lottery_jax.subset_sum.kernels import closest_subset_cpu as cpu

        def search(grid: Grid, count: int) -> np.ndarray:
            own = grid.on_host(count)
            return cpu.closest_subset(own.candidates, own.targets)

        return search

    def on_host_shared(self, candidates: int, problems: int, each: int) -> SharedSearch | None:
        if each < _WORTH_SHARING or not at_hand("shared_cpu", candidates, problems):
            return None
        from lottery_jax.subset_sum.kernels import closest_subsets_cpu as shared_cpu

        return shared_cpu.closest_subsets

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        # Lists that stay in a core's second-level cache; on an accelerator about 1 GiB of lists.
        half = candidates // 2
        return min(128, 2 ** max(17 - half, 0)) if cpu else 2 ** max(24 - half, 0)
