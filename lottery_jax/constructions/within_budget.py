"""`approximate_within_budget`: the ticket of least error with so many kept weights, or of fewest for so much error.

Every target weight is solved for all sizes of subset up to `k_max` (a Pareto front), and `budget` then chooses a size
for each, over all layers at once. No weight is drawn again: one that is badly reached competes with the others for the
budget. So the ticket promises no tolerance beforehand; it records the largest residual that it came to, and its promise
is to keep no more than its budget, which `verify` checks.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from lottery_jax.certificate import verify
from lottery_jax.constructions.approximate import check_target, plans, source_architecture
from lottery_jax.constructions.budget import Choice, Fronts
from lottery_jax.constructions.plan import Plan
from lottery_jax.constructions.solve_layer import CHUNK, empty_mask, layer_problems, scatter
from lottery_jax.errors import InputError
from lottery_jax.networks.architecture import Gadget, SourceTensor, source_tensors
from lottery_jax.subset_sum import Pareto, Problem, solve, unpack_bits
from lottery_jax.subset_sum.engine.grid import NARROW_CANDIDATES
from lottery_jax.ticket import Ticket

K_MAX = 6
"""Largest subset tried for a weight: enough for budgets of about one kept weight per target weight."""


def approximate_within_budget(
    weights: Sequence[np.ndarray],
    *,
    seed: int,
    kept: int | None = None,
    error: float | None = None,
    importance: Sequence[np.ndarray] | None = None,
    construction: str = "pensia",
    candidates: int = 21,
    k_max: int = K_MAX,
    nonnegative: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Ticket:
    """Find the ticket of least error sum_i h_i r_i**2 that keeps at most `kept` weights of its source.

    Or, with `error` in place of `kept`, the fewest kept weights for an error of at most that. importance: h >= 0,
    [I, O] of each layer; 1 everywhere if left out (`fisher_importance` gives another). The rest is as in
    `TargetFronts`, which serves several budgets at the cost of one.

    >>> from lottery_jax.certificate import verify
    >>> weights = [np.array([[0.3], [-0.2]], np.float32)]
    >>> ticket = approximate_within_budget(weights, seed=0, kept=5, candidates=8, k_max=3)
    >>> verify(ticket).kept_weights <= 5, verify(ticket).holds
    (True, True)
    """
    if (kept is None) == (error is None):
        raise InputError("give either kept (a number of weights) or error (a weighted sum of squares) as the budget")
    fronts = TargetFronts(
        weights,
        seed=seed,
        construction=construction,
        candidates=candidates,
        k_max=k_max,
        nonnegative=nonnegative,
        progress=progress,
    )
    return fronts.ticket(kept=kept, error=error, importance=importance)


class TargetFronts:
    """The Pareto fronts of all weights [I, O] of a bias-free ReLU network, from which `ticket` makes tickets.

    seed, construction, candidates, nonnegative and progress are as in `approximate`. k_max: the largest subset tried
    for a weight. Memory: 8 (k_max + 1) bytes a weight, for up to 32 candidates, and as much again in `ticket`.
    """

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        *,
        seed: int,
        construction: str = "pensia",
        candidates: int = 21,
        k_max: int = K_MAX,
        nonnegative: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        check_target(weights, construction, candidates, tolerance=1.0, max_redraws=0)
        self.weights = tuple(np.asarray(weight, np.float32) for weight in weights)
        self.seed, self.construction, self.candidates = seed, construction, candidates
        self.architecture = source_architecture(weights, construction, candidates, nonnegative)
        self.planned = list(plans(self.architecture, weights, seed))
        self.solver = Pareto(min(k_max, candidates))
        self.bits, self.residuals = _solve(self.planned, self.solver, seed, progress)

    def ticket(
        self, *, kept: int | None = None, error: float | None = None, importance: Sequence[np.ndarray] | None = None
    ) -> Ticket:
        """The ticket within one budget; `approximate_within_budget` says what kept, error and importance are.

        How near to the optimum it is stands in its settings: the `error` it has, and the `error_bound` below which no
        subsets of any size come. The first edges of a gadget are shared by its outputs. They count in `kept`, but
        which of them are used is not optimised, so there the bound is not always reached; `error` minimises the
        second edges alone.
        """
        if (kept is None) == (error is None):
            raise InputError("give either kept (a number of weights) or error (a weighted sum of squares)")
        fronts = Fronts(
            self.residuals,
            _importances(self.planned, self.weights, importance),
            larger=self.solver.k_max < self.candidates,
        )
        if kept is not None:
            choice = _within_kept(fronts, kept, self._first_edges)
        else:
            assert error is not None
            choice = fronts.within_error(error)
        settings = {
            "construction": self.construction,
            "candidates": self.candidates,
            "objective": "budget",
            "solver": repr(self.solver),
            "importance": _described(importance),
            "error": choice.error,
            "error_budget": error,
            "multiplier": choice.multiplier if math.isfinite(choice.multiplier) else None,
            "error_bound" if error is None else "kept_bound": choice.bound,
        }
        masks = self._masks(choice.sizes)
        redraws = {f"{place}.first": plan.redraws for place, (_, plan) in enumerate(self.planned) if len(plan.redraws)}

        def made(tolerance: float) -> Ticket:
            name = f"{self.construction}-budget"
            return Ticket(self.architecture, self.seed, masks, name, redraws, self.weights, tolerance, settings, kept)

        worst = verify(made(math.inf)).worst_residual
        assert worst is not None
        return made(_rounded_up(worst))

    def _chosen(self, sizes: np.ndarray) -> np.ndarray:
        return self.bits[np.arange(len(sizes)), sizes]

    def _first_edges(self, sizes: np.ndarray) -> int:
        """How many first edges of gadgets some output uses."""
        bits, at, total = self._chosen(sizes), 0, 0
        for _, plan in self.planned:
            inputs, outputs = plan.weights.shape
            shape = len(plan.slots), inputs, outputs
            if isinstance(plan.layer, Gadget):
                # The branches use different units: no unit's first weight has both signs.
                part = bits[at : at + math.prod(shape)].reshape(*shape, -1)
                total += int(np.bitwise_count(np.bitwise_or.reduce(part, axis=2)).sum())
            at += math.prod(shape)
        return total

    def _masks(self, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """All masks; a candidate of 0 (a unit of the wrong sign) is in no subset, for without it that is as good."""
        subsets, masks, at = unpack_bits(self._chosen(sizes), self.candidates), {}, 0
        for place, (tensor, plan) in enumerate(self.planned):
            count = plan.weights.size
            parts = [subsets[at + branch * count :][:count] for branch in range(len(plan.slots))]
            at += len(parts) * count
            masks[tensor.name] = empty_mask(plan)
            scatter(masks[tensor.name], plan, np.arange(count), parts)
            if isinstance(plan.layer, Gadget):
                masks[f"{place}.first"] = masks[tensor.name].any(2)
        return {tensor.name: masks[tensor.name] for tensor in source_tensors(self.architecture)}


def _solve(
    planned: Sequence[tuple[SourceTensor, Plan]],
    solver: Pareto,
    seed: int,
    progress: Callable[[int], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bits [F, K + 1, W] and residuals [F, K + 1] of all fronts, layer by layer, and branch by branch within one."""
    candidates = planned[0][1].slots.shape[2]
    fine = candidates <= NARROW_CANDIDATES  # decided from the plan alone, so that every chunk uses the same grid
    count = sum(len(plan.slots) * plan.weights.size for _, plan in planned)
    bits = np.empty((count, solver.k_max + 1, (candidates + 31) // 32), np.uint32)
    residuals = np.empty(bits.shape[:2], np.float32 if fine else np.float64)
    at = 0
    for tensor, plan in planned:
        for branch in range(len(plan.slots)):
            for start in range(0, plan.weights.size, CHUNK):
                index = np.arange(start, min(start + CHUNK, plan.weights.size))
                drawn, wanted = layer_problems(plan, tensor.sampler, branch, index, stream=tensor.stream, seed=seed)
                # Nothing depends on this tolerance: the residuals themselves are wanted.
                problem = Problem(drawn, wanted, plan.bound / 1024)
                report = progress if branch == 0 else None
                front = solve(problem, solver, grid="int32" if fine else "int64", progress=report)
                part = slice(at, at + len(index))
                bits[part] = front.bits
                # In the target's own units, so that layers can be compared.
                residuals[part] = front.residuals * plan.layer.gain
                at += len(index)
    return bits, residuals


def _importances(
    planned: Sequence[tuple[SourceTensor, Plan]],
    weights: Sequence[np.ndarray],
    importance: Sequence[np.ndarray] | None,
) -> np.ndarray | None:
    """One importance for each front; both branches of a weight have the weight's."""
    if importance is None:
        return None
    given, wanted = ([np.shape(layer) for layer in layers] for layers in (importance, weights))
    if given != wanted:
        raise InputError(f"importances must have the shapes of the weights, {wanted}, not {given}")
    each = [
        np.tile(np.asarray(layer).reshape(-1), len(plan.slots))
        for layer, (_, plan) in zip(importance, planned, strict=True)
    ]
    return np.concatenate(each)


def _within_kept(fronts: Fronts, kept: int, first_edges: Callable[[np.ndarray], int]) -> Choice:
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


def _described(importance: Sequence[np.ndarray] | None) -> str:
    if importance is None:
        return "uniform"
    digest = hashlib.sha256()
    for layer in importance:
        digest.update(np.ascontiguousarray(layer, np.float64).tobytes())
    return f"given (sha256 {digest.hexdigest()[:16]})"


def _rounded_up(residual: float) -> float:
    """To three digits, never down; above zero, as every tolerance must be.

    >>> _rounded_up(0.46410001), _rounded_up(0.0) == 2.0**-149
    (0.465, True)
    """
    if residual == 0:
        return 2.0**-149
    digits = 2 - math.floor(math.log10(residual))
    rounded = round(residual, digits)
    return rounded if rounded >= residual else round(rounded + 10.0**-digits, digits)
