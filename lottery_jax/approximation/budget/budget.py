"""The goal of a budget: the least error with so many kept weights, or the fewest for so much error.

Every target weight is solved for all sizes of subset up to `k_max` (a Pareto front), and `fronts` then chooses a size
for each, over all tensors at once. No weight is drawn again: one that is badly reached competes with the others for the
budget. So no tolerance is promised beforehand; the ticket records the largest residual that it came to, and its promise
is to keep no more than its budget. The fronts of all weights are in memory when the sizes are chosen: 8 (k_max + 1)
bytes a weight and branch for up to 32 candidates, and some three times as much while the choice is made.
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lottery_jax.approximation.budget.pareto_budget import (
    Choice,
    ParetoFronts,
    check_error,
    check_importance,
    check_kept,
)
from lottery_jax.approximation.job import Chunk, Job, Masks, Objective, ObjectiveResult, Solved
from lottery_jax.approximation.solve_weights import (
    SolverConfig,
    branches_of,
    mask_rows,
    pieces,
    scaled_targets,
    search_blocks,
)
from lottery_jax.constructions.base import Construction, Plan
from lottery_jax.errors import InputError
from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.subset_sum import Pareto
from lottery_jax.subset_sum.engine.grid import MAX_INT32_CANDIDATES
from lottery_jax.subset_sum.problem import words_per_subset

_FLOAT32_STEP = 2.0**-24


@dataclasses.dataclass(frozen=True, eq=False)
class Budget(Objective):
    """At most `kept` weights of the source, first edges of gadgets included, with the least sum_i h_i r_i**2.

    Or, with `error` in place of `kept`, the fewest kept weights for an error of at most that. importance: h >= 0 of
    each weight, by tensor; 1 everywhere if left out. k_max: the largest subset tried for a weight; 6 is enough for
    about one kept weight per target weight.
    """

    kept: int | None = None
    error: float | None = None
    importance: Mapping[str, np.ndarray] | None = None
    k_max: int = 6

    @property
    def suffix(self) -> str:
        return "budget"

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "budget",
            "kept": None if self.kept is None else int(self.kept),
            "error_budget": None if self.error is None else float(self.error),
            "importance": _described(self.importance),
            "k_max": self.k_max,
        }

    def check(self, construction: Construction) -> None:
        if construction.exact or len(construction.objectives) == 1:
            why = "meets every weight exactly" if construction.exact else "says itself which subset is taken"
            raise InputError(
                f"{construction.name} {why}, which leaves nothing to spend a budget on; use pensia, scalar or"
                " scalar-shared"
            )
        if (self.kept is None) == (self.error is None):
            raise InputError(
                "give either kept (a number of weights) or error (a weighted sum of squares) as the budget"
            )
        if self.kept is not None:
            check_kept(self.kept)
        else:
            check_error(self.error)
        if type(self.k_max) is not int:
            raise InputError(f"k_max must be a whole number from 0 up, not {self.k_max!r}")
        self._solver(construction.candidates).check(construction.candidates)

    def check_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        if self.importance is None:
            return
        given = {name: np.shape(values) for name, values in self.importance.items()}
        if given != shapes:
            raise InputError(f"importances must have the names and shapes of the weights, {shapes}, not {given}")
        for values in self.importance.values():
            check_importance(np.asarray(values))

    def _solver(self, candidates: int) -> Pareto:
        return Pareto(min(self.k_max, candidates))

    def solve(self, job: Job, chunk: Chunk) -> Solved:
        plan, targets = job.plans[chunk.plan], scaled_targets(job, chunk)
        fine = plan.candidates <= MAX_INT32_CANDIDATES  # decided from the plan alone: every chunk uses the same grid
        # Nothing depends on this tolerance: the residuals themselves are wanted.
        how = SolverConfig(self._solver(plan.candidates), plan.bound / 1024, "int32" if fine else "int64")
        blocks = chunk.first + np.arange(chunk.count)
        bits, residuals = [], []
        for branch in branches_of(plan):
            found = [search_blocks(job, plan, branch, blocks[p], targets[p], 0, how) for p in pieces(plan, chunk.count)]
            bits.append(np.concatenate([front.bits for front in found]))
            # In the target's own units, so that layers can be compared.
            residuals.append(np.concatenate([front.residuals for front in found]) * plan.gain)
        return {"bits": np.stack(bits).view(np.int32), "residuals": np.stack(residuals)}

    def validation_error(self, job: Job, chunk: Chunk, arrays: Solved) -> str | None:
        plan = job.plans[chunk.plan]
        if set(arrays) != {"bits", "residuals"}:
            return f"the arrays {sorted(arrays)}"
        shape = len(branches_of(plan)), job.chunk_size(chunk), min(self.k_max, plan.candidates) + 1
        fits = arrays["residuals"].shape == shape and arrays["residuals"].dtype.kind == "f"
        fits = (
            fits
            and arrays["bits"].shape == (*shape, words_per_subset(plan.candidates))
            and arrays["bits"].dtype == np.int32
        )
        return None if fits else "fronts of other shapes"

    def chunk_bytes(self, job: Job) -> Callable[[Chunk], int]:
        def size(chunk: Chunk) -> int:
            plan = job.plans[chunk.plan]
            each = (min(self.k_max, plan.candidates) + 1) * (4 + 4 * words_per_subset(plan.candidates))
            return job.chunk_size(chunk) * len(branches_of(plan)) * each

        return size

    def finalise(self, job: Job, solved: Callable[[Chunk], Solved]) -> ObjectiveResult:
        fronts = JobParetoFronts(job, {chunk.number: solved(chunk) for chunk in job.chunks}, self.importance)
        k_max = min(self.k_max, job.construction.candidates)
        hulls = ParetoFronts(fronts.residuals, fronts.importance, larger=k_max < job.construction.candidates)
        if self.kept is not None:
            choice = _within_kept(hulls, self.kept, fronts.edges)
        else:
            assert self.error is not None
            choice = hulls.within_error(self.error)
        settings = {
            "error": choice.error,
            "multiplier": choice.multiplier if math.isfinite(choice.multiplier) else None,
            "error_bound" if self.error is None else "kept_bound": choice.bound,
        }
        return ObjectiveResult(
            fronts.worst(choice.sizes),
            None if self.kept is None else int(self.kept),
            settings,
            lambda chunk: Masks(np.packbits(fronts.mask(chunk, choice.sizes), bitorder="little"), NO_REDRAWS),
        )


class JobParetoFronts:
    """The fronts of all weights of a job, branch by branch within each chunk."""

    def __init__(self, job: Job, chunks: Mapping[int, Solved], importance: Mapping[str, np.ndarray] | None) -> None:
        self.job = job
        self._bits = {n: arrays["bits"].view(np.uint32) for n, arrays in chunks.items()}
        lengths = [math.prod(self._bits[chunk.number].shape[:2]) for chunk in job.chunks]
        self._start = dict(zip((c.number for c in job.chunks), itertools.accumulate(lengths, initial=0), strict=False))
        self.residuals = np.concatenate(
            [
                chunks[chunk.number]["residuals"].reshape(length, -1)
                for chunk, length in zip(job.chunks, lengths, strict=True)
            ]
        )
        self.importance = None if importance is None else self._importance(importance)
        self._groups = {chunk.number: self._group(chunk) for chunk in job.chunks}

    def _importance(self, importance: Mapping[str, np.ndarray]) -> np.ndarray:
        """One importance for each front: the weight's for both its branches, or of [branches, *shape] their own."""
        parts = []
        for chunk in self.job.chunks:
            plan = self.job.plans[chunk.plan]
            rows = _rows(plan, chunk)
            weights = plan.random_tensor.rows // plan.copies
            each = np.asarray(importance[plan.tensor]).reshape(-1, weights)
            each = each[:, np.arange(rows.start, rows.stop) // plan.copies]
            parts.append(np.broadcast_to(each, (len(branches_of(plan)), each.shape[1])).reshape(-1))
        return np.concatenate(parts)

    def _sizes(self, chunk: Chunk, sizes: np.ndarray) -> np.ndarray:
        """The chosen sizes of a chunk, [branches, weights]."""
        branches, weights = self._bits[chunk.number].shape[:2]
        start = self._start[chunk.number]
        return sizes[start : start + branches * weights].reshape(branches, weights)

    def _chosen(self, chunk: Chunk, sizes: np.ndarray) -> np.ndarray:
        """The bits of a chunk, [branches, weights, W]."""
        at = self._sizes(chunk, sizes)[..., None, None]
        return np.take_along_axis(self._bits[chunk.number], at, 2)[:, :, 0]

    def mask(self, chunk: Chunk, sizes: np.ndarray) -> np.ndarray:
        """The mask of a chunk, bool [weights, width]."""
        plan = self.job.plans[chunk.plan]
        rows = np.arange(self.job.chunk_size(chunk)) + chunk.first * plan.random_tensor.rows_per_block
        # A candidate of 0 (a unit of the wrong sign) is in no subset, for without it that is as good.
        return mask_rows(plan, rows, list(self._chosen(chunk, sizes)))

    def _group(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Weights of a chunk in the order of their groups, which groups there are, and where each begins."""
        plan = self.job.plans[chunk.plan]
        if plan.edges is None or plan.group is None:
            return None
        rows = _rows(plan, chunk)
        group = plan.group(np.arange(rows.start, rows.stop))
        order = np.argsort(group, kind="stable")
        return order, *np.unique(group[order], return_index=True)

    def edges(self, sizes: np.ndarray) -> int:
        """How many edges some weight behind them uses."""
        used: dict[int, np.ndarray] = {}
        for chunk in self.job.chunks:
            found = self._groups[chunk.number]
            if found is None:
                continue
            order, groups, first = found
            chosen = self._chosen(chunk, sizes)
            plan = self.job.plans[chunk.plan]
            table = used.setdefault(
                chunk.plan, np.zeros((len(plan.branches), len(plan.branches[0].slots), chosen.shape[2]), np.uint32)
            )
            # The branches use different units: no unit's first weight has both signs.
            table[:, groups] |= np.bitwise_or.reduceat(chosen[:, order], first, axis=1)
        return sum(int(np.bitwise_count(table).sum()) for table in used.values())

    def worst(self, sizes: np.ndarray) -> float:
        """The largest residual, rounded up: a tolerance that is kept in exact arithmetic too."""
        margins = [
            np.full(
                math.prod(self._bits[chunk.number].shape[:2]),
                plan.gain * plan.bound * plan.candidates * _FLOAT32_STEP,
            )
            for chunk in self.job.chunks
            for plan in (self.job.plans[chunk.plan],)
        ]
        chosen = np.abs(self.residuals[np.arange(len(sizes)), sizes].astype(np.float64))
        empty = (sizes == 0) & (chosen == 0)  # a weight of 0 that keeps nothing has no rounding
        return rounded_up(float(np.where(empty, 0.0, chosen + np.concatenate(margins)).max()))


def _rows(plan: Plan, chunk: Chunk) -> slice:
    """The weights of a chunk among those of its tensor."""
    return slice(
        chunk.first * plan.random_tensor.rows_per_block, (chunk.first + chunk.count) * plan.random_tensor.rows_per_block
    )


def _within_kept(fronts: ParetoFronts, kept: int, first_edges: Callable[[np.ndarray], int]) -> Choice:
    """The choice whose subsets and first edges together keep at most `kept`."""
    choice = fronts.within_kept(kept)
    bound = choice.bound  # first edges only take from the budget
    if choice.kept + first_edges(choice.sizes) <= kept:
        return choice
    # A budget of the subsets that leaves room for the first edges they use, where one more would not; 0 uses none.
    low, high, middle = 0, kept, kept - first_edges(choice.sizes)
    choice = fronts.within_kept(low)
    for turn in itertools.count():
        if high - low <= 1:
            break
        middle = min(max(middle, low + 1), high - 1)
        tried = fronts.within_kept(middle)
        total = tried.kept + first_edges(tried.sizes)
        if total <= kept:
            low, choice = middle, tried
        else:
            high = middle
        if total == kept:
            break
        # Nearly as many more fit as are left over; every third time by halves, so that it ends soon in any case.
        middle = (low + high) // 2 if turn % 3 == 2 else middle + kept - total
    return Choice(choice.sizes, choice.kept, choice.error, choice.multiplier, bound)


def _described(importance: Mapping[str, np.ndarray] | None) -> str:
    if importance is None:
        return "uniform"
    digest = hashlib.sha256()
    for name in sorted(importance):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(importance[name], np.float64).tobytes())
    return f"given (sha256 {digest.hexdigest()[:16]})"


def rounded_up(residual: float) -> float:
    """To three digits, never down; above zero, as every tolerance must be.

    >>> rounded_up(0.46410001), rounded_up(0.0) == 2.0**-149
    (0.465, True)
    """
    if residual == 0:
        return 2.0**-149
    digits = 2 - math.floor(math.log10(residual))
    rounded = round(residual, digits)
    return rounded if rounded >= residual else round(rounded + 10.0**-digits, digits)
