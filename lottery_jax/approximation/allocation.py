"""Allocation of one budget over many Pareto fronts: which size of subset each weight gets.

For a Lagrange multiplier m each weight minimises error + m * size independently, on the lower convex hull of its front;
bisection over the hulls' slopes finds the budget's multiplier (Everett 1963; Shoham and Gersho 1988). What remains is
spent greedily, widest steps first. Errors break ties, so that the order of the weights changes no total.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from lottery_jax.errors import InputError

_ROWS = 1 << 13  # fronts whose hulls are computed at a time, so that their errors stay in cache
_MAX_KEPT = 2**62


@dataclasses.dataclass(frozen=True, eq=False)
class Allocation:
    """One subset size per weight, int64 [P], their sum, and the total weighted squared error.

    `multiplier` is the decrease of the error for one more kept weight. No allocation within the budget has a smaller
    error than `bound` (for a budget of error: keeps fewer weights).
    """

    sizes: np.ndarray
    kept: int
    error: float
    multiplier: float
    bound: float


class ParetoFronts:
    """P Pareto fronts of error against size, with their convex hulls.

    Args:
        residuals: [P, K + 1], the least residual of subsets of exactly k candidates (of any sign), infinite if there is
            no such subset.
        importance: [P], finite and not negative; default 1.
        larger: True if sizes above K exist and are unknown; the bound then allows for residuals of 0 there.

    Raises:
        InputError: For NaN, a front without any subset, or shapes that do not match.

    >>> fronts = ParetoFronts(np.array([[0.5, 0.1, 0.0], [0.25, 0.125, 0.125]]))
    >>> fronts.within_kept(2).sizes, fronts.within_error(0.08).sizes
    (array([1, 1]), array([1, 0]))
    """

    def __init__(self, residuals: np.ndarray, importance: np.ndarray | None = None, *, larger: bool = False) -> None:
        self.errors = _errors(np.asarray(residuals), importance)
        self.larger = larger
        self.start = np.isfinite(self.errors).argmax(1)
        self.items, self.widths, self.rates = _hulls(self.errors)
        self.breakpoints, at = np.unique(self.rates, return_inverse=True)
        """Multipliers at which an allocation changes, ascending."""
        added = np.bincount(at, self.widths, len(self.breakpoints)).astype(np.int64)
        self.kept_at = int(self.start.sum()) + np.append(np.cumsum(added[::-1])[::-1], 0)
        """Kept weights of all steps of at least each breakpoint, and of none."""

    def within_kept(self, kept: int) -> Allocation:
        """The sizes of least total error whose sum is at most `kept`; raises `InputError`."""
        kept = check_kept(kept)
        least = int(self.start.sum())
        if least > kept:
            raise InputError(
                f"the smallest subsets keep {least} weights, more than the budget of {kept}; raise the budget"
            )
        place = int((self.kept_at > kept).sum())  # kept_at decreases
        sizes = self._sizes(self._steps(place))
        if place == 0:
            return self._allocation(sizes, 0.0, kept)
        multiplier = float(self.breakpoints[place - 1])
        exact = self._allocation(sizes, multiplier, kept)
        tied = np.flatnonzero(self.rates == multiplier)
        self._take_tied(tied, sizes, kept - exact.kept)
        self._fill(sizes, kept - int(sizes.sum()))
        filled = self._allocation(sizes, multiplier, kept)
        return dataclasses.replace(filled, bound=min(exact.bound, filled.error))

    def within_error(self, error: float) -> Allocation:
        """The sizes of least sum whose total error is at most `error`; raises `InputError`."""
        error = check_error(error)
        least = self._total(self._sizes(self._steps(0)))
        if least > error:
            raise InputError(f"no allocation has a total error within {error}: the least is {least}; raise the budget")
        # The total grows with the multiplier in floating point too: it is rounded once, after an exact sum.
        count = len(self.breakpoints)
        place = _bisect(count + 1, lambda place: self._total(self._sizes(self._steps(place))) > error) - 1
        sizes = self._sizes(self._steps(place))
        if place == count:
            return self._error_allocation(sizes, math.inf, error)
        # Without the steps at this multiplier the error exceeds the budget: add the fewest, then shorten the last.
        multiplier = float(self.breakpoints[place])
        tied = np.flatnonzero(self.rates == multiplier)
        rows = self.items[tied]
        if rows[0] != rows[-1]:  # the sort is stable, so the steps of one weight stay in order
            _, inverse = np.unique(rows, return_inverse=True)
            tied = tied[self._ranked(rows, np.bincount(inverse, self.widths[tied])[inverse])]
        before = self._sizes(self._steps(place + 1))
        needed = _bisect(len(tied), lambda steps: self._total(self._sizes(tied[:steps], before)) <= error)
        full, part = (self._sizes(tied[:steps], before) for steps in (needed, needed - 1))
        found = self._complete(part, int(full.sum() - part.sum()), error)
        return self._error_allocation(full if found is None else found, multiplier, error)

    def _steps(self, place: int) -> np.ndarray:
        """Indices of the steps of at least the breakpoint at `place`: all for 0, none beyond the last."""
        if place == len(self.breakpoints):
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.rates >= self.breakpoints[place])

    def _sizes(self, steps: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        added = np.bincount(self.items[steps], self.widths[steps], len(self.start))
        return (self.start if before is None else before) + added.astype(np.int64)

    def _errors_at(self, sizes: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.errors, sizes[:, None], 1)[:, 0]

    def _total(self, sizes: np.ndarray) -> float:
        return math.fsum(self._errors_at(sizes))

    def _ranked(self, rows: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """The order of tied steps of `rows`: widest first, then by the errors of their fronts."""
        return np.lexsort((*self.errors[rows].T[::-1], -widths))

    def _take_tied(self, tied: np.ndarray, sizes: np.ndarray, left: int) -> None:
        """Add steps of equal slope, in place: repeatedly the widest increase of one weight that fits."""
        rows, widths = self.items[tied], self.widths[tied]
        ends = np.cumsum(widths)
        # A weight with several of these steps, which are adjacent, grows by the first one, the first two, ...
        rises = ends - (ends - widths)[np.searchsorted(rows, rows)]
        # It grows at most once: if a second increase fitted, both as one wider increase would have fitted.
        waiting = np.ones(len(sizes), bool)
        for rise in np.flatnonzero(np.bincount(rises))[::-1]:
            if rise > left:
                continue
            fitting = rows[(rises == rise) & waiting[rows]]
            if len(fitting) > left // rise:
                fitting = fitting[self._ranked(fitting, np.ones(len(fitting)))[: left // rise]]
            sizes[fitting] += rise
            waiting[fitting] = False
            left -= int(rise) * len(fitting)

    def _first_row(self, rows: np.ndarray, sizes: np.ndarray) -> int:
        """The weight among `rows` with the least errors, then size; independent of the order of the weights."""
        for size in range(self.errors.shape[1]):
            if len(rows) == 1:
                break
            column = self.errors[rows, size]
            rows = rows[column == column.min()]
        return int(rows[sizes[rows].argmin()])

    def _gains(self, sizes: np.ndarray, more: int) -> np.ndarray:
        """The decrease of each weight's error if its size grows by `more`; -inf beyond the largest size."""
        at = sizes + more
        inside = at < self.errors.shape[1]
        return np.where(inside, self._errors_at(sizes) - self._errors_at(np.where(inside, at, 0)), -np.inf)

    def _fill(self, sizes: np.ndarray, left: int) -> None:
        """Spend the rest of the budget, in place: repeatedly the fitting move that saves most error per weight."""
        while left > 0:
            best, gains, step = 0.0, np.zeros(0), 0
            for more in range(1, min(left, self.errors.shape[1] - 1) + 1):
                gain = self._gains(sizes, more)
                if gain.max() / more > best:
                    best, gains, step = gain.max() / more, gain, more
            if not best:
                return
            sizes[self._first_row(np.flatnonzero(gains == gains.max()), sizes)] += step
            left -= step

    def _complete(self, sizes: np.ndarray, most: int, error: float) -> np.ndarray | None:
        """`sizes` with one raised by the least number below `most` that meets the budget of error; or None."""
        for more in range(1, most):
            gain = self._gains(sizes, more)
            raised = sizes.copy()
            raised[gain.argmax()] += more
            if gain.max() > 0 and self._total(raised) <= error:
                return raised
        return None

    def _relaxed(self, sizes: np.ndarray, multiplier: float) -> float:
        """The least error + multiplier * kept over all allocations, from sizes that minimise it up to K."""
        lowest = self._errors_at(sizes) + multiplier * sizes
        if self.larger:
            lowest = np.minimum(lowest, multiplier * self.errors.shape[1])
        return math.fsum(lowest)

    def _allocation(self, sizes: np.ndarray, multiplier: float, kept: int) -> Allocation:
        error, total = self._total(sizes), int(sizes.sum())
        spent = kept if multiplier else 0
        bound = max(0.0, self._relaxed(sizes, multiplier) - multiplier * spent)
        return Allocation(sizes, total, error, multiplier, min(bound, error))

    def _error_allocation(self, sizes: np.ndarray, multiplier: float, error: float) -> Allocation:
        total, least = int(sizes.sum()), int(self.kept_at[-1])
        if math.isinf(multiplier):
            return Allocation(sizes, total, self._total(sizes), multiplier, float(least))
        optimal = self._sizes(np.flatnonzero(self.rates >= multiplier))
        bound = (self._relaxed(optimal, multiplier) - error) / multiplier
        # Rounded up to a whole number of weights, but not for a rounding error.
        bound = max(least, math.ceil(bound - 1e-9 * max(1.0, abs(bound))))
        return Allocation(sizes, total, self._total(sizes), multiplier, float(min(bound, total)))


def _errors(residuals: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """importance * residual**2, float64 [P, K + 1], infinite if there is no subset."""
    if residuals.ndim != 2 or 0 in residuals.shape or residuals.dtype.kind != "f":
        raise InputError(
            f"residuals must be floats [P weights, K + 1 sizes], got {residuals.dtype} of shape {residuals.shape}"
        )
    if np.isnan(residuals).any():
        raise InputError("residuals hold NaN; solve these problems again with finite candidates and targets")
    if not np.isfinite(residuals).any(1).all():
        raise InputError("a front has no subset of any size; give each the residual of its empty subset at size 0")
    if importance is None:
        importance = np.ones(len(residuals))
    importance = check_importance(np.asarray(importance))
    if importance.shape != residuals.shape[:1]:
        raise InputError(f"importances must have shape [{len(residuals)}], one per weight, got {importance.shape}")
    known = np.isfinite(residuals)
    errors = np.where(known, residuals, 0.0).astype(np.float64)
    with np.errstate(over="ignore"):
        errors *= errors
        errors *= importance[:, None]
    if not np.isfinite(errors).all():
        raise InputError("importance times squared residual overflows; divide the importances by their largest")
    errors[~known] = np.inf
    return errors


def check_kept(kept: Any) -> int:
    """The budget of kept weights as an int; raises `InputError`."""
    if isinstance(kept, bool) or not isinstance(kept, numbers.Integral) or not 0 <= int(kept) <= _MAX_KEPT:
        raise InputError(f"the budget of kept weights must be a whole number from 0 up, got {kept!r}")
    return int(kept)


def check_error(error: Any) -> float:
    """The budget of error as a float; raises `InputError`."""
    if isinstance(error, bool) or not (isinstance(error, numbers.Real) and math.isfinite(error) and float(error) >= 0):
        raise InputError(f"the budget of error must be a number from 0 up, got {error!r}")
    return float(error)


def check_importance(importance: np.ndarray) -> np.ndarray:
    """Importances as float64; raises `InputError` if one is NaN, infinite or negative."""
    if importance.dtype.kind not in "fiu":
        raise InputError(f"importances must be numbers, got {importance.dtype}")
    wrong = int(np.count_nonzero(~(np.isfinite(importance) & (importance >= 0))))
    if wrong:
        raise InputError(f"{wrong} importances are NaN, infinite or negative; each must be a finite number from 0 up")
    return importance.astype(np.float64)


def _hulls(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The falling part of each front's lower convex hull, as steps in order of weight and size.

    Returns weight, width in kept weights, and error saved per kept weight, [S] each.
    """
    items, widths, rates = [], [], []
    for first in range(0, len(errors), _ROWS):
        width, rate = _hull_rows(np.ascontiguousarray(errors[first : first + _ROWS].T))
        row, step = np.nonzero(width)
        items.append(row + first)
        widths.append(width[row, step])
        rates.append(rate[row, step])
    return np.concatenate(items), np.concatenate(widths), np.concatenate(rates)


def _hull_rows(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widths and rates [R, K] of the hull steps of errors [K + 1, R]: from each corner along the steepest descent."""
    count, rows = errors.shape
    widths, rates = np.zeros((rows, count), np.int64), np.zeros((rows, count))
    left = np.arange(rows)
    at = np.isfinite(errors).argmax(0)
    previous = np.full(rows, np.inf)
    for step in range(count):
        here, columns = errors[at, left], errors[:, left]
        best, to = np.zeros(len(left)), at.copy()
        for size in range(step + 1, count):  # each step went up by at least one size
            ahead = size > at
            rate = np.where(ahead, here - columns[size], 0.0) / np.where(ahead, size - at, 1)
            # The nearest of equally steep points, for short steps.
            better = rate > best
            best, to = np.where(better, rate, best), np.where(better, size, to)
        falls = best > 0
        left, at, to = left[falls], at[falls], to[falls]
        if not len(left):
            break
        # A convex hull never gets steeper; rounding must not change that.
        previous = np.minimum(best[falls], previous[falls])
        widths[left, step], rates[left, step] = to - at, previous
        at = to
    return widths, rates


def _bisect(count: int, holds: Callable[[int], bool]) -> int:
    """The first place in 0..count for which `holds` is true, by bisection; `count` itself is assumed to hold."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
