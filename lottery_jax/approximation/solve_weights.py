"""Solving the weights of some blocks: drawing their candidates on the devices, searching, and subsets as masks."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lottery_jax.approximation.job import Chunk, Job
from lottery_jax.constructions.base import SignBranch, TensorProblem
from lottery_jax.io.tensor_file import read_float64
from lottery_jax.rng.forced_entries import forced_blocks, has_forced_entries
from lottery_jax.rng.sampler import SamplerArrays, draw_at, draw_pairs, sampler_arrays
from lottery_jax.rng.threefry import seed_words
from lottery_jax.subset_sum import Problem, Solver, pack_bits, solve, unpack_bits
from lottery_jax.subset_sum.engine.devices import is_single_cpu, local_mesh, problem_sharding
from lottery_jax.subset_sum.engine.grid import fits_int32
from lottery_jax.subset_sum.problem import Status
from lottery_jax.subset_sum.solve import GridSize

MAX_HOST_WEIGHTS = 1 << 15
"""Weights whose candidates exist at once on a lone CPU."""

FLOAT32_STEP = 2.0**-24
"""Largest relative rounding error of float32."""

_MIN_PADDED_BLOCKS = 512
_Key = tuple[np.uint32, np.uint32]


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """A solver, its tolerance, and its grid: functions of the tensor's problem alone, equal for all its chunks."""

    solver: Solver
    tolerance: float
    grid: GridSize


def solver_config(problem: TensorProblem, solver: Solver, tolerance: float, *, unrounded: bool = False) -> SolverConfig:
    """How to solve a problem so that residuals within the solver's tolerance are within `tolerance` in float64.

    Args:
        tolerance: Tolerance in the units of the target weights; 0 for equality on the problem's grid.
        unrounded: True if candidates and targets are float32 numbers without rounding, so that no margin is needed.
    """
    if unrounded:
        # A tensor of zeros needs equality: residuals below the candidates' step are 0.
        allowed = tolerance or problem.bound * FLOAT32_STEP / 4
    elif tolerance == 0:
        # Sums and targets are multiples of the step: within half a step they are equal.
        allowed = problem.step / 2
    else:
        scaled = tolerance / problem.gain
        # Products, targets and the tolerance are rounded to float32.
        rounded = problem.candidates
        if problem.random_tensor.sampler.locked > 0:
            # So is a target minus its locked weights, which may be as large as the whole row.
            rounded += 2 * problem.random_tensor.width
        margin = (rounded * problem.bound + scaled) * FLOAT32_STEP
        allowed = max(scaled - margin, scaled / 2)
    narrow = fits_int32(problem.candidates, problem.candidates * problem.bound, allowed)
    return SolverConfig(solver, allowed, "int32" if narrow else "int64")


def on_host() -> bool:
    """True on a lone CPU device, which reads NumPy arrays in place; elsewhere candidates stay on the devices."""
    return is_single_cpu(local_mesh())


def scaled_targets(job: Job, chunk: Chunk) -> np.ndarray:
    """The target weights of a chunk over their gain, float32 [blocks, rows of a block]."""
    problem = chunk.problem
    weights = chunk.rows // problem.copies
    first, last = int(weights[0]), int(weights[-1])
    exact = read_float64(job.target.tensors, problem.tensor, first, last - first + 1)[weights - first]
    return (exact / problem.gain).astype(np.float32).reshape(chunk.count, -1)


def split_blocks(chunk: Chunk) -> list[slice]:
    """The blocks of a chunk in parts that bound the memory of the host; results do not depend on them."""
    shared = chunk.problem.random_tensor.rows_per_block
    step = max(MAX_HOST_WEIGHTS // shared // 8, 1) * 8 if on_host() else chunk.count
    parts = []
    for start in range(0, chunk.count, step):
        parts.append(slice(start, min(start + step, chunk.count)))
    return parts


def solve_blocks(
    job: Job,
    problem: TensorProblem,
    branch: SignBranch | None,
    blocks: np.ndarray,
    targets: np.ndarray,
    attempt: int,
    config: SolverConfig,
) -> Any:
    """The solver's answer, of its own type, for scaled target weights float32 [B, R] of ascending blocks int64 [B].

    `branch` is a sign branch of `problem`, and `attempt` the number of the draw, 0 for the first.
    """
    drawn: Any = draw_candidates(problem, branch, blocks, attempt=attempt, seed=job.seed)
    shared, host, rounded = targets.shape[1], on_host(), None
    if problem.random_tensor.sampler.locked > 0:
        free, remainder = _without_locked(job, problem, branch, blocks, targets, attempt)
        # If a remainder is not a float32, no subset is exact.
        targets, rounded = remainder.astype(np.float32), remainder != remainder.astype(np.float32)
        free = np.pad(free, ((0, len(drawn) - len(free)), (0, 0)))
        drawn = np.where(free, np.asarray(drawn), np.float32(0))
        drawn = drawn if host else jnp.asarray(drawn)
    if host:
        drawn, flat = np.asarray(drawn)[: len(blocks)], targets.reshape(-1)
    else:
        # The padding stays: a slice on a device would be compiled for every length.
        flat = np.zeros(len(drawn) * shared, np.float32)
        flat[: targets.size] = targets.reshape(-1)
        flat = jnp.asarray(flat)
    key = jax.random.key(job.seed % 2**32) if config.solver.needs_key else None
    one = Problem(drawn, flat, config.tolerance, targets_per_row=shared)
    answer: Any = solve(one, config.solver, key=key, grid=config.grid, count=targets.size)
    if problem.step and rounded is not None:
        status = np.where(rounded.reshape(-1), Status.NOT_FOUND, answer.status)
        answer = dataclasses.replace(answer, status=status.astype(np.uint8))
    if not has_forced_entries(problem.random_tensor):
        return answer
    # Candidates of 0 are absent or locked weights, which a few solvers choose.
    present = pack_bits(np.asarray(drawn)[: len(blocks)] != 0).repeat(shared, 0)
    return dataclasses.replace(answer, bits=answer.bits & (present if answer.bits.ndim == 2 else present[:, None]))


def _without_locked(
    job: Job, problem: TensorProblem, branch: SignBranch | None, blocks: np.ndarray, targets: np.ndarray, attempt: int
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates that are not locked, bool [B, N], and targets minus the locked weights, float64 [B, R]."""
    locked = forced_blocks(problem.random_tensor, job.seed, blocks, attempt) == 1
    kept = np.where(locked, problem.random_tensor.draw(job.seed, blocks, attempt), 0).astype(np.float64)
    free = ~locked
    if branch is not None:
        assert problem.group_of is not None
        group = problem.group_of(blocks)
        kept *= branch.all_multipliers[group]
        free = np.take_along_axis(free, branch.indices[group], 1)
    return free, targets - kept.sum(1, keepdims=True)


def subsets_to_mask(problem: TensorProblem, rows: np.ndarray, subsets: list[np.ndarray]) -> np.ndarray:
    """Masks bool [R, width] of mask rows [R], from the chosen candidates uint32 [R, W] of each branch."""
    mask = np.zeros((len(rows), problem.random_tensor.width), bool)
    for branch, bits in zip(problem.branches, subsets, strict=True):
        chosen = unpack_bits(bits, problem.candidates)
        if branch is None:
            return chosen
        assert problem.group_of is not None
        branch_mask = np.zeros_like(mask)  # the branches use different units
        np.put_along_axis(branch_mask, branch.indices[problem.group_of(rows)], chosen, 1)
        mask |= branch_mask
    return mask


def draw_candidates(
    problem: TensorProblem, branch: SignBranch | None, blocks: np.ndarray, *, attempt: int, seed: int
) -> jax.Array:
    """Candidates [P, N] of ascending blocks int64 [B] on one stream.

    P is `padded_blocks(B)`, so that few shapes are compiled; rows beyond B are unused.
    """
    drawn, size = problem.random_tensor, padded_blocks(len(blocks))
    sharding = None
    if not on_host() and size % local_mesh().size == 0:
        sharding = problem_sharding(local_mesh())  # each device draws the candidates that it searches
    streams, starts = drawn.positions(blocks, attempt)
    stream, weights, key = np.uint32(streams[0]), sampler_arrays(drawn.sampler), seed_words(seed)
    contiguous = blocks[-1] - blocks[0] + 1 == len(blocks) and drawn.layout.per_stream is not None
    if contiguous and branch is None and int(starts[0]) % 2 == 0:
        return _draw_run(weights, key, stream, np.uint32(starts[0] // 2), size, drawn.width, sharding)
    first = np.zeros(size, np.uint32)
    first[: len(blocks)] = starts
    step = np.uint32(drawn.layout.step)
    if branch is None:
        return _draw(weights, key, stream, first, step, drawn.width, sharding)
    assert problem.group_of is not None
    group = np.zeros(size, np.int32)
    group[: len(blocks)] = problem.group_of(blocks)
    table = branch.multipliers, branch.indices.astype(np.uint32), group
    return _draw_products(weights, key, stream, first, step, table, sharding)


def padded_blocks(blocks: int) -> int:
    """The number of blocks rounded up to 512 times a power of eight.

    >>> padded_blocks(3), padded_blocks(512), padded_blocks(5000)
    (512, 512, 32768)
    """
    size = _MIN_PADDED_BLOCKS
    while size < blocks:
        size *= 8
    return size


@functools.partial(jax.jit, static_argnames=("blocks", "width", "sharding"))
def _draw_run(
    weights: SamplerArrays, key: _Key, stream: Any, pair: Any, blocks: int, width: int, sharding: NamedSharding | None
) -> jax.Array:
    """Contiguous blocks [B, N], B even, that begin at pair `pair` of positions."""
    drawn = draw_pairs(weights, key, stream, pair, blocks * width // 2, jnp).reshape(blocks, width)
    return drawn if sharding is None else jax.lax.with_sharding_constraint(drawn, sharding)


@functools.partial(jax.jit, static_argnames=("width", "sharding"))
def _draw(
    weights: SamplerArrays, key: _Key, stream: Any, first: Any, step: Any, width: int, sharding: NamedSharding | None
) -> jax.Array:
    """Blocks [B, N] that begin at positions [B]."""
    index = first[:, None] + jnp.arange(width, dtype=jnp.uint32) * step
    drawn = draw_at(weights, key, stream, index, jnp)
    return drawn if sharding is None else jax.lax.with_sharding_constraint(drawn, sharding)


@functools.partial(jax.jit, static_argnames="sharding")
def _draw_products(
    weights: SamplerArrays, key: _Key, stream: Any, first: Any, step: Any, table: Any, sharding: NamedSharding | None
) -> jax.Array:
    """Candidates [B, N] of blocks that begin at positions [B]; `table`: multipliers, indices by group, and groups."""
    multipliers, indices, group = table
    index = first[:, None] + indices[group] * step
    drawn = multipliers[group] * draw_at(weights, key, stream, index, jnp)
    return drawn if sharding is None else jax.lax.with_sharding_constraint(drawn, sharding)
