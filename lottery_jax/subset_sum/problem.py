"""Batches of random subset-sum problems and their solutions.

The answer of `Pareto`: for each problem, the best subset of every size.
"""

import dataclasses
import enum
from typing import Any

import jax
import numpy as np

from lottery_jax.errors import InputError

MOST_COMPONENTS = 8

LEAST_TOLERANCE = {np.float32: 2.0**-80, np.float64: 2.0**-960}
"""By the type that is searched in: what is far below it, devices take for 0."""


class Status(enum.IntEnum):
    """What is known of one problem."""

    WITHIN = 0  # the subset's sum, computed anew from the values given, is within the tolerance of the target
    INFEASIBLE = 1  # proved: no subset is; the one returned has the least residual on the grid
    NOT_FOUND = 2  # none was found, by the solver's budget or for the grid is too coarse; the best seen is returned


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """P subset-sum problems: for each, find a subset of N candidates whose sum is within `tolerance` of its target.

    candidates: [P, N], or [N] shared by all problems, or [P / targets_per_row, N], each row for `each` neighbouring problems.
    targets: [P]. tolerance: > 0, one for all. For sums of D <= 8 components (see `Vector`): candidates [..., N, D],
    targets [P, D], each component within the tolerance.
    float32 or float64, NumPy or JAX (float64 only from NumPy). Raises `InputError` on anything else.

    >>> import numpy as np
    >>> Problem(np.array([0.5, -0.25, 0.1]), np.array([0.25]), tolerance=0.01).shape
    (1, 3)
    """

    candidates: Any
    targets: Any
    tolerance: float
    targets_per_row: int = 1

    def __post_init__(self) -> None:
        for name in ("candidates", "targets"):
            value = getattr(self, name)
            if not hasattr(value, "dtype"):
                value = np.asarray(value)
                object.__setattr__(self, name, value)
            if value.dtype not in (np.float32, np.float64):
                raise InputError(f"{name} must be float32 or float64, not {value.dtype}; convert them first")
        candidates, targets = self.candidates, self.targets
        if targets.ndim not in (1, 2):
            raise InputError(f"targets must have shape [P], or [P, D] for vectors, not {targets.shape}")
        count, *tail = targets.shape
        shared = candidates.ndim == targets.ndim
        if self.targets_per_row < 1 or count % self.targets_per_row or (shared and self.targets_per_row > 1):
            raise InputError(
                f"targets_per_row must be 1, or divide the {count} targets among rows of candidates [P / targets_per_row, N], not {self.targets_per_row}"
            )
        count //= self.targets_per_row
        if not (shared or (candidates.ndim == targets.ndim + 1 and candidates.shape[0] == count)) or candidates.shape[
            candidates.ndim - len(tail) :
        ] != tuple(tail):
            names = ", ".join(["N", *map(str, tail)])
            raise InputError(
                f"candidates must have shape [{names}] or [{count}, {names}] for targets of shape {targets.shape},"
                f" not {candidates.shape}"
            )
        if tail and not 1 <= tail[0] <= MOST_COMPONENTS:
            raise InputError(f"vectors may have 1 to {MOST_COMPONENTS} components, not {tail[0]}; solve parts of them")
        if self.shape[1] == 0:
            raise InputError("a problem needs at least one candidate; N is 0")
        if not (np.isfinite(self.tolerance) and self.tolerance > 0):
            raise InputError(f"tolerance must be a positive number, not {self.tolerance}")
        on_device = isinstance(candidates, jax.Array) or isinstance(targets, jax.Array)
        least = LEAST_TOLERANCE[np.float32 if on_device else np.float64]
        if self.tolerance < least:
            raise InputError(
                f"tolerance must be at least {least:.1e}, not {self.tolerance}, for devices take numbers near it for 0;"
                " multiply candidates, targets and tolerance by a power of two"
                + (", or give them as NumPy arrays" if on_device else "")
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(P problems, N candidates)."""
        return self.targets.shape[0], self.candidates.shape[-self.targets.ndim]

    @property
    def components(self) -> tuple[int, ...]:
        """() for plain numbers, (D,) for vectors."""
        return tuple(self.targets.shape[1:])

    @property
    def shared(self) -> bool:
        """True where all problems have the same candidates."""
        return self.candidates.ndim == self.targets.ndim

    @property
    def double(self) -> bool:
        """True where float32 is not enough to search in."""
        given = self.candidates.dtype, self.targets.dtype
        return np.float64 in given or self.tolerance < LEAST_TOLERANCE[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Subsets of a `Problem`, on the host.

    bits: uint32 [P, ceil(N / 32)], candidate k in bit k % 32 of word k // 32. residuals: [P] (or [P, D]), sum minus
    target, computed from the values as they were given. status: uint8 [P], see `Status`.
    minus: like bits, the candidates that are subtracted; only `Signed` has any. solver: what found it (see `Auto`).
    """

    bits: np.ndarray
    residuals: np.ndarray
    status: np.ndarray
    candidates: int
    minus: np.ndarray | None = None
    solver: Any = None

    @property
    def subsets(self) -> np.ndarray:
        """The subsets as booleans [P, N]."""
        return unpack_bits(self.bits, self.candidates)

    @property
    def coefficients(self) -> np.ndarray:
        """What each candidate is multiplied by, int8 [P, N]: 0 or 1, from `Signed` also -1."""
        used = self.subsets.astype(np.int8)
        return used if self.minus is None else used - 2 * unpack_bits(self.minus, self.candidates).astype(np.int8)

    @property
    def sizes(self) -> np.ndarray:
        """Number of candidates kept by each subset, [P]."""
        return np.bitwise_count(self.bits).sum(1, dtype=np.int64)

    @property
    def within(self) -> np.ndarray:
        """True where the tolerance is met, [P]."""
        return self.status == Status.WITHIN


def words_per_subset(candidates: int) -> int:
    """Number of 32-bit words that hold one subset."""
    return (candidates + 31) // 32


def pack_bits(chosen: np.ndarray) -> np.ndarray:
    """Booleans [P, N] to uint32 words [P, W]."""
    octets = np.zeros((len(chosen), 4 * words_per_subset(chosen.shape[1])), np.uint8)
    octets[:, : (chosen.shape[1] + 7) // 8] = np.packbits(chosen, axis=1, bitorder="little")
    return octets.view("<u4").astype(np.uint32)


def unpack_bits(bits: np.ndarray, candidates: int) -> np.ndarray:
    """uint32 words [P, W] to booleans [P, N]."""
    octets = np.ascontiguousarray(bits, dtype="<u4").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=candidates, bitorder="little").astype(bool)


@dataclasses.dataclass(frozen=True, eq=False)
class ParetoFront:
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

    def of_size(self, size: int) -> Solution:
        """The answers of one size, as `FixedSize(size)` gives them."""
        if not 0 <= size < self.bits.shape[1]:
            raise InputError(f"size must be from 0 to {self.bits.shape[1] - 1}, not {size}; solve with a larger k_max")
        return self._at(np.full(len(self.bits), size))

    def smallest(self) -> Solution:
        """The smallest subset within the tolerance; where there is none up to K, the least residual seen."""
        first = self.within.argmax(1)
        nearest = np.abs(self.residuals).argmin(1)
        return self._at(np.where(self.within.any(1), first, nearest), Status.NOT_FOUND)

    def _at(self, size: np.ndarray, failure: Status = Status.INFEASIBLE) -> Solution:
        row = np.arange(len(size))
        status = np.where(self.within[row, size], Status.WITHIN, failure).astype(np.uint8)
        return Solution(self.bits[row, size], self.residuals[row, size], status, self.candidates)
