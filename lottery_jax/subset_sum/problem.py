"""Batches of subset-sum problems and their solutions."""

import dataclasses
import enum
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
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


def _register(kind: type, *static: str) -> None:
    """Make a dataclass a pytree whose leaves are the fields that are not ``static``."""
    leaves = [field.name for field in dataclasses.fields(kind) if field.name not in static]

    def flatten(one: Any) -> tuple[list[Any], tuple[Any, ...]]:
        keyed = [(jax.tree_util.GetAttrKey(name), getattr(one, name)) for name in leaves]
        return keyed, tuple(getattr(one, name) for name in static)

    def unflatten(values: tuple[Any, ...], parts: Any) -> Any:
        # Without the checks of the constructor: JAX also puts axes and other placeholders in the place of arrays.
        one = object.__new__(kind)
        for name, value in zip((*leaves, *static), (*parts, *values), strict=True):
            object.__setattr__(one, name, value)
        return one

    jax.tree_util.register_pytree_with_keys(kind, flatten, unflatten)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """P subset-sum problems: for each, find a subset of N candidates whose sum is within ``tolerance`` of its target.

    Arrays are float32 or float64, or integers of any width, from NumPy or JAX. Integers are never rounded: the answers
    are exact. A pytree; ``targets_per_row`` is static.

    Args:
        candidates: [P, N], or [N] shared by all problems, or [P / targets_per_row, N]. For sums of vectors (see
            ``Vector``), each with a last axis of D <= 8 components.
        targets: [P], or [P, D] for vectors.
        tolerance: Bound of the distance of sum and target, for all components: a number, or [P], one for each problem.
            Positive for floats; of integers a whole number, default 0.
        targets_per_row: Number of consecutive targets that each row of candidates serves.

    Raises:
        InputError: A shape, dtype or tolerance is invalid.

    >>> import numpy as np
    >>> Problem(np.array([0.5, -0.25, 0.1]), np.array([0.25]), tolerance=0.01).shape
    (1, 3)
    """

    candidates: Any
    targets: Any
    tolerance: Any = None
    targets_per_row: int = 1

    def __post_init__(self) -> None:
        for name in ("candidates", "targets"):
            object.__setattr__(self, name, checked_array(name, getattr(self, name)))
        candidates, targets = self.candidates, self.targets
        if self.integers != (targets.dtype.kind in "iu"):
            raise InputError(
                "candidates and targets must both be integers or both floats, got"
                f" {candidates.dtype} and {targets.dtype}. Convert one of them."
            )
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
        on_device = isinstance(candidates, jax.Array) or isinstance(targets, jax.Array)
        tolerance = checked_tolerance(self.tolerance, candidates.dtype, on_device)
        if np.shape(tolerance) not in ((), (count,)):
            raise InputError(
                f"tolerance must be a number or have shape ({count},), one for each target, got {np.shape(tolerance)}"
            )
        object.__setattr__(self, "tolerance", tolerance)

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
    def integers(self) -> bool:
        """True if candidates and targets are integers."""
        return self.candidates.dtype.kind in "iu"

    @property
    def least_tolerance(self) -> float:
        """The least tolerance of a problem; infinite without problems."""
        return float(np.min(self.tolerance, initial=np.inf))

    @property
    def needs_float64(self) -> bool:
        """True if float32 does not hold the values or the tolerance."""
        dtypes = self.candidates.dtype, self.targets.dtype
        return np.float64 in dtypes or (not self.integers and self.least_tolerance < MIN_TOLERANCE[np.float32])


def checked_array(name: str, value: Any) -> Any:
    """The value as an array; refuses masked arrays and all but float32, float64 and integers."""
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{name} must not be a masked array, because its mask would be lost. Fill or remove entries.")
    value = value if hasattr(value, "dtype") else np.asarray(value)
    if value.dtype not in (np.float32, np.float64) and value.dtype.kind not in "iu":
        raise InputError(f"{name} must be float32, float64 or integers, got {value.dtype}; convert them first")
    return value


def is_traced(*values: Any) -> bool:
    """True in a JAX transformation in which the values, or arrays made of them, cannot be read."""
    # Under `jit` new arrays are traced, even if the values are not.
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((values, jnp.zeros(0))))


def checked_tolerance(tolerance: Any, dtype: Any, on_device: bool) -> Any:
    """A valid tolerance for candidates of a dtype; that of a trace is not read."""
    if isinstance(tolerance, jax.core.Tracer):
        return tolerance
    if isinstance(tolerance, np.ma.MaskedArray):
        raise InputError("tolerance must not be a masked array, because its mask would be lost. Fill it first.")
    if dtype.kind in "iu":
        tolerance = 0 if tolerance is None else tolerance
        values = np.asarray(tolerance)
        whole = values.dtype.kind in "iuf" and (np.isfinite(values) & (values >= 0) & (values == np.floor(values)))
        if not np.all(whole):
            raise InputError(f"tolerance of integers must be a whole number of at least 0, got {tolerance}")
        return tolerance
    values = np.asarray(np.nan if tolerance is None else tolerance)
    if values.dtype.kind not in "iuf" or not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"tolerance must be a positive number, got {tolerance}")
    least = MIN_TOLERANCE[np.float32 if on_device else np.float64]
    if (values < least).any():
        raise InputError(
            f"tolerance must be at least {least:.1e}, got {tolerance}, because devices flush smaller numbers"
            " to 0; multiply candidates, targets and tolerance by a power of two"
            + (", or give them as NumPy arrays" if on_device else "")
        )
    return tolerance


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Subsets of a ``Problem``: NumPy arrays from ``solve``, JAX arrays from functions such as ``closest_subset``.

    A pytree; ``candidates`` and ``solver`` are static. ``solution[i]`` is the solution of problem i, or of a slice.

    Args:
        bits: uint32 [P, ceil(N / 32)]; candidate k is bit k % 32 of word k // 32.
        residuals: Sum minus target, [P] or [P, D], recomputed from the problem's values.
        status: uint8 [P], see ``Status``.
        candidates: N.
        minus: Like ``bits``, the subtracted candidates of ``Signed``; None for other solvers.
        solver: The solver that found it (see ``Auto``).
    """

    bits: Any
    residuals: Any
    status: Any
    candidates: int
    minus: Any = None
    solver: Any = None

    def __getitem__(self, index: Any) -> "Solution":
        return jax.tree.map(lambda part: part[index], self)

    @property
    def subsets(self) -> Any:
        """The subsets as booleans [P, N]."""
        return unpack_bits(self.bits, self.candidates)

    @property
    def coefficients(self) -> Any:
        """The factor of each candidate, int8 [P, N]: 0 or 1, and -1 from ``Signed``."""
        used = self.subsets.astype(np.int8)
        return used if self.minus is None else used - 2 * unpack_bits(self.minus, self.candidates).astype(np.int8)

    @property
    def sizes(self) -> Any:
        """Number of kept candidates, [P]."""
        xp: Any = jnp if isinstance(self.bits, jax.Array) else np
        return xp.bitwise_count(self.bits).sum(-1, dtype=int)

    @property
    def within(self) -> Any:
        """True where the residual is within the tolerance, [P]."""
        return self.status == int(Status.WITHIN)


@dataclasses.dataclass(frozen=True, eq=False)
class ParetoFront:
    """For each ``Problem`` and each size k = 0 ... K, the subset of exactly k candidates of least residual.

    A pytree; ``candidates`` is static.

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


_register(Problem, "targets_per_row")
_register(Solution, "candidates", "solver")
_register(ParetoFront, "candidates")


def words_per_subset(candidates: int) -> int:
    """Number of 32-bit words of one subset."""
    return (candidates + 31) // 32


def pack_bits(subsets: np.ndarray) -> np.ndarray:
    """Booleans [P, N] to uint32 words [P, W]."""
    octets = np.zeros((len(subsets), 4 * words_per_subset(subsets.shape[1])), np.uint8)
    octets[:, : (subsets.shape[1] + 7) // 8] = np.packbits(subsets, axis=1, bitorder="little")
    return octets.view("<u4").astype(np.uint32)


def unpack_bits(bits: Any, candidates: int) -> Any:
    """uint32 words [..., W] to booleans [..., N], of NumPy or JAX."""
    if isinstance(bits, jax.Array):
        position = jnp.arange(32, dtype=jnp.uint32)
        return ((bits[..., None] >> position) & 1 == 1).reshape(*bits.shape[:-1], 32 * bits.shape[-1])[..., :candidates]
    octets = np.ascontiguousarray(bits, dtype="<u4").view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=candidates, bitorder="little").astype(bool)
