"""Solve all weights of one layer chunk by chunk: draw candidates, search, scatter, redraw what failed."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.constructions.plan import Plan
from lottery_jax.networks.architecture import ATTEMPT_STRIDE, Parallel
from lottery_jax.sampler import Sampler, draw_at, seed_words
from lottery_jax.subset_sum import Problem, Solver, solve
from lottery_jax.subset_sum.engine.devices import local_mesh, rows_sharding
from lottery_jax.subset_sum.engine.grid import fits_int32
from lottery_jax.subset_sum.solve import GridSize

CHUNK = 1 << 16
"""Weights whose candidates exist at once."""
_LEAST_PADDED = 512
_FLOAT32_STEP = 2.0**-24


def solve_layer(
    plan: Plan,
    sampler: Sampler,
    *,
    stream: int,
    seed: int,
    solver: Solver,
    tolerance: float,
    max_redraws: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the mask of the plan's tensor [I, U, O], redraw rows int32 [R, 3], and how many weights failed.

    A weight whose subset is not within the tolerance gets its block of candidates drawn again, up to `max_redraws`
    times, from the stream of that attempt; with shared candidates a whole output is drawn again and solved anew.
    A weight that never succeeds keeps the best subset of the first draw.
    """
    layer = plan.layer
    inputs, outputs = plan.weights.shape
    shared = isinstance(layer, Parallel) and layer.shared
    mask = empty_mask(plan)
    # Products and targets are rounded to float32; the margin keeps what the solver accepts true in float64.
    candidates = plan.slots.shape[2]
    margin = candidates * plan.bound * _FLOAT32_STEP
    allowed = max(tolerance / layer.gain - margin, tolerance / layer.gain / 2)
    # Decided from the plan alone, so that every chunk uses the same grid.
    grid: GridSize = "int32" if fits_int32(candidates, candidates * plan.bound, allowed) else "int64"

    failed = np.arange(inputs * outputs)
    each = 1
    if shared:
        # The weights of an output are neighbours, for they share their candidates.
        failed, each = failed.reshape(inputs, outputs).T.reshape(-1), inputs
    chunk = max(CHUNK // each, 1) * each
    redraws = []
    for attempt in range(max_redraws + 1):
        within = np.ones(len(failed), bool)
        subsets = []
        for branch in range(len(plan.slots)):
            chosen = np.empty((len(failed), candidates), bool)
            for start in range(0, len(failed), chunk):
                part = slice(start, start + chunk)
                attempted = stream + ATTEMPT_STRIDE * attempt
                if shared:
                    first = failed[part][::each]
                    drawn, _ = layer_problems(plan, sampler, branch, first, stream=attempted, seed=seed)
                    wanted = plan.weights.reshape(-1)[failed[part]].astype(np.float32)
                else:
                    drawn, wanted = padded_problems(plan, sampler, branch, failed[part], stream=attempted, seed=seed)
                report = progress if attempt == 0 and branch == 0 else None
                key = jax.random.key(seed % 2**32) if solver.needs_key else None
                solution = solve(
                    Problem(drawn, wanted, allowed, each=each),
                    solver,
                    key=key,
                    grid=grid,
                    progress=report,
                    first=len(within[part]),
                )
                within[part] &= solution.within
                chosen[part] = solution.subsets
            subsets.append(chosen)
        settled = _all_of_output(failed, within, outputs) if shared else within
        written = np.ones_like(settled) if attempt == 0 else settled
        scatter(mask, plan, failed[written], [chosen[written] for chosen in subsets])
        if attempt:
            redraws.append(_redraw_rows(failed[settled], attempt, outputs, shared))
        lost = int(np.count_nonzero(~within))
        failed = failed[~settled]
        if not len(failed):
            break
    failures = lost if len(failed) else 0
    rows = np.concatenate(redraws) if redraws else np.zeros((0, 3), np.int32)
    return mask, rows, failures


def empty_mask(plan: Plan) -> np.ndarray:
    """The mask [I, U, O] of the plan's tensor, with nothing kept."""
    return np.zeros(plan.layer.shapes()[plan.tensor.split(".")[1]], bool)


def padded_problems(
    plan: Plan, sampler: Sampler, branch: int, weights: np.ndarray, *, stream: int, seed: int
) -> tuple[jax.Array, np.ndarray]:
    """Candidates [P, N], on the devices, and targets [P], float32, of the weights at flat positions of [I, O].

    P is a power of two, so that few shapes are compiled: solve the `first` len(weights) of them.
    """
    size = max(1 << max(len(weights) - 1, 0).bit_length(), _LEAST_PADDED)
    # uint32, for a tensor may hold up to 2**32 weights.
    index = np.zeros(size, np.uint32)
    index[: len(weights)] = weights
    drawn = _draw_candidates(
        sampler,
        seed_words(seed),
        np.uint32(stream),
        plan.multipliers[branch],
        plan.slots[branch].astype(np.uint32),
        index,
        plan.layer.shapes()[plan.tensor.split(".")[1]][1],
        plan.weights.shape[1],
        isinstance(plan.layer, Parallel) and plan.layer.shared,
        rows_sharding(local_mesh(), size),
    )
    wanted = np.zeros(size, np.float32)
    wanted[: len(weights)] = plan.weights.reshape(-1)[weights]
    return drawn, wanted


def layer_problems(
    plan: Plan, sampler: Sampler, branch: int, weights: np.ndarray, *, stream: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates [P, N] and targets [P], float32, of the weights at flat positions [P] of [I, O], on the host."""
    drawn, wanted = padded_problems(plan, sampler, branch, weights, stream=stream, seed=seed)
    return np.asarray(drawn)[: len(weights)], wanted[: len(weights)]


@functools.partial(jax.jit, static_argnames=("sampler", "units", "outputs", "shared", "sharding"))
def _draw_candidates(
    sampler: Sampler,
    key: tuple[jax.Array, jax.Array],
    stream: jax.Array,
    multipliers: jax.Array,
    slots: jax.Array,
    weights: jax.Array,
    units: int,
    outputs: int,
    shared: bool,
    sharding: jax.sharding.Sharding,
) -> jax.Array:
    """Candidates [P, N] of the weights at flat positions [P] of [I, O]: only what is needed of the source is drawn."""
    row, column = weights // outputs, weights % outputs
    block = jnp.zeros_like(row) if shared else row
    index = (block[:, None] * units + slots[row]) * outputs + column[:, None]
    drawn = multipliers[row] * draw_at(sampler, key, stream, index, jnp)
    # Each device draws what it will search.
    return jax.lax.with_sharding_constraint(drawn, sharding)


def scatter(mask: np.ndarray, plan: Plan, weights: np.ndarray, subsets: list[np.ndarray]) -> None:
    """Write the subsets [P, N] of each branch into the mask [I, U, O], at the weights' flat positions [P] of [I, O]."""
    row, column = np.divmod(weights, mask.shape[2])
    mask[row, :, column] = False
    for branch, chosen in enumerate(subsets):
        slots = plan.slots[branch]
        for place in range(slots.shape[1]):
            kept = chosen[:, place]
            mask[row[kept], slots[row[kept], place], column[kept]] = True


def _all_of_output(weights: np.ndarray, within: np.ndarray, outputs: int) -> np.ndarray:
    """With shared candidates a weight is settled only when every weight of its output is."""
    bad = np.zeros(outputs, bool)
    bad[weights[~within] % outputs] = True
    return ~bad[weights % outputs]


def _redraw_rows(weights: np.ndarray, attempt: int, outputs: int, shared: bool) -> np.ndarray:
    if shared:
        columns = np.unique(weights % outputs)
        row, column = np.zeros_like(columns), columns
    else:
        row, column = np.divmod(weights, outputs)
    return np.stack([row, column, np.full_like(row, attempt)], 1).astype(np.int32)
