"""`solve`: checks, the choice of the grid, and the passes of a solver."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.progress import Progress, no_progress
from lottery_jax.subset_sum.engine.chunks import Rows
from lottery_jax.subset_sum.engine.devices import all_finite, largest_sum, local_mesh
from lottery_jax.subset_sum.engine.grid import MAX_INT32_CANDIDATES, fits_int32
from lottery_jax.subset_sum.engine.shared import search_stage
from lottery_jax.subset_sum.problem import Problem, Solution, Status, words_per_subset
from lottery_jax.subset_sum.solver import Answer, Solver

GridSize = Literal["auto", "int32", "int64"]


def solve(
    problem: Problem,
    solver: Solver[Answer],
    *,
    key: jax.Array | None = None,
    grid: GridSize = "auto",
    progress: Progress = no_progress,
    devices: Sequence[Any] | None = None,
    count: int | None = None,
) -> Answer:
    """Solve all problems of a batch; the answers do not depend on how they are chunked or on the devices.

    grid: integers of 32 or 64 bits; `auto` takes 64 for N > 24, or where rounding to the 32-bit grid could use up
    1/32 of the tolerance. key: a typed key, for randomised solvers. progress: called with (problems that need
    no further pass, problems). devices: those that search, all of this process if left out. first: only so many of the
    problems are solved, where the others are there to keep shapes few (JAX compiles anew for each). `Pareto` answers
    with a `ParetoFront`, all others with a `Solution`. Raises `InputError` for NaN or infinite values, or an N too large for
    the solver.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import MeetInTheMiddle
    >>> solution = solve(Problem(np.array([0.5, 0.25]), np.array([0.7]), tolerance=0.1), MeetInTheMiddle())
    >>> solution.residuals, solution.sizes
    (array([0.05]), array([2]))
    """
    count = problem.shape[0] if count is None else count
    solver = solver.resolved(problem)
    _check(problem, solver, key, count)
    problem = solver.prepared(problem)
    candidates = problem.shape[1]
    if grid == "auto":
        grid = "int64" if _needs_wide(problem, count) else "int32"
    rows = Rows(problem, local_mesh(devices))
    shape = count, *solver.columns
    bits = np.zeros((*shape, words_per_subset(candidates)), np.uint32)
    dtype = np.float64 if problem.double or grid == "int64" else np.float32
    left_over = np.zeros((*shape, *problem.components), dtype)
    status = np.full(shape, Status.NOT_FOUND, np.uint8)
    open_ = np.arange(count)
    done = 0

    def closed(more: int) -> None:
        nonlocal done
        done += more
        progress(done, count)

    for stage in solver.passes(candidates):
        if not len(open_):
            break
        *found, judged = search_stage(stage, rows, open_, key, grid == "int64" or stage.wide, closed)
        # An answer within the tolerance is never replaced by one beyond it.
        take = (judged == Status.WITHIN) | (status[open_] != Status.WITHIN)
        row, *column = np.nonzero(take)
        for whole, part in zip((bits, left_over, status), (*found, judged), strict=True):
            whole[(open_[row], *column)] = part[take]
        open_ = open_[stage.still_open(judged == Status.WITHIN)]
    return solver.answer(Solution(bits, left_over, status, candidates, solver=solver))


def _check(problem: Problem, solver: Solver, key: jax.Array | None, count: int) -> None:
    problems, candidates = problem.shape
    solver.check(candidates)
    if (problem.components != ()) not in solver.vectors:
        wanted, given = ("numbers", "vectors") if problem.components else ("vectors", "numbers")
        raise InputError(
            f"{type(solver).__name__} takes candidates that are {wanted}, not {given} (shape"
            f" {problem.candidates.shape}); Vector and VectorWindows take vectors"
        )
    if solver.needs_key and key is None:
        raise InputError(f"{type(solver).__name__} draws at random: pass key=jax.random.key(seed)")
    if not 0 <= count <= problems:
        raise InputError(f"count must be from 0 to the {problems} problems there are, not {count}")
    numbers = math.prod(problem.components)
    for what, values, width in (
        ("candidates", problem.candidates, candidates * numbers),
        ("targets", problem.targets, numbers),
    ):
        if not all_finite(values, width, count):
            raise InputError(f"{what} hold NaN or infinite values; remove them first")


def _needs_wide(problem: Problem, count: int) -> bool:
    candidates = problem.shape[1]
    if candidates > MAX_INT32_CANDIDATES:
        return True
    # Of vectors the components are summed too, which only errs on the side of the finer grid.
    numbers = candidates * math.prod(problem.components)
    largest = largest_sum(problem.candidates, numbers, count)
    if problem.components:
        largest = max(largest, largest_sum(problem.targets, numbers // candidates, count))
    return not fits_int32(candidates, largest, problem.tolerance)
