"""``solve``: check the problem, choose the grid, and run the passes of a solver."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.progress import Progress, no_progress
from lottery_jax.subset_sum.engine.chunks import PlacedProblems, run_pass
from lottery_jax.subset_sum.engine.devices import all_finite, largest_sum, local_mesh
from lottery_jax.subset_sum.engine.grid import MAX_INT32_CANDIDATES, fits_int32, integers_need_int64
from lottery_jax.subset_sum.problem import Problem, Solution, Status, is_traced, words_per_subset
from lottery_jax.subset_sum.solver import Answer, SearchPass, Solver

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
    """Solve a batch of problems; the answers depend neither on chunks nor on devices.

    Args:
        problem: The problems.
        solver: The method.
        key: A typed key, for randomised solvers.
        grid: Integers of the search; "auto" takes int64 for N > 24, or if rounding to the int32 grid could use more
            than 1/32 of the tolerance. Integers do not round: "auto" takes int64 for sums of 2**28 or more.
        progress: Called with (solved problems, problems).
        devices: The devices that search; by default all of this process.
        count: Solve only the first ``count`` problems, so that batches of several sizes share one compiled shape.

    Returns:
        A ``Solution``; a ``ParetoFront`` from ``Pareto``.

    Raises:
        InputError: Values are not finite, sums of integers could overflow, N is too large for the solver, a key is
            missing, or the call is inside a JAX transformation.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import MeetInTheMiddle
    >>> solution = solve(Problem(np.array([0.5, 0.25]), np.array([0.7]), tolerance=0.1), MeetInTheMiddle())
    >>> solution.residuals, solution.sizes
    (array([0.05]), array([2]))
    """
    if is_traced(problem, key):
        raise InputError(
            "solve must be called outside of jit, vmap and other JAX transformations. Inside, use closest_subset,"
            " smallest_subset, randomized_subset or subset_count of lottery_jax.subset_sum."
        )
    count = problem.shape[0] if count is None else count
    solver = solver.resolve(problem)
    _check(problem, solver, key, count)
    problem = solver.transform(problem)
    candidates = problem.shape[1]
    passes = solver.passes(candidates)
    if problem.integers or grid == "auto":
        needed: GridSize = "int64" if _needs_int64(problem, passes, count) else "int32"
        if problem.integers and (grid, needed) == ("int32", "int64"):
            raise InputError("grid must be auto or int64 for integers with large sums, got int32. Omit grid.")
        grid = needed if grid == "auto" else grid
    placed = PlacedProblems(problem, local_mesh(devices))
    shape = count, *solver.subset_axes
    bits = np.zeros((*shape, words_per_subset(candidates)), np.uint32)
    residuals = np.zeros((*shape, *problem.components), placed.dtype(placed.needs_x64 or grid == "int64"))
    status = np.full(shape, Status.NOT_FOUND, np.uint8)
    unsolved = np.arange(count)
    solved = 0

    def on_searched(new_status: np.ndarray) -> None:
        nonlocal solved
        solved += len(new_status) - int(search_pass.unsolved(new_status == Status.WITHIN).sum())
        progress(solved, count)

    for search_pass in passes:
        if not len(unsolved):
            break
        int64 = grid == "int64" or search_pass.needs_int64
        *found, new_status = run_pass(search_pass, placed, unsolved, key, int64, on_searched)
        # An answer within the tolerance is never replaced by one that is not.
        better = (new_status == Status.WITHIN) | (status[unsolved] != Status.WITHIN)
        row, *size = np.nonzero(better)
        for whole, part in zip((bits, residuals, status), (*found, new_status), strict=True):
            whole[(unsolved[row], *size)] = part[better]
        unsolved = unsolved[search_pass.unsolved(new_status == Status.WITHIN)]
    return solver.finalise(Solution(bits, residuals, status, candidates, solver=solver))


def _check(problem: Problem, solver: Solver, key: jax.Array | None, count: int) -> None:
    problems, candidates = problem.shape
    solver.check(candidates)
    kind, other = ("vectors", "numbers") if problem.components else ("numbers", "vectors")
    if kind not in solver.accepts:
        raise InputError(
            f"{type(solver).__name__} takes candidates that are {other}, not {kind} (shape"
            f" {problem.candidates.shape}); Vector and VectorWindows take vectors"
        )
    if solver.needs_key and key is None:
        raise InputError(f"{type(solver).__name__} draws at random: pass key=jax.random.key(seed)")
    if not 0 <= count <= problems:
        raise InputError(f"count must be from 0 to the number of problems, {problems}, got {count}")
    components = math.prod(problem.components)
    for name, values, width in (
        ("candidates", problem.candidates, candidates * components),
        ("targets", problem.targets, components),
    ):
        if not all_finite(values, width, count):
            raise InputError(f"{name} hold NaN or infinite values; remove them first")


def _needs_int64(problem: Problem, passes: Sequence[SearchPass], count: int) -> bool:
    candidates = problem.shape[1]
    if candidates > MAX_INT32_CANDIDATES and not problem.integers:
        return True
    # The components of vectors are summed too, which errs on the side of the finer grid.
    components = math.prod(problem.components)
    largest = largest_sum(problem.candidates, candidates * components, count)
    if problem.components:
        largest = max(largest, largest_sum(problem.targets, components, count))
    if problem.integers:
        if max(largest_sum(problem.targets, 1, count * components), np.max(problem.tolerance, initial=0)) >= 2**62:
            raise InputError("targets and tolerance must be below 2**62 for integers. Divide by a common factor.")
        return integers_need_int64(largest, min(search_pass.integer_bits for search_pass in passes))
    return not fits_int32(candidates, largest, problem.least_tolerance)
