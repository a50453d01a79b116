"""Batches of random subset-sum problems and their solutions."""

import dataclasses
import enum
from typing import Any

import numpy as np

from lottery_jax.errors import InputError


class Status(enum.IntEnum):
    """What is known of one problem."""

    WITHIN = 0  # the subset's sum is within the tolerance of the target
    INFEASIBLE = 1  # proved: no subset is; the one returned has the least residual
    NOT_FOUND = 2  # none was found within the solver's budget; the one returned is the best seen


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """P subset-sum problems: for each, find a subset of N candidates whose sum is within `tolerance` of its target.

    candidates: [P, N], or [N] shared by all problems. targets: [P]. tolerance: > 0, one for all.
    float32 or float64, NumPy or JAX (float64 only from NumPy). Raises `InputError` on anything else.

    >>> import numpy as np
    >>> Problem(np.array([0.5, -0.25, 0.1]), np.array([0.25]), tolerance=0.01).shape
    (1, 3)
    """

    candidates: Any
    targets: Any
    tolerance: float

    def __post_init__(self) -> None:
        for name in ("candidates", "targets"):
            value = getattr(self, name)
            if not hasattr(value, "dtype"):
                value = np.asarray(value)
                object.__setattr__(self, name, value)
            if value.dtype not in (np.float32, np.float64):
                raise InputError(f"{name} must be float32 or float64, not {value.dtype}; convert them first")
        candidates, targets = self.candidates, self.targets
        if targets.ndim != 1:
            raise InputError(f"targets must have shape [P], not {targets.shape}")
        if candidates.ndim not in (1, 2) or (candidates.ndim == 2 and candidates.shape[0] != targets.shape[0]):
            raise InputError(
                f"candidates must have shape [N] or [{targets.shape[0]}, N] for {targets.shape[0]} targets,"
                f" not {candidates.shape}"
            )
        if candidates.shape[-1] == 0:
            raise InputError("a problem needs at least one candidate; N is 0")
        if not (np.isfinite(self.tolerance) and self.tolerance > 0):
            raise InputError(f"tolerance must be a positive number, not {self.tolerance}")

    @property
    def shape(self) -> tuple[int, int]:
        """(P problems, N candidates)."""
        return self.targets.shape[0], self.candidates.shape[-1]

    @property
    def double(self) -> bool:
        return np.float64 in (self.candidates.dtype, self.targets.dtype)

    def rows(self, index: Any) -> tuple[Any, Any]:
        """Candidates [R, N] and targets [R] of some problems (a slice or an index array)."""
        targets = self.targets[index]
        if self.candidates.ndim == 2:
            return self.candidates[index], targets
        return np.broadcast_to(np.asarray(self.candidates), (targets.shape[0], self.shape[1])), targets


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Subsets of a `Problem`, on the host.

    bits: uint32 [P, ceil(N / 32)], candidate k in bit k % 32 of word k // 32. residuals: [P], sum minus target as the
    solver computed it on its grid (a certificate is computed elsewhere). status: uint8 [P], see `Status`.
    """

    bits: np.ndarray
    residuals: np.ndarray
    status: np.ndarray
    candidates: int

    @property
    def subsets(self) -> np.ndarray:
        """The subsets as booleans [P, N]."""
        return unpack_bits(self.bits, self.candidates)

    @property
    def sizes(self) -> np.ndarray:
        """Number of candidates kept by each subset, [P]."""
        return np.bitwise_count(self.bits).sum(1, dtype=np.int64)

    @property
    def within(self) -> np.ndarray:
        """True where the tolerance is met, [P]."""
        return self.status == Status.WITHIN


def words(candidates: int) -> int:
    """Number of 32-bit words that hold one subset."""
    return (candidates + 31) // 32


def unpack_bits(bits: np.ndarray, candidates: int) -> np.ndarray:
    """uint32 words [P, W] to booleans [P, N]."""
    octets = np.ascontiguousarray(bits, dtype="<u4").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=candidates, bitorder="little").astype(bool)
