"""The subset of least residual, exact: of all subsets, or of those of exactly k candidates."""

import dataclasses
from typing import ClassVar

import jax
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.algorithms.by_size import closest_of_sizes, problems_at_once
from lottery_jax.subset_sum.algorithms.pairs import nearest_of_all
from lottery_jax.subset_sum.algorithms.sorted_sums import meet_in_the_middle
from lottery_jax.subset_sum.engine.grid import FINEST_BITS, Grid
from lottery_jax.subset_sum.kernels import kernel_is_ready
from lottery_jax.subset_sum.problem import ParetoFront, Solution
from lottery_jax.subset_sum.solver import CpuKernel, SharedCpuKernel, SinglePass


@dataclasses.dataclass(frozen=True)
class Exhaustive(SinglePass[Solution]):
    """The subset of least residual, exact, by trying all 2**N: to check other solvers, and for small N.

    Three vector operations for each subset, and memory for the 2**(N/2) sums of each half.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, -0.25, 0.125]), np.array([0.3]), tolerance=0.2)
    >>> solve(problem, Exhaustive()).subsets
    array([[ True, True, False]])
    """

    max_candidates: ClassVar[int] = 26
    integer_bits: ClassVar[int] = FINEST_BITS

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return nearest_of_all(grid.candidates, grid.targets)

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        half = (candidates + 1) // 2
        return min(128, 2 ** (17 - half)) if cpu else min(2**14, 2 ** (24 - half))


_MIN_SHARED_TARGETS = 64  # of one row; with fewer, the row's sorted list costs more than it saves


@dataclasses.dataclass(frozen=True)
class MeetInTheMiddle(SinglePass[Solution]):
    """The subset of least residual, exact on the grid (see ``engine.grid``), in O(N 2**(N/2)) operations and memory.

    N = 21 takes about 100,000 lane operations; two more candidates double it. Horowitz and Sahni 1974. On CPU with
    Numba, problems of 12 to 24 candidates use ``kernels.closest_subset_cpu`` (or ``closest_subset_shared_cpu`` for
    shared candidates) if they are many or the kernel is compiled already. The answers are the same.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, -0.25, 0.125]), np.array([0.3, 0.6]), tolerance=0.2)
    >>> solve(problem, MeetInTheMiddle()).subsets
    array([[ True,  True, False],
           [ True, False,  True]])
    """

    max_candidates: ClassVar[int] = 44
    integer_bits: ClassVar[int] = FINEST_BITS

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return meet_in_the_middle(grid.candidates, grid.targets)

    def cpu_kernel(self, candidates: int, problems: int, key: jax.Array | None) -> CpuKernel | None:
        if not kernel_is_ready("closest_subset_cpu", candidates, problems):
            return None
        from lottery_jax.subset_sum.kernels import closest_subset_cpu  # importing Numba takes a while

        def search(grid: Grid, count: int) -> np.ndarray:
            arrays = grid.on_host(count)
            return closest_subset_cpu.meet_in_the_middle_on_cpu(arrays.candidates, arrays.targets)

        return search

    def shared_cpu_kernel(self, candidates: int, problems: int, targets_per_row: int) -> SharedCpuKernel | None:
        if targets_per_row < _MIN_SHARED_TARGETS or not kernel_is_ready(
            "closest_subset_shared_cpu", candidates, problems
        ):
            return None
        from lottery_jax.subset_sum.kernels import closest_subset_shared_cpu

        return closest_subset_shared_cpu.closest_subset_shared

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        # Lists fit a core's second-level cache, or take about 1 GiB on an accelerator.
        half = candidates // 2
        return min(128, 2 ** max(17 - half, 0)) if cpu else 2 ** max(24 - half, 0)


@dataclasses.dataclass(frozen=True)
class FixedSize(SinglePass[Solution]):
    """The subset of least residual among those of exactly k candidates, exact; ``Pareto`` solves for many k at once.

    C(N, k) subsets are tried, three vector operations each; more than 2**26 are sorted (``algorithms.by_size``).
    Natale et al. 2024, section 1: with n >= c log2(k / eps) / H2(k / n) candidates a target in [-sqrt k, sqrt k] is
    within eps of a sum.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.25, 0.125]), np.array([0.6]), tolerance=0.1)
    >>> solve(problem, FixedSize(2)).subsets
    array([[ True, False,  True]])
    """

    k: int
    max_candidates: ClassVar[int] = 40
    fixed_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k < 0:
            raise InputError(f"k must be 0 or more, got {self.k}; it is the number of kept candidates")

    def check(self, candidates: int) -> None:
        super().check(candidates)
        if self.k > candidates:
            raise InputError(
                f"a subset of k = {self.k} needs as many candidates; N is {candidates}, so use a smaller k"
            )

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return closest_of_sizes(grid.candidates, grid.targets, (self.k,))[0]

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return problems_at_once(candidates, (self.k,), cpu)


@dataclasses.dataclass(frozen=True)
class Pareto(SinglePass[ParetoFront]):
    """The subset of least residual of each size 0, 1, ..., k_max, exact: ``solve`` returns a ``ParetoFront``.

    Three vector operations for each subset of up to k_max candidates: 82,000 subsets for N = 21 and k_max = 6. Sizes
    with more than 2**26 subsets are sorted (``algorithms.by_size``).

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.25, 0.125]), np.array([0.6]), tolerance=0.01)
    >>> solve(problem, Pareto(2)).residuals
    array([[-0.6  , -0.1  ,  0.025]])
    """

    k_max: int = 6
    max_candidates: ClassVar[int] = 40
    fixed_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k_max < 0:
            raise InputError(f"k_max must be 0 or more, got {self.k_max}; it is the largest number of kept candidates")

    @property
    def subset_axes(self) -> tuple[int, ...]:
        return (self.k_max + 1,)

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return closest_of_sizes(grid.candidates, grid.targets, tuple(range(self.k_max + 1)))

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        return problems_at_once(candidates, tuple(range(self.k_max + 1)), cpu)

    def finalise(self, found: Solution) -> ParetoFront:
        exists = np.arange(self.k_max + 1) <= found.candidates
        residuals = np.where(exists, found.residuals, found.residuals.dtype.type(np.inf))
        return ParetoFront(found.bits, residuals, found.within & exists, found.candidates)
