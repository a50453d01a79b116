"""The default objective: every weight within a tolerance, with the least error or the fewest kept weights.

`make_lossless` sets the tolerance to half the last float32 bit of the largest weight of each tensor.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from lottery_jax.approximation.job import Chunk, ChunkMasks, ChunkResult, Job, Objective, ObjectiveResult
from lottery_jax.approximation.solve_weights import (
    SolverConfig,
    on_host,
    padded_blocks,
    scaled_targets,
    solve_blocks,
    solver_config,
    split_blocks,
    subsets_to_mask,
)
from lottery_jax.constructions.base import Construction, TensorProblem
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.target import Target
from lottery_jax.rng.forced_entries import forced_blocks
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS
from lottery_jax.subset_sum import Randomized, Solution, Solver
from lottery_jax.tickets.header import check_tolerance

OBJECTIVES = {
    "least-error": "Of each weight's subsets the nearest.",
    "smallest": "Of each weight's subsets within the tolerance the one that keeps the fewest.",
    "first": "Of each weight's subsets within the tolerance the first by size and lexicographically.",
}
"""What may be selected among the subsets of a weight, by name."""

LOSSLESS = 2.0**-25
"""Tolerance relative to a tensor's largest |weight|: at most half the distance of adjacent float32 numbers there."""

_FAST_CANDIDATES = 24  # up to here the exact search of a weight takes microseconds, beyond milliseconds
_TIMED_WEIGHTS = 8


@dataclasses.dataclass(frozen=True)
class ToleranceObjective(Objective):
    """Every weight within a tolerance.

    If a weight of a block has no subset within the tolerance, the block is redrawn and all its weights are solved
    again. A block that never succeeds keeps its first draw; `verify` counts its failed weights.

    Args:
        tolerance: Largest |residual| of a weight. Constructions that are exact replace it by 0.
        select: Which subset of a weight: one of `OBJECTIVES`.
        solver: The subset-sum solver; the construction's solver for `select` by default.
        relative: True if the tolerance is relative to each tensor's largest |weight|.
    """

    allows_locked: ClassVar[bool] = True

    tolerance: float = 0.01
    select: str = "least-error"
    max_redraws: int = 20
    solver: Solver | None = None
    relative: bool = False

    def settings(self) -> dict[str, Any]:
        settings = {"objective": self.select, "tolerance": self.tolerance, "max_redraws": self.max_redraws}
        if self.solver is not None:
            settings["solver"] = repr(self.solver)
        return {**settings, "relative": True} if self.relative else settings

    def check(self, construction: Construction) -> "ToleranceObjective":
        check_tolerance(self.tolerance, zero=construction.exact)
        if self.select not in OBJECTIVES:
            raise InputError(f"objective {self.select!r} is unknown; {suggest(self.select, OBJECTIVES)}")
        if self.select not in construction.objectives:
            raise InputError(
                f"{construction.name} does not support objective {self.select}, because its theorem prescribes the"
                f" subset; use {' or '.join(construction.objectives)}"
            )
        if type(self.max_redraws) is not int or not 0 <= self.max_redraws <= MAX_ATTEMPTS:
            raise InputError(f"max_redraws must be from 0 to {MAX_ATTEMPTS}, got {self.max_redraws!r}")
        solver = self.solver or construction.solver(self.select)
        if not isinstance(solver, Solver) or solver.subset_axes or "numbers" not in solver.accepts:
            raise InputError(
                "solver must be a solver of lottery_jax.subset_sum that returns one subset of numbers, such as"
                f" Randomized(), got {solver!r}"
            )
        solver.check(construction.candidates)
        if self.relative and not construction.unrounded:
            raise InputError(
                f"{construction.name} rounds its candidates to float32, which a tolerance relative to each tensor's"
                " largest weight does not allow; use scalar or scalar-shared"
            )
        return dataclasses.replace(self, tolerance=0.0) if construction.exact else self

    def check_source(self, construction: Construction, network: Network) -> None:
        if self.relative and any(drawn.sampler.locked > 0 for drawn in network.random_tensors.values()):
            raise InputError(
                "a tolerance relative to each tensor's largest weight does not allow locked weights, because targets"
                " minus locked weights are rounded to float32; remove the lock, or use a tolerance instead of lossless"
            )
        construction.check_tolerance(network, self.tolerance)

    def _config(self, job: Job, problem: TensorProblem) -> SolverConfig:
        tolerance = self.tolerance * (job.target.scan(problem.tensor).largest if self.relative else 1.0)
        solver = self.solver or job.construction.solver(self.select)
        return solver_config(problem, solver, tolerance, unrounded=self.relative)

    def seconds_per_weight(self, job: Job) -> float | None:
        if job.construction.candidates <= _FAST_CANDIDATES:
            return None
        chunk = max(job.chunks, key=lambda chunk: chunk.weights)
        chunk = dataclasses.replace(chunk, count=min(chunk.count, _TIMED_WEIGHTS if on_host() else padded_blocks(1)))
        problem, targets, start = chunk.problem, scaled_targets(job, chunk), 0.0
        config = self._config(job, problem)
        for _ in range(2):  # the first run compiles
            start = time.perf_counter()
            _solve(job, problem, chunk.first + np.arange(chunk.count), targets, 0, config)
        return (time.perf_counter() - start) / targets.size

    def solve_chunk(self, job: Job, chunk: Chunk) -> ChunkResult:
        """The masks and redraws of a chunk."""
        problem, targets = chunk.problem, scaled_targets(job, chunk)
        config, blocks = self._config(job, problem), chunk.first + np.arange(chunk.count)
        masks, successes = [], []
        for part in split_blocks(chunk):
            part_mask, part_success = _solve(job, problem, blocks[part], targets[part], 0, config)
            masks.append(part_mask)
            successes.append(part_success)
        mask, failed = np.concatenate(masks), np.flatnonzero(~np.concatenate(successes))
        redraws = [NO_REDRAWS]
        for attempt in range(1, self.max_redraws + 1):
            if not len(failed):
                break
            new_mask, success = _solve(job, problem, blocks[failed], targets[failed], attempt, config)
            done = failed[success]
            mask.reshape(chunk.count, -1)[done] = new_mask.reshape(len(failed), -1)[success]
            redraws.append(np.stack([blocks[done], np.full_like(done, attempt)], 1))
            failed = failed[~success]
        rows = np.concatenate(redraws)
        return {"mask": np.packbits(mask, bitorder="little"), "redraws": rows[np.argsort(rows[:, 0])]}

    def validation_error(self, chunk: Chunk, arrays: ChunkResult) -> str | None:
        if set(arrays) != {"mask", "redraws"}:
            return f"the arrays {sorted(arrays)}"
        if arrays["mask"].shape != (self.result_bytes(chunk),) or arrays["mask"].dtype != np.uint8:
            return "a mask of another shape"
        rows = arrays["redraws"]
        valid = rows.dtype == np.int64 and rows.shape[1:] == (2,)
        inside = valid and ((rows[:, 0] >= chunk.first) & (rows[:, 0] < chunk.first + chunk.count)).all()
        return None if inside else "redraws of other blocks"

    def result_bytes(self, chunk: Chunk) -> int:
        return (chunk.weights * chunk.problem.random_tensor.width + 7) // 8

    def finalise(self, job: Job, read: Callable[[Chunk], ChunkResult]) -> ObjectiveResult:
        def masks(chunk: Chunk) -> ChunkMasks:
            arrays = read(chunk)
            return ChunkMasks(arrays["mask"], arrays["redraws"])

        return ObjectiveResult(self.tolerance, None, {}, masks, self.relative)


def _solve(
    job: Job, problem: TensorProblem, blocks: np.ndarray, targets: np.ndarray, attempt: int, config: SolverConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [B R, width], and bool [B]: every weight of a block is within the tolerance in every branch."""
    within, subsets = np.ones(targets.size, bool), []
    for branch in problem.branches:
        answer = solve_blocks(job, problem, branch, blocks, targets, attempt, config)
        if not isinstance(answer, Solution) or answer.minus is not None:
            raise InputError(f"{config.solver} does not return one subset for each weight; choose another solver")
        within &= answer.within
        subsets.append(answer.bits)
    shared = targets.shape[1]
    rows = (blocks[:, None] * shared + np.arange(shared)).reshape(-1)
    mask = subsets_to_mask(problem, rows, subsets)
    if problem.random_tensor.sampler.locked > 0:
        mask |= (forced_blocks(problem.random_tensor, job.seed, blocks, attempt) == 1).repeat(shared, 0)
    return mask, np.asarray(within.reshape(targets.shape).all(1))


def make_lossless(
    target: Target, construction: Construction, objective: ToleranceObjective
) -> tuple[Construction, ToleranceObjective]:
    """Options of a lossless ticket: each weight within half the last float32 bit of its tensor's largest.

    A number of candidates other than the default, the number of redraws and a solver are kept.

    Raises:
        InputError: If the construction cannot be lossless, or the target has float64 weights.

    >>> from lottery_jax.constructions.scalar import Scalar
    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
    >>> make_lossless(target, Scalar(), ToleranceObjective())[0].candidates
    32
    """
    if objective.select != "least-error":
        raise InputError(f"objective must be least-error for a lossless ticket, got {objective.select}. Omit it.")
    for name in target.network.approximated:
        if target.tensors.tensors[name].dtype == "F64":
            raise InputError(f"tensor {name!r} must be float32 for a lossless ticket, got float64. Convert it.")
    candidates = construction.candidates if construction.candidates != type(construction).candidates else None
    lossless = construction.lossless(candidates)
    # The exact search takes milliseconds beyond 24 candidates; redrawing one weight in ten takes less.
    solver = objective.solver or (Randomized() if lossless.candidates > _FAST_CANDIDATES else None)
    return lossless, dataclasses.replace(objective, tolerance=LOSSLESS, relative=True, solver=solver)
