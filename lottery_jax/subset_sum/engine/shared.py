"""One pass over problems where each row of candidates serves many targets, on CPU: the lists are built once a row."""

import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.environment import cores
from lottery_jax.subset_sum.engine.chunks import Rows, number_closed, search_rows
from lottery_jax.subset_sum.engine.grid import Grid, to_grid
from lottery_jax.subset_sum.engine.recompute import answers, two_parts
from lottery_jax.subset_sum.solver import SearchPass, SharedSearch

_CALL_PROBLEMS = 1 << 14


def search_stage(
    stage: SearchPass,
    rows: Rows,
    index: np.ndarray,
    key: jax.Array | None,
    wide: bool,
    closed: Callable[[int], None],
) -> tuple[np.ndarray, ...]:
    """As `search_rows`, by the lists of whole rows where the pass has a way and all problems are asked for."""
    each = rows.problems if rows.shared else rows.targets_per_row
    if not wide and each > 1 and len(index) == rows.problems and rows.on_one_cpu:
        shared = stage.on_host_shared(rows.candidates, rows.problems, each)
        if shared is not None:
            return _search_shared(stage, shared, *rows.on_host(), rows.tolerance, rows.double, closed)
    return search_rows(stage, rows, index, key, wide, closed)


def _search_shared(
    stage: SearchPass,
    shared: SharedSearch,
    candidates: np.ndarray,
    targets: np.ndarray,
    tolerance: float,
    x64: bool,
    closed: Callable[[int], None],
) -> tuple[np.ndarray, ...]:
    """Bits [P, W], residuals [P], status [P] for targets [P] and candidates [G, N], each for P / G neighbours."""
    rows, each = len(candidates), len(targets) // len(candidates)
    # A very long row is cut, so that memory depends on the call alone; its lists are then built for each piece.
    pieces = -(-each // _CALL_PROBLEMS)
    length = -(-each // pieces)
    dtype = np.float64 if x64 else np.float32
    wanted = np.zeros((rows, pieces * length), dtype)
    wanted[:, :each] = targets.reshape(rows, each)
    wanted = wanted.reshape(rows * pieces, length)
    size = min(max(_CALL_PROBLEMS // length, 1), rows * pieces)

    def call(start: int) -> list[np.ndarray]:
        at = np.arange(start, start + size)
        # The last call is filled up with what is there, so that one shape is compiled.
        at = np.minimum(at, rows * pieces - 1)
        with jax.enable_x64(x64):
            given = candidates[at // pieces].astype(dtype), wanted[at], two_parts(tolerance, dtype)
            grid = _on_grid(*given)
            chosen = shared(np.asarray(grid.candidates)[:, :, 0], np.asarray(grid.targets))
            found = [np.asarray(part) for part in _answers(*given, grid.error, chosen, int(stage.failure), stage.sized)]
        return [part[: rows * pieces - start] for part in found]

    starts = range(0, rows * pieces, size)
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        calls = []
        for start, found in zip(starts, pool.map(call, starts), strict=True):
            calls.append(found)
            # The last piece of a row is filled up, too.
            real = np.clip(each - np.arange(start, start + len(found[-1])) % pieces * length, 0, length)
            status = found[-1][np.arange(length) < real[:, None]]
            closed(number_closed(stage, status))
    whole = (np.concatenate(parts) for parts in zip(*calls, strict=True))
    return tuple(
        part.reshape(rows, pieces * length, *part.shape[2:])[:, :each].reshape(rows * each, *part.shape[2:])
        for part in whole
    )


@jax.jit
def _on_grid(candidates: jax.Array, targets: jax.Array, tolerance: jax.Array) -> Grid:
    """Candidates [G, N] and targets [G, R] to one grid for each row."""
    return jax.vmap(to_grid, (0, 0, None, None))(candidates[..., None], targets, tolerance[0], jnp.int32)


@functools.partial(jax.jit, static_argnames="sized")
def _answers(
    candidates: Any, targets: Any, tolerance: Any, error: Any, chosen: Any, failure: Any, sized: bool
) -> tuple[jax.Array, ...]:
    one_row = functools.partial(answers, failure=failure, sized=sized)
    return jax.vmap(one_row, (0, 0, None, 0, 0))(candidates[..., None], targets, tolerance, error, chosen)
