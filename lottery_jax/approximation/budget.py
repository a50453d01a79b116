"""The objective with a budget: the least error with N kept weights, or the fewest kept weights within an error.

Each target weight is solved for all subset sizes up to `k_max` (its Pareto front), and `allocation` then chooses one
size per weight over all tensors. Nothing is redrawn. The ticket records its largest residual, and guarantees its
budget. The fronts of all weights are in memory during the allocation.
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lottery_jax.approximation.allocation import Allocation, ParetoFronts, check_error, check_importance, check_kept
from lottery_jax.approximation.job import Chunk, ChunkMasks, ChunkResult, Job, Objective, ObjectiveResult
from lottery_jax.approximation.solve_weights import (
    FLOAT32_STEP,
    SolverConfig,
    scaled_targets,
    solve_blocks,
    split_blocks,
    subsets_to_mask,
)
from lottery_jax.constructions.base import Construction
from lottery_jax.errors import InputError
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.subset_sum import Pareto
from lottery_jax.subset_sum.engine.grid import MAX_INT32_CANDIDATES
from lottery_jax.subset_sum.problem import words_per_subset


@dataclasses.dataclass(frozen=True, eq=False)
class Budget(Objective):
    """The least sum_i h_i r_i**2 with at most `kept` weights, or the fewest kept weights with at most `error`.

    Args:
        kept: Budget of kept weights, including the first edges of gadgets.
        error: Budget of the weighted sum of squared residuals.
        importance: Importance h >= 0 of each weight, by tensor; default 1.
        k_max: Largest subset of a weight; 6 is enough for about one kept weight per target weight.
    """

    kept: int | None = None
    error: float | None = None
    importance: Mapping[str, np.ndarray] | None = None
    k_max: int = 6

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "budget",
            "kept": None if self.kept is None else int(self.kept),
            "error_budget": None if self.error is None else float(self.error),
            "importance": _digest(self.importance),
            "k_max": self.k_max,
        }

    def check(self, construction: Construction) -> "Budget":
        if construction.exact or len(construction.objectives) == 1:
            why = "meets every weight exactly" if construction.exact else "prescribes the subset of each weight"
            raise InputError(
                f"{construction.name} {why}, so that a budget has no choice; use pensia, scalar or scalar-shared"
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
            raise InputError(f"k_max must be a whole number from 0 up, got {self.k_max!r}")
        Pareto(min(self.k_max, construction.candidates)).check(construction.candidates)
        return self

    def check_source(self, construction: Construction, network: Network) -> None:
        if self.importance is None:
            return
        shapes = {name: np.shape(values) for name, values in self.importance.items()}
        if shapes != network.approximated:
            raise InputError(
                f"importances must have the names and shapes of the weights, {network.approximated}, got {shapes}"
            )
        for values in self.importance.values():
            check_importance(np.asarray(values))

    def solve_chunk(self, job: Job, chunk: Chunk) -> ChunkResult:
        """The Pareto fronts of a chunk: bits [branches, weights, K + 1, W] and residuals [branches, weights, K + 1]."""
        problem, targets = chunk.problem, scaled_targets(job, chunk)
        narrow = problem.candidates <= MAX_INT32_CANDIDATES  # from the problem alone: every chunk uses the same grid
        # The results do not depend on this tolerance, because all residuals are returned.
        solver = Pareto(min(self.k_max, problem.candidates))
        config = SolverConfig(solver, problem.bound / 1024, "int32" if narrow else "int64")
        blocks, parts = chunk.first + np.arange(chunk.count), split_blocks(chunk)
        bits, residuals = [], []
        for branch in problem.branches:
            fronts = [solve_blocks(job, problem, branch, blocks[p], targets[p], 0, config) for p in parts]
            bits.append(np.concatenate([front.bits for front in fronts]))
            # In the target's own units, so that layers are comparable.
            residuals.append(np.concatenate([front.residuals for front in fronts]) * problem.gain)
        return {"bits": np.stack(bits).view(np.int32), "residuals": np.stack(residuals)}

    def validation_error(self, chunk: Chunk, arrays: ChunkResult) -> str | None:
        if set(arrays) != {"bits", "residuals"}:
            return f"the arrays {sorted(arrays)}"
        candidates = chunk.problem.candidates
        shape = len(chunk.problem.branches), chunk.weights, min(self.k_max, candidates) + 1
        bits, residuals = arrays["bits"], arrays["residuals"]
        fits = residuals.shape == shape and residuals.dtype.kind == "f"
        fits = fits and bits.shape == (*shape, words_per_subset(candidates)) and bits.dtype == np.int32
        return None if fits else "fronts of other shapes"

    def result_bytes(self, chunk: Chunk) -> int:
        candidates = chunk.problem.candidates
        per_front = (min(self.k_max, candidates) + 1) * (4 + 4 * words_per_subset(candidates))
        return chunk.weights * len(chunk.problem.branches) * per_front

    def finalise(self, job: Job, read: Callable[[Chunk], ChunkResult]) -> ObjectiveResult:
        fronts = JobFronts(job, read, self.importance)
        k_max = min(self.k_max, job.construction.candidates)
        hulls = ParetoFronts(fronts.residuals, fronts.importance, larger=k_max < job.construction.candidates)
        if self.kept is not None:
            allocation = _within_kept(hulls, self.kept, fronts.count_edges)
        else:
            assert self.error is not None
            allocation = hulls.within_error(self.error)
        settings = {
            "error": allocation.error,
            "multiplier": allocation.multiplier if math.isfinite(allocation.multiplier) else None,
            "error_bound" if self.error is None else "kept_bound": allocation.bound,
        }
        return ObjectiveResult(
            fronts.largest_residual(allocation.sizes),
            None if self.kept is None else int(self.kept),
            settings,
            lambda chunk: ChunkMasks(np.packbits(fronts.mask(chunk, allocation.sizes), bitorder="little"), NO_REDRAWS),
        )


class JobFronts:
    """The Pareto fronts of all weights of a job, in the order chunk, branch, weight.

    Args:
        importance: By tensor: of each weight, [*shape], or for each branch, [branches, *shape]; default 1.
    """

    def __init__(
        self, job: Job, read: Callable[[Chunk], ChunkResult], importance: Mapping[str, np.ndarray] | None
    ) -> None:
        self.chunks = job.chunks
        self._bits: dict[int, np.ndarray] = {}
        self._start: dict[int, int] = {}
        self._edge_groups: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        residuals, importances, start = [], [], 0
        for chunk in job.chunks:
            arrays, problem = read(chunk), chunk.problem
            self._bits[chunk.number], self._start[chunk.number] = arrays["bits"].view(np.uint32), start
            residuals.append(arrays["residuals"].reshape(-1, arrays["residuals"].shape[-1]))
            start += len(residuals[-1])
            if importance is not None:
                weights = problem.random_tensor.rows // problem.copies
                values = np.asarray(importance[problem.tensor]).reshape(-1, weights)[:, chunk.rows // problem.copies]
                importances.append(np.broadcast_to(values, (len(problem.branches), chunk.weights)).reshape(-1))
            if problem.edge_tensor is not None:
                self._edge_groups[chunk.number] = problem.sort_by_group(chunk.rows)
        self.residuals = np.concatenate(residuals)
        self.importance = None if importance is None else np.concatenate(importances)

    def _chosen(self, chunk: Chunk, sizes: np.ndarray) -> np.ndarray:
        """The bits of a chunk's subsets of these sizes, [branches, weights, W]."""
        bits, start = self._bits[chunk.number], self._start[chunk.number]
        branches, weights = bits.shape[:2]
        own = sizes[start : start + branches * weights].reshape(branches, weights, 1, 1)
        return np.take_along_axis(bits, own, 2)[:, :, 0]

    def mask(self, chunk: Chunk, sizes: np.ndarray) -> np.ndarray:
        """The mask of a chunk, bool [weights, width]."""
        # No subset has a candidate of 0 (a unit of the other sign), because without it the sum is the same.
        return subsets_to_mask(chunk.problem, chunk.rows, list(self._chosen(chunk, sizes)))

    def count_edges(self, sizes: np.ndarray) -> int:
        """Number of first edges that the subsets use."""
        used: dict[str, np.ndarray] = {}
        for chunk in self.chunks:
            if chunk.number not in self._edge_groups:
                continue
            order, groups, first = self._edge_groups[chunk.number]
            chosen, branches = self._chosen(chunk, sizes), chunk.problem.branches
            assert branches[0] is not None
            shape = len(branches), len(branches[0].indices), chosen.shape[2]
            table = used.setdefault(chunk.problem.tensor, np.zeros(shape, np.uint32))
            # The branches use different units: no first weight has both signs.
            table[:, groups] |= np.bitwise_or.reduceat(chosen[:, order], first, axis=1)
        return sum(int(np.bitwise_count(table).sum()) for table in used.values())

    def largest_residual(self, sizes: np.ndarray) -> float:
        """The largest residual, rounded up so that it is a tolerance in exact arithmetic, too."""
        margins = np.zeros(len(sizes))
        for chunk in self.chunks:
            problem, start = chunk.problem, self._start[chunk.number]
            stop = start + len(problem.branches) * chunk.weights
            margins[start:stop] = problem.gain * problem.bound * problem.candidates * FLOAT32_STEP
        chosen = np.abs(self.residuals[np.arange(len(sizes)), sizes].astype(np.float64))
        empty = (sizes == 0) & (chosen == 0)  # a weight of 0 without a subset has no rounding
        return rounded_up(float(np.where(empty, 0.0, chosen + margins).max()))


def _within_kept(fronts: ParetoFronts, kept: int, count_edges: Callable[[np.ndarray], int]) -> Allocation:
    """The allocation whose subsets and first edges together keep at most `kept`."""
    allocation = fronts.within_kept(kept)
    bound = allocation.bound  # first edges only reduce the budget of the subsets
    if allocation.kept + count_edges(allocation.sizes) <= kept:
        return allocation
    # Search the largest budget of the subsets that leaves room for the first edges that they use.
    low, high, middle = 0, kept, kept - count_edges(allocation.sizes)
    allocation = fronts.within_kept(low)
    for step in itertools.count():
        if high - low <= 1:
            break
        middle = min(max(middle, low + 1), high - 1)
        tried = fronts.within_kept(middle)
        total = tried.kept + count_edges(tried.sizes)
        if total <= kept:
            low, allocation = middle, tried
        else:
            high = middle
        if total == kept:
            break
        # Add the rest of the budget; every third step bisects, which bounds the number of steps.
        middle = (low + high) // 2 if step % 3 == 2 else middle + kept - total
    return Allocation(allocation.sizes, allocation.kept, allocation.error, allocation.multiplier, bound)


def _digest(importance: Mapping[str, np.ndarray] | None) -> str:
    if importance is None:
        return "uniform"
    digest = hashlib.sha256()
    for name in sorted(importance):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(importance[name], np.float64).tobytes())
    return f"given (sha256 {digest.hexdigest()[:16]})"


def rounded_up(residual: float) -> float:
    """A residual rounded up to three digits, and above zero as every tolerance must be.

    >>> rounded_up(0.46410001), rounded_up(0.0) == 2.0**-149
    (0.465, True)
    """
    if residual == 0:
        return 2.0**-149
    digits = 2 - math.floor(math.log10(residual))
    rounded = round(residual, digits)
    return rounded if rounded >= residual else round(rounded + 10.0**-digits, digits)
