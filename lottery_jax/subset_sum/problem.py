"""Batches of subset-sum problems and their solutions."""

import dataclasses
import enum
from typing import Any

import jax
import numpy as np

from lottery_jax.errors import InputError

MAX_COMPONENTS = 8

MIN_TOLERANCE = {np.float32: 2.0**-80, np.float64: 2.0**-960}
"""By search dtype: devices flush much smaller numbers to 0."""


class Status(enum.IntEnum):
    """Outcome of one problem."""

    WITHIN = 0  # the subset's recomputed sum is within the tolerance of the target
    INFEASIBLE = 1  # proved: no subset is within the tolerance; the returned one has the least residual on the grid
    NOT_FOUND = 2  # no subset was found with this solver and grid; the best one seen is returned


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """P subset-sum problems: for each, find a subset of N candidates whose sum is within ``tolerance`` of its target.

    Arrays are float32 or float64, from NumPy or JAX (float64 only from NumPy).

    Args:
        candidates: [P, N], or [N] shared by all problems, or [P / targets_per_row, N]. For sums of vectors (see
            ``Vector``), each with a last axis of D <= 8 components.
        targets: [P], or [P, D] for vectors.
        tolerance: Positive bound of the distance of sum and target, for all problems and components.
        targets_per_row: Number of consecutive targets that each row of candidates serves.

    Raises:
        InputError: A shape, dtype or tolerance is invalid.

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
                raise InputError(f"{name} must be float32 or float64, got {value.dtype}; convert them first")
        candidates, targets = self.candidates, self.targets
        if targets.ndim not in (1, 2):
            raise InputError(f"targets must have shape [P], or [P, D] for vectors, got {targets.shape}")
        count, *components = targets.shape
        if (
            self.targets_per_row < 1
            or count % self.targets_per_row
            or (self.shared_candidates and self.targets_per_row > 1)
        ):
            raise InputError(
                f"targets_per_row must be 1, or divide the {count} targets among rows of candidates"
                f" [P / targets_per_row, N], got {self.targets_per_row}"
            )
        rows = count // self.targets_per_row
        row_ndim = candidates.ndim - len(components)
        if candidates.shape[row_ndim:] != tuple(components) or not (
            row_ndim == 1 or (row_ndim == 2 and candidates.shape[0] == rows)
        ):
            names = ", ".join(["N", *map(str, components)])
            raise InputError(
                f"candidates must have shape [{names}] or [{rows}, {names}] for targets of shape {targets.shape},"
                f" got {candidates.shape}"
            )
        if components and not 1 <= components[0] <= MAX_COMPONENTS:
            raise InputError(
                f"vectors may have 1 to {MAX_COMPONENTS} components, got {components[0]}; solve parts of them"
            )
        if self.shape[1] == 0:
            raise InputError("a problem needs at least one candidate; N is 0")
        if not (np.isfinite(self.tolerance) and self.tolerance > 0):
            raise InputError(f"tolerance must be a positive number, got {self.tolerance}")
        on_device = isinstance(candidates, jax.Array) or isinstance(targets, jax.Array)
        least = MIN_TOLERANCE[np.float32 if on_device else np.float64]
        if self.tolerance < least:
            raise InputError(
                f"tolerance must be at least {least:.1e}, got {self.tolerance}, because devices flush smaller numbers"
                " to 0; multiply candidates, targets and tolerance by a power of two"
                + (", or give them as NumPy arrays" if on_device else "")
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(P problems, N candidates)."""
        return self.targets.shape[0], self.candidates.shape[-self.targets.ndim]

    @property
    def components(self) -> tuple[int, ...]:
        """() for numbers, (D,) for vectors."""
        return tuple(self.targets.shape[1:])

    @property
    def shared_candidates(self) -> bool:
        """True if all problems have the same candidates."""
        return self.candidates.ndim == self.targets.ndim

    @property
    def needs_float64(self) -> bool:
        """True if float32 does not hold the values or the tolerance."""
        dtypes = self.candidates.dtype, self.targets.dtype
        return np.float64 in dtypes or self.tolerance < MIN_TOLERANCE[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Subsets of a ``Problem``, on the host.

    Args:
        bits: uint32 [P, ceil(N / 32)]; candidate k is bit k % 32 of word k // 32.
        residuals: Sum minus target, [P] or [P, D], recomputed from the problem's values.
        status: uint8 [P], see ``Status``.
        candidates: N.
        minus: Like ``bits``, the subtracted candidates of ``Signed``; None for other solvers.
        solver: The solver that found it (see ``Auto``).
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
        """The factor of each candidate, int8 [P, N]: 0 or 1, and -1 from ``Signed``."""
        used = self.subsets.astype(np.int8)
        return used if self.minus is None else used - 2 * unpack_bits(self.minus, self.candidates).astype(np.int8)

    @property
    def sizes(self) -> np.ndarray:
        """Number of kept candidates, [P]."""
        return np.bitwise_count(self.bits).sum(1, dtype=np.int64)

    @property
    def within(self) -> np.ndarray:
        """True where the residual is within the tolerance, [P]."""
        return self.status == Status.WITHIN


@dataclasses.dataclass(frozen=True, eq=False)
class ParetoFront:
    """For each ``Problem`` and each size k = 0 ... K, the subset of exactly k candidates of least residual.

    Args:
        bits: uint32 [P, K + 1, ceil(N / 32)], as in ``Solution``.
        residuals: Sum minus target, [P, K + 1]; +inf, with empty subsets, for k > N.
        within: bool [P, K + 1], true where the residual is within the tolerance.
        candidates: N.
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
        count, sizes, words = self.bits.shape
        flat = unpack_bits(self.bits.reshape(count * sizes, words), self.candidates)
        return flat.reshape(count, sizes, self.candidates)

    def of_size(self, size: int) -> Solution:
        """The subsets of one size, as from ``FixedSize(size)``."""
        if not 0 <= size < self.bits.shape[1]:
            raise InputError(f"size must be from 0 to {self.bits.shape[1] - 1}, got {size}; solve with a larger k_max")
        return self._select(np.full(len(self.bits), size), Status.INFEASIBLE)

    def smallest(self) -> Solution:
        """The smallest subset within the tolerance; if no size up to K has one, the one of least residual."""
        first = self.within.argmax(1)
        nearest = np.abs(self.residuals).argmin(1)
        return self._select(np.where(self.within.any(1), first, nearest), Status.NOT_FOUND)

    def _select(self, size: np.ndarray, failure: Status) -> Solution:
        row = np.arange(len(size))
        status = np.where(self.within[row, size], Status.WITHIN, failure).astype(np.uint8)
        return Solution(self.bits[row, size], self.residuals[row, size], status, self.candidates)


def words_per_subset(candidates: int) -> int:
    """Number of 32-bit words of one subset."""
    return (candidates + 31) // 32


def pack_bits(subsets: np.ndarray) -> np.ndarray:
    """Booleans [P, N] to uint32 words [P, W]."""
    octets = np.zeros((len(subsets), 4 * words_per_subset(subsets.shape[1])), np.uint8)
    octets[:, : (subsets.shape[1] + 7) // 8] = np.packbits(subsets, axis=1, bitorder="little")
    return octets.view("<u4").astype(np.uint32)


def unpack_bits(bits: np.ndarray, candidates: int) -> np.ndarray:
    """uint32 words [P, W] to booleans [P, N]."""
    octets = np.ascontiguousarray(bits, dtype="<u4").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=candidates, bitorder="little").astype(bool)
