"""Spend one budget over many Pareto fronts: which size of subset each weight gets.

Weight i with importance h_i has, for each size k, a least residual r_i(k); its error is e_i(k) = h_i r_i(k)**2. Wanted
are sizes k_i of least total error with sum k_i <= kept, or of least total size with sum e_i(k_i) <= error. For one
multiplier m every weight minimises e_i(k) + m k on its own, and that minimum lies on the lower convex hull of its
front. So the hulls' slopes are the only multipliers that matter, and a bisection over them finds the one where the
budget lies (Everett 1963; Shoham and Gersho 1988 for bits instead of weights).

What is optimal: totals that a multiplier reaches exactly are optimal, for no sizes at all with that total are better.
Between two of them the problem is a knapsack. There the hull steps of equal slope are taken first, the widest that fit,
and the rest of the budget is spent greedily on the best move that fits, on or off the hull. Ties are broken by the
errors of the fronts, so that the order of the weights changes no total. A larger budget never gives a larger error, and
`bound` says how far from the optimum the answer can be at most.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from lottery_jax.errors import InputError

_ROWS = 1 << 13  # fronts whose hulls are found at a time, so that their errors stay in cache

_MAX_KEPT = 2**62


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """One size per weight, and what they come to.

    sizes: int64 [P]. kept: their sum. error: total weighted squared error. multiplier: what one more kept weight is
    worth there, in error. bound: no choice within the budget has a smaller error (of an error budget: keeps fewer).
    """

    sizes: np.ndarray
    kept: int
    error: float
    multiplier: float
    bound: float


class ParetoFronts:
    """P Pareto fronts with their importances, ready to be given budgets.

    residuals: [P, K + 1], the least residual of subsets of exactly k candidates (its sign does not matter), infinite
    where there is none. importance: [P], finite and not negative, 1 for all if left out. larger: sizes beyond K exist
    and are merely unknown; the bound then allows for residuals of 0 there. Holds P (K + 1) floats and the hulls,
    three numbers a step. Raises `InputError` for NaN, for a front without any subset, and for shapes that do not fit.

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
        """Every multiplier at which a choice changes, ascending."""
        added = np.bincount(at, self.widths, len(self.breakpoints)).astype(np.int64)
        self.kept_at = int(self.start.sum()) + np.append(np.cumsum(added[::-1])[::-1], 0)
        """What all steps of at least each breakpoint keep, and what none keeps."""

    def within_kept(self, kept: int) -> Choice:
        """The sizes of least total error whose sum is at most `kept`; raises `InputError`."""
        kept = check_kept(kept)
        least = int(self.start.sum())
        if least > kept:
            raise InputError(
                f"no choice keeps only {kept} weights: the smallest subsets have {least}; raise the budget"
            )
        place = _first(
            len(self.breakpoints),
            lambda place: least + int(self.widths[self.rates >= self.breakpoints[place]].sum()) <= kept,
        )
        sizes = self._sizes(self._reached(place))
        if place == 0:
            return self._choice(sizes, 0.0, kept)
        multiplier = float(self.breakpoints[place - 1])
        reached = self._choice(sizes, multiplier, kept)
        tied = np.flatnonzero(self.rates == multiplier)
        self._take_tied(tied, sizes, kept - reached.kept)
        self._fill(sizes, kept - int(sizes.sum()))
        padded_group = self._choice(sizes, multiplier, kept)
        return dataclasses.replace(padded_group, bound=min(reached.bound, padded_group.error))

    def within_error(self, error: float) -> Choice:
        """The sizes of least sum whose total error is at most `error`; raises `InputError`."""
        error = check_error(error)
        least = self._total(self._sizes(self._reached(0)))
        if least > error:
            raise InputError(f"no choice has a total error within {error}: the least is {least}; raise the budget")
        # The total grows with the multiplier in floating point too: it is rounded once, after an exact sum.
        count = len(self.breakpoints)
        place = _first(count + 1, lambda place: self._total(self._sizes(self._reached(place))) > error) - 1
        sizes = self._sizes(self._reached(place))
        if place == count:
            return self._error_choice(sizes, math.inf, error)
        # Without the ties at this multiplier the error is above the budget; fewest of them, then a shorter last step.
        multiplier = float(self.breakpoints[place])
        tied = np.flatnonzero(self.rates == multiplier)
        rows = self.items[tied]
        if rows[0] != rows[-1]:  # the sort is stable, so the steps of one weight stay in order
            _, inverse = np.unique(rows, return_inverse=True)
            tied = tied[self._ranked(rows, np.bincount(inverse, self.widths[tied])[inverse])]
        before = self._sizes(self._reached(place + 1))
        needed = _first(len(tied), lambda steps: self._total(self._sizes(tied[:steps], before)) <= error)
        full, part = (self._sizes(tied[:steps], before) for steps in (needed, needed - 1))
        found = self._complete(part, int(full.sum() - part.sum()), error)
        return self._error_choice(full if found is None else found, multiplier, error)

    def _reached(self, place: int) -> np.ndarray:
        """Steps of at least the breakpoint at `place`: all for 0, none beyond the last."""
        if place == len(self.breakpoints):
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.rates >= self.breakpoints[place])

    def _sizes(self, steps: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        added = np.bincount(self.items[steps], self.widths[steps], len(self.start))
        return (self.start if before is None else before) + added.astype(np.int64)

    def _each(self, sizes: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.errors, sizes[:, None], 1)[:, 0]

    def _total(self, sizes: np.ndarray) -> float:
        return math.fsum(self._each(sizes))

    def _ranked(self, rows: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """The order of tied steps of `rows`: the widest first, then by the errors of their fronts."""
        return np.lexsort((*self.errors[rows].T[::-1], -widths))

    def _take_tied(self, tied: np.ndarray, sizes: np.ndarray, left: int) -> None:
        """Add steps of equal slope, in place: again and again the widest rise of one weight that fits."""
        rows, widths = self.items[tied], self.widths[tied]
        ends = np.cumsum(widths)
        # A weight with several of these steps, which are neighbours, rises by the first one, the first two, ...
        rises = ends - (ends - widths)[np.searchsorted(rows, rows)]
        # It rises once at most: had a second rise fitted, so had the two as one, which is wider.
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

    def _first_of(self, rows: np.ndarray, sizes: np.ndarray) -> int:
        """Of some weights the one whose errors, then size, come first: no other order of the weights changes which."""
        for size in range(self.errors.shape[1]):
            if len(rows) == 1:
                break
            column = self.errors[rows, size]
            rows = rows[column == column.min()]
        return int(rows[sizes[rows].argmin()])

    def _fill(self, sizes: np.ndarray, left: int) -> None:
        """Spend what is left, in place: again and again the move of most error per kept weight that fits."""
        rows = np.arange(len(sizes))
        while left > 0:
            best, gains, step = 0.0, np.zeros(0), 0
            here = self._each(sizes)
            for more in range(1, min(left, self.errors.shape[1] - 1) + 1):
                at = sizes + more
                inside = at < self.errors.shape[1]
                gain = np.where(inside, here - self.errors[rows, np.where(inside, at, 0)], 0.0)
                if gain.max() / more > best:
                    best, gains, step = gain.max() / more, gain, more
            if not best:
                return
            sizes[self._first_of(np.flatnonzero(gains == gains.max()), sizes)] += step
            left -= step

    def _complete(self, sizes: np.ndarray, most: int, error: float) -> np.ndarray | None:
        """`sizes` with one weight's raised by as little as brings the error within its budget, below `most`."""
        here, rows = self._each(sizes), np.arange(len(sizes))
        for more in range(1, most):
            at = sizes + more
            inside = at < self.errors.shape[1]
            gain = np.where(inside, here - self.errors[rows, np.where(inside, at, 0)], -np.inf)
            raised = sizes.copy()
            raised[gain.argmax()] += more
            if gain.max() > 0 and self._total(raised) <= error:
                return raised
        return None

    def _relaxed(self, sizes: np.ndarray, multiplier: float) -> float:
        """The least of error + multiplier * kept over all choices, from sizes that minimise it up to K."""
        lowest = self._each(sizes) + multiplier * sizes
        if self.larger:
            lowest = np.minimum(lowest, multiplier * self.errors.shape[1])
        return math.fsum(lowest)

    def _choice(self, sizes: np.ndarray, multiplier: float, kept: int) -> Choice:
        error, total = self._total(sizes), int(sizes.sum())
        spent = kept if multiplier else 0
        bound = max(0.0, self._relaxed(sizes, multiplier) - multiplier * spent)
        return Choice(sizes, total, error, multiplier, min(bound, error))

    def _error_choice(self, sizes: np.ndarray, multiplier: float, error: float) -> Choice:
        total, least = int(sizes.sum()), int(self.kept_at[-1])
        if math.isinf(multiplier):
            return Choice(sizes, total, self._total(sizes), multiplier, float(least))
        optimal = self._sizes(np.flatnonzero(self.rates >= multiplier))
        bound = (self._relaxed(optimal, multiplier) - error) / multiplier
        # Rounded up to a whole number of weights, but not for a rounding error.
        bound = max(least, math.ceil(bound - 1e-9 * max(1.0, abs(bound))))
        return Choice(sizes, total, self._total(sizes), multiplier, float(min(bound, total)))


def _errors(residuals: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """importance * residual**2, float64 [P, K + 1], infinite where there is no subset."""
    if residuals.ndim != 2 or 0 in residuals.shape or residuals.dtype.kind != "f":
        raise InputError(
            f"residuals must be floats [P weights, K + 1 sizes], not {residuals.dtype} of shape {residuals.shape}"
        )
    if np.isnan(residuals).any():
        raise InputError("residuals hold NaN; solve these problems again with finite candidates and targets")
    if not np.isfinite(residuals).any(1).all():
        raise InputError("a front has no subset of any size; give each the residual of its empty subset at size 0")
    if importance is None:
        importance = np.ones(len(residuals))
    importance = check_importance(np.asarray(importance))
    if importance.shape != residuals.shape[:1]:
        raise InputError(f"importances must have shape [{len(residuals)}], one per weight, not {importance.shape}")
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
    """A budget of kept weights as it is, or `InputError`."""
    if isinstance(kept, bool) or not isinstance(kept, numbers.Integral) or not 0 <= int(kept) <= _MAX_KEPT:
        raise InputError(f"the budget of kept weights must be a whole number from 0 up, not {kept!r}")
    return int(kept)


def check_error(error: Any) -> float:
    """A budget of error as it is, or `InputError`."""
    if isinstance(error, bool) or not (isinstance(error, numbers.Real) and math.isfinite(error) and float(error) >= 0):
        raise InputError(f"the budget of error must be a number from 0 up, not {error!r}")
    return float(error)


def check_importance(importance: np.ndarray) -> np.ndarray:
    """Importances as float64; raises `InputError` where one is NaN, infinite or negative."""
    if importance.dtype.kind not in "fiu":
        raise InputError(f"importances must be numbers, not {importance.dtype}")
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
    """Widths and rates [R, K] of the hull steps of errors [K + 1, R]: from each corner on along the steepest fall."""
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
            # The nearest of equally steep points, so that steps are as short as can be.
            better = rate > best
            best, to = np.where(better, rate, best), np.where(better, size, to)
        falls = best > 0
        left, at, to = left[falls], at[falls], to[falls]
        if not len(left):
            break
        # Convexity says that it is no steeper than the step before; rounding must not say otherwise.
        previous = np.minimum(best[falls], previous[falls])
        widths[left, step], rates[left, step] = to - at, previous
        at = to
    return widths, rates


def _first(count: int, holds: Callable[[int], bool]) -> int:
    """The first place in 0..count where `holds`, by bisection; `count` itself is taken to hold."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
