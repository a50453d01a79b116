"""`solve`: checks, the grid, chunks, both cores busy, packed answers."""

import concurrent.futures
import functools
import math
import os
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.grid import INT32_BITS, residuals, to_grid
from lottery_jax.subset_sum.problem import Problem, Solution, Status, words
from lottery_jax.subset_sum.solver import Solver, Stage

GridSize = Literal["auto", "int32", "int64"]
_CALL_CHUNKS = 64  # chunks in one compiled call
_NARROW_CANDIDATES = 24  # beyond, least residuals fall below the step of the 32-bit grid


def solve(
    problem: Problem,
    solver: Solver,
    *,
    key: jax.Array | None = None,
    grid: GridSize = "auto",
    progress: Callable[[int], None] | None = None,
) -> Solution:
    """Solve all problems of a batch; the answers do not depend on how they are chunked or on the device.

    grid: integers of 32 or 64 bits; `auto` takes 64 for N > 24, or where rounding to the 32-bit grid could use up
    1/32 of the tolerance. key: a typed key, for randomised solvers. progress: called with the number of problems
    each time some are done. Raises `InputError` for NaN or infinite values, or an N too large for the solver.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import MeetInTheMiddle
    >>> solution = solve(Problem(np.array([0.5, 0.25]), np.array([0.7]), tolerance=0.1), MeetInTheMiddle())
    >>> solution.residuals, solution.sizes
    (array([0.05]), array([2]))
    """
    count, candidates = problem.shape
    _check(problem, solver, key)
    if grid == "auto":
        grid = "int64" if _needs_wide(problem) else "int32"
    bits = np.zeros((count, words(candidates)), np.uint32)
    left_over = np.zeros(count, np.float64 if problem.double or grid == "int64" else np.float32)
    status = np.full(count, Status.NOT_FOUND, np.uint8)
    open_ = np.arange(count)
    for stage in solver.stages(candidates):
        if not len(open_):
            break
        found_bits, found_residuals, within = _run(stage, problem, open_, key, grid, progress)
        # An answer within the tolerance is never replaced by one beyond it.
        take = within | (status[open_] != Status.WITHIN)
        bits[open_[take]], left_over[open_[take]] = found_bits[take], found_residuals[take]
        status[open_[take]] = np.where(within[take], Status.WITHIN, stage.failure)
        open_ = open_[stage.still_open(within)]
    return Solution(bits, left_over, status, candidates)


def _check(problem: Problem, solver: Solver, key: jax.Array | None) -> None:
    candidates = problem.shape[1]
    name = type(solver).__name__
    if candidates > solver.max_candidates:
        raise InputError(
            f"N = {candidates} candidates is too many for {name}, which takes up to {solver.max_candidates};"
            " use Randomized for any N"
        )
    if solver.needs_key and key is None:
        raise InputError(f"{name} draws at random: pass key=jax.random.key(seed)")
    for what, values in (("candidates", problem.candidates), ("targets", problem.targets)):
        finite = jnp.isfinite if isinstance(values, jax.Array) else np.isfinite
        if not finite(values).all():
            raise InputError(f"{what} hold NaN or infinite values; remove them first")


def _needs_wide(problem: Problem) -> bool:
    count, candidates = problem.shape
    if candidates > _NARROW_CANDIDATES:
        return True
    largest = float(abs(problem.candidates).sum(-1).max()) if count else 0.0
    step = largest * 2.0 ** (1 - INT32_BITS)
    return (candidates + 1) * step > problem.tolerance / 32


def _run(
    stage: Stage,
    problem: Problem,
    open_: np.ndarray,
    key: jax.Array | None,
    grid: GridSize,
    progress: Callable[[int], None] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Search the problems at `open_`: bits [R, W], residuals [R], within [R]."""
    cpu = jax.default_backend() == "cpu"
    workers = (os.cpu_count() or 1) if cpu else 1
    total, candidates = len(open_), problem.shape[1]
    wide = grid == "int64" or stage.wide
    # Sizes are powers of eight, so that few shapes are ever compiled; empty chunks at the end are not searched.
    chunk = min(stage.chunk(candidates, cpu), _power_of_eight(total))
    chunks = min(_CALL_CHUNKS, _power_of_eight(-(-total // (chunk * workers))))
    size = chunk * min(chunks, -(-total // (chunk * workers)))
    dtype = np.float64 if wide or problem.double else np.float32
    tolerance = dtype(problem.tolerance)

    def call(start: int) -> tuple[np.ndarray, ...]:
        index = open_[start : start + size]
        values, targets = problem.rows(index if total < problem.shape[0] else slice(start, start + size))
        used = -(-len(index) // chunk)
        missing = chunk * chunks - len(index)
        values, targets = np.pad(values, ((0, missing), (0, 0))), np.pad(targets, (0, missing))
        # The setting belongs to the thread, so each call makes its own.
        with jax.enable_x64(wide or problem.double):
            shaped = values.reshape(chunks, chunk, candidates), targets.reshape(chunks, chunk)
            answer = _search(stage, wide, *(np.asarray(x, dtype) for x in shaped), tolerance, np.int32(used), key)
            found = tuple(np.asarray(x).reshape(chunk * chunks, *x.shape[2:])[: len(index)] for x in answer)
        if progress is not None:
            progress(len(index))
        return found

    starts = range(0, total, size)
    if workers == 1 or len(starts) == 1:
        found = [call(start) for start in starts]
    else:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(call, starts))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]


@functools.partial(jax.jit, static_argnames=("stage", "wide"))
def _search(stage: Stage, wide: bool, candidates: Any, targets: Any, tolerance: Any, used: Any, key: Any) -> Any:
    """Search the first `used` of C chunks: candidates [C, B, N], targets [C, B]."""
    dtype = jnp.int64 if wide else jnp.int32

    # On the grid before the loop: inside it, XLA would round anew wherever a candidate is read.
    grids = jax.vmap(to_grid, (0, 0, None, None))(candidates.swapaxes(1, 2), targets, tolerance, dtype)

    def one_chunk(place: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        on_grid = jax.tree.map(lambda all_: all_[place], grids)
        chosen = stage.search(on_grid, key)
        steps = jnp.where(chosen, on_grid.candidates, 0).sum(0, dtype=dtype) - on_grid.targets
        within = (jnp.abs(steps) <= on_grid.tolerance) & (on_grid.clipped == 0)
        return _pack(chosen), residuals(on_grid, steps), within

    shapes = jax.eval_shape(one_chunk, jax.ShapeDtypeStruct((), jnp.int32))
    empty = tuple(jnp.zeros((len(targets), *part.shape), part.dtype) for part in shapes)

    def step(place: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(all_.at[place].set(one) for all_, one in zip(found, one_chunk(place), strict=True))

    return jax.lax.fori_loop(0, used, step, empty)


def _pack(chosen: jax.Array) -> jax.Array:
    """bool [N, B] to uint32 [B, W]."""
    count = chosen.shape[0]
    padded = jnp.pad(chosen, ((0, 32 * words(count) - count), (0, 0)))
    placed = padded.reshape(words(count), 32, -1).astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[:, None]
    return placed.sum(1, dtype=jnp.uint32).T


def _power_of_eight(count: int) -> int:
    return 8 ** math.ceil(math.log(max(count, 1), 8) - 1e-9)
