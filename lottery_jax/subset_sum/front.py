"""The answer of `Pareto`: for each problem, the best subset of every size."""

import dataclasses

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.problem import Solution, Status, unpack_bits


@dataclasses.dataclass(frozen=True, eq=False)
class Front:
    """Of each `Problem`, the subset of least residual among those of exactly k candidates, k = 0 ... K.

    bits: uint32 [P, K + 1, ceil(N / 32)], as in `Solution`. residuals: [P, K + 1], sum minus target, computed from
    the values as they were given; +inf, with no bits set, where k > N. within: bool [P, K + 1], true where the
    tolerance is met.
    """

    bits: np.ndarray
    residuals: np.ndarray
    within: np.ndarray
    candidates: int

    @property
    def sizes(self) -> np.ndarray:
        """0 ... K, the same for every problem."""
        return np.arange(self.bits.shape[1])

    @property
    def subsets(self) -> np.ndarray:
        """The subsets as booleans [P, K + 1, N]."""
        count, sizes, _ = self.bits.shape
        flat = unpack_bits(self.bits.reshape(count * sizes, self.bits.shape[2]), self.candidates)
        return flat.reshape(count, sizes, self.candidates)

    def column(self, size: int) -> Solution:
        """The answers of one size, as `FixedSize(size)` gives them."""
        if not 0 <= size < self.bits.shape[1]:
            raise InputError(f"size must be from 0 to {self.bits.shape[1] - 1}, not {size}; solve with a larger k_max")
        return self._at(np.full(len(self.bits), size))

    def fewest(self) -> Solution:
        """The smallest subset within the tolerance; where there is none up to K, the least residual seen."""
        first = self.within.argmax(1)
        nearest = np.abs(self.residuals).argmin(1)
        return self._at(np.where(self.within.any(1), first, nearest), Status.NOT_FOUND)

    def _at(self, size: np.ndarray, failure: Status = Status.INFEASIBLE) -> Solution:
        row = np.arange(len(size))
        status = np.where(self.within[row, size], Status.WITHIN, failure).astype(np.uint8)
        return Solution(self.bits[row, size], self.residuals[row, size], status, self.candidates)
