"""The usual goal: every weight within a tolerance, at the least error or with the fewest kept.

Lossless tickets: every weight within half the last float32 bit of the largest weight in its tensor.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from lottery_jax.approximation.job import Chunk, Job, Masks, Objective, ObjectiveResult, Solved
from lottery_jax.approximation.solve_weights import (
    SolverConfig,
    branches_of,
    how_to_promise,
    how_to_promise_directly,
    mask_rows,
    on_host,
    padded,
    pieces,
    scaled_targets,
    search_blocks,
    with_locked,
)
from lottery_jax.constructions.base import Construction, Plan
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS
from lottery_jax.subset_sum import Randomized, Solution, Solver
from lottery_jax.tickets.header import check_tolerance

OBJECTIVES = {
    "least-error": "Of each weight's subsets the nearest.",
    "smallest": "Of each weight's subsets within the tolerance the one that keeps the fewest.",
    "first": "Of each weight's subsets within the tolerance the first by size and lexicographically.",
}
"""What is asked of the subsets, by name, in words."""

_QUICK = 24  # candidates up to which a weight takes microseconds

_TRIED = 8  # weights that tell what the others will take


@dataclasses.dataclass(frozen=True)
class ToleranceObjective(Objective):
    """Every weight within `tolerance`; `objective` is least-error, smallest (fewest kept) or first.

    Of a construction that is exact, equality is asked instead.

    A weight whose subset is not within the tolerance has its block drawn again, up to `max_redraws` times; where
    several weights share a block, all of them are solved anew. A block that never succeeds keeps its first draw.
    `solver` replaces the choice by objective. relative: the tolerance counts in each tensor's largest |weight|.
    """

    locks: ClassVar[bool] = True

    tolerance: float = 0.01
    objective: str = "least-error"
    max_redraws: int = 20
    solver: Solver | None = None
    relative: bool = False

    @property
    def suffix(self) -> str:
        return "" if self.objective == "least-error" else self.objective

    def chosen_solver(self, construction: Construction) -> Solver:
        """The solver that is used."""
        return self.solver or construction.solver(self.objective)

    def settings(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "tolerance": self.tolerance,
            "max_redraws": self.max_redraws,
            **({} if self.solver is None else {"solver": repr(self.solver)}),
            **({"relative": True} if self.relative else {}),
        }

    def check(self, construction: Construction) -> None:
        check_tolerance(self.tolerance, zero=construction.exact)
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective {self.objective!r} is unknown; {suggest(self.objective, OBJECTIVES)}")
        if self.objective not in construction.objectives:
            raise InputError(
                f"{construction.name} cannot be asked for {self.objective}, for it says itself which subset is taken;"
                f" use {' or '.join(construction.objectives)}"
            )
        if type(self.max_redraws) is not int or not 0 <= self.max_redraws <= MAX_ATTEMPTS:
            raise InputError(f"max_redraws must be from 0 to {MAX_ATTEMPTS}, not {self.max_redraws!r}")
        self.chosen_solver(construction).check(construction.candidates)
        if self.relative and not construction.direct:
            raise InputError(
                f"{construction.name} rounds its candidates to float32, which a tolerance relative to each tensor's"
                " largest weight has no room for; use scalar or scalar-shared"
            )

    def asked_of(self, construction: Construction) -> "ToleranceObjective":
        return dataclasses.replace(self, tolerance=0.0) if construction.exact else self

    def check_source(self, construction: Construction, network: Network) -> None:
        if self.relative and any(drawn.sampler.locked > 0 for drawn in network.random_tensors.values()):
            raise InputError(
                "what locked weights leave of a target is rounded to float32, which a tolerance relative to each"
                " tensor's largest weight has no room for; lock none, or give a tolerance in place of lossless"
            )
        construction.check_reachable(network, self.tolerance)

    def _how(self, job: Job, plan: Plan) -> SolverConfig:
        solver = self.chosen_solver(job.construction)
        if not self.relative:
            return how_to_promise(plan, solver, self.tolerance)
        return how_to_promise_directly(plan, solver, self.tolerance * job.target.scan(plan.tensor).largest)

    def seconds_each(self, job: Job) -> float | None:
        if job.construction.candidates <= _QUICK:
            return None
        chunk = max(job.chunks, key=job.chunk_size)
        few = dataclasses.replace(chunk, count=min(chunk.count, _TRIED if on_host() else padded(1)))
        plan, targets = job.plans[few.plan], scaled_targets(job, few)
        how = self._how(job, plan)
        for _ in range(2):  # the first compiles
            start = time.perf_counter()
            _solve(job, plan, few.first + np.arange(few.count), targets, 0, how)
        return (time.perf_counter() - start) / targets.size

    def solve(self, job: Job, chunk: Chunk) -> Solved:
        plan, targets = job.plans[chunk.plan], scaled_targets(job, chunk)
        how = self._how(job, plan)
        blocks = chunk.first + np.arange(chunk.count)
        each = plan.random_tensor.rows_per_block
        parts = [_solve(job, plan, blocks[part], targets[part], 0, how) for part in pieces(plan, chunk.count)]
        mask, within = (np.concatenate(found) for found in zip(*parts, strict=True))
        redraws, failed = [], np.flatnonzero(~within)
        for attempt in range(1, self.max_redraws + 1):
            if not len(failed):
                break
            again, settled = _solve(job, plan, blocks[failed], targets[failed], attempt, how)
            done = failed[settled]
            mask.reshape(chunk.count, each, -1)[done] = again.reshape(len(failed), each, -1)[settled]
            redraws.append(np.stack([blocks[done], np.full_like(done, attempt)], 1))
            failed = failed[~settled]
        rows = np.concatenate(redraws) if redraws else NO_REDRAWS
        return {"mask": np.packbits(mask, bitorder="little"), "redraws": rows[np.argsort(rows[:, 0])]}

    def validation_error(self, job: Job, chunk: Chunk, arrays: Solved) -> str | None:
        if set(arrays) != {"mask", "redraws"}:
            return f"the arrays {sorted(arrays)}"
        if arrays["mask"].shape != (job.mask_bytes(chunk),) or arrays["mask"].dtype != np.uint8:
            return "a mask of another shape"
        rows = arrays["redraws"]
        own = rows.dtype == np.int64 and rows.shape[1:] == (2,)
        inside = own and ((rows[:, 0] >= chunk.first) & (rows[:, 0] < chunk.first + chunk.count)).all()
        return None if inside else "redraws of other blocks"

    def chunk_bytes(self, job: Job) -> Callable[[Chunk], int]:
        return job.mask_bytes

    def finalise(self, job: Job, solved: Callable[[Chunk], Solved]) -> ObjectiveResult:
        def masks(chunk: Chunk) -> Masks:
            found = solved(chunk)
            return Masks(found["mask"], found["redraws"])

        return ObjectiveResult(self.tolerance, None, {}, masks, self.relative)


def _solve(
    job: Job, plan: Plan, blocks: np.ndarray, targets: np.ndarray, attempt: int, how: SolverConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [B R, width], and bool [B] where every weight of a block is within the tolerance in every branch."""
    within, subsets = np.ones(targets.size, bool), []
    for branch in branches_of(plan):
        found = search_blocks(job, plan, branch, blocks, targets, attempt, how)
        if not isinstance(found, Solution) or found.minus is not None:
            raise InputError(f"{how.solver} does not answer with one subset for each weight; choose another solver")
        within &= found.within
        subsets.append(found.bits)
    rows = (blocks[:, None] * targets.shape[1] + np.arange(targets.shape[1])).reshape(-1)
    mask = with_locked(job, plan, blocks, mask_rows(plan, rows, subsets), attempt)
    return mask, np.asarray(within.reshape(targets.shape).all(1))


LOSSLESS = 2.0**-25
"""Of a tensor's largest |weight|: at most half the distance of neighbouring float32 numbers there."""

_EXACT = 24


def made_lossless(
    target: Target, construction: Construction, objective: ToleranceObjective
) -> tuple[Construction, ToleranceObjective]:
    """A construction and a promise whose tickets are lossless; its number of candidates is kept if it is no default.

    Raises `InputError` for constructions that cannot, and for targets of float64, which a float32 does not hold.

    >>> import numpy as np
    >>> from lottery_jax.constructions.scalar import Scalar
    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
    >>> made_lossless(target, Scalar(), ToleranceObjective())[0].candidates
    32
    """
    if objective.objective != "least-error":
        raise InputError(
            f"a lossless ticket takes the nearest subsets, not {objective.objective}; leave the objective out"
        )
    for name in target.network.approximated:
        if target.tensors.tensors[name].dtype == "F64":
            raise InputError(f"tensor {name!r} is float64, and lossless is half the last bit of a float32; convert it")
    given = construction.candidates if construction.candidates != type(construction).candidates else None
    made = construction.lossless(given)
    # The exact search takes milliseconds beyond 24 candidates, and one in ten weights that is drawn again takes less.
    solver = objective.solver or (Randomized() if made.candidates > _EXACT else None)
    return made, dataclasses.replace(objective, tolerance=LOSSLESS, relative=True, solver=solver)
