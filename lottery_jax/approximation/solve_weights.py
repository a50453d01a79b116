"""Drawing candidates on the devices: the weights of some blocks of a random tensor, times what their group has.

Solving the weights of some blocks, branch by branch, and the masks that their subsets make.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lottery_jax.approximation.job import Chunk, Job
from lottery_jax.constructions.base import Branch, Plan
from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import read_float64
from lottery_jax.rng.forced_entries import forced_blocks, has_forced_entries
from lottery_jax.rng.sampler import SamplerArrays, draw_at, draw_pairs, sampler_arrays
from lottery_jax.rng.threefry import seed_words
from lottery_jax.subset_sum import Problem, Solver, pack_bits, solve, unpack_bits
from lottery_jax.subset_sum.engine.devices import is_single_cpu, local_mesh, problem_sharding
from lottery_jax.subset_sum.engine.grid import fits_int32
from lottery_jax.subset_sum.problem import Status
from lottery_jax.subset_sum.solve import GridSize

_Key = tuple[np.uint32, np.uint32]

_LEAST_PADDED = 512


def candidates(plan: Plan, branch: Branch | None, blocks: np.ndarray, *, attempt: int, seed: int) -> jax.Array:
    """Candidates [P, N] of ascending blocks int64 [B] of a plan, all on one stream, in an attempt of theirs.

    P is one of few sizes from B up, so that few shapes are compiled; what is drawn beyond the blocks is not used.
    """
    drawn, size = plan.random_tensor, padded(len(blocks))
    streams, starts = drawn.positions(blocks, attempt)
    stream, weights, key = np.uint32(streams[0]), sampler_arrays(drawn.sampler), seed_words(seed)
    run = blocks[-1] - blocks[0] + 1 == len(blocks) and drawn.layout.per_stream is not None
    if run and branch is None and int(starts[0]) % 2 == 0:
        return _draw_run(weights, key, stream, np.uint32(starts[0] // 2), size, drawn.width, _spread(size))
    first = np.zeros(size, np.uint32)
    first[: len(blocks)] = starts
    step = np.uint32(drawn.layout.step)
    if branch is None:
        return _draw(weights, key, stream, first, step, drawn.width, _spread(size))
    assert plan.group is not None
    group = np.zeros(size, np.int32)
    group[: len(blocks)] = plan.group(blocks)
    return _draw_products(
        weights, key, stream, first, step, branch.multipliers, branch.slots.astype(np.uint32), group, _spread(size)
    )


def padded(blocks: int) -> int:
    """512 times a power of eight.

    >>> padded(3), padded(512), padded(5000)
    (512, 512, 32768)
    """
    size = _LEAST_PADDED
    while size < blocks:
        size *= 8
    return size


def on_host() -> bool:
    """A lone CPU device reads NumPy arrays where they are; elsewhere the candidates never leave the devices."""
    return is_single_cpu(local_mesh())


def _spread(blocks: int) -> NamedSharding | None:
    """Each device draws the candidates of the problems that it will search."""
    mesh = local_mesh()
    return None if on_host() or blocks % mesh.size else problem_sharding(mesh)


def _laid(drawn: jax.Array, spread: NamedSharding | None) -> jax.Array:
    return drawn if spread is None else jax.lax.with_sharding_constraint(drawn, spread)


@functools.partial(jax.jit, static_argnames=("blocks", "width", "spread"))
def _draw_run(
    weights: SamplerArrays,
    key: _Key,
    stream: Any,
    first_pair: Any,
    blocks: int,
    width: int,
    spread: NamedSharding | None,
) -> jax.Array:
    """Neighbouring blocks, [B, N] with B even, from the one that begins at pair `first_pair` of positions."""
    drawn = draw_pairs(weights, key, stream, first_pair, blocks * width // 2, jnp)
    return _laid(drawn.reshape(blocks, width), spread)


@functools.partial(jax.jit, static_argnames=("width", "spread"))
def _draw(
    weights: SamplerArrays, key: _Key, stream: Any, first: Any, step: Any, width: int, spread: NamedSharding | None
) -> jax.Array:
    """Blocks that begin at positions [B], [B, N]."""
    index = first[:, None] + jnp.arange(width, dtype=jnp.uint32) * step
    return _laid(draw_at(weights, key, stream, index, jnp), spread)


@functools.partial(jax.jit, static_argnames="spread")
def _draw_products(
    weights: SamplerArrays,
    key: _Key,
    stream: Any,
    first: Any,
    step: Any,
    multipliers: Any,
    slots: Any,
    group: Any,
    spread: NamedSharding | None,
) -> jax.Array:
    """Only what is needed of the blocks that begin at positions [B] is drawn: the slots of their groups."""
    index = first[:, None] + slots[group] * step
    return _laid(multipliers[group] * draw_at(weights, key, stream, index, jnp), spread)


PIECE = 1 << 15
"""Weights whose candidates exist at once on a lone CPU."""

_FLOAT32_STEP = 2.0**-24


def scaled_targets(job: Job, chunk: Chunk) -> np.ndarray:
    """The target weights of a chunk over their gain, one for each row: float32 [blocks, rows of a block]."""
    plan = job.plans[chunk.plan]
    each = plan.random_tensor.rows_per_block
    weights = np.arange(chunk.first * each, (chunk.first + chunk.count) * each) // plan.copies
    first, last = int(weights[0]), int(weights[-1])
    exact = read_float64(job.target.tensors, plan.tensor, first, last - first + 1)[weights - first]
    return (exact / plan.gain).astype(np.float32).reshape(chunk.count, each)


def branches_of(plan: Plan) -> tuple[Branch | None, ...]:
    """The branches of a plan; where all random weights of a row are candidates as they are, one without a table."""
    return plan.branches or (None,)


def pieces(plan: Plan, count: int) -> list[slice]:
    """A chunk in parts, on the host: smaller arrays than the allocator keeps for later. What is found is the same."""
    step = max(PIECE // plan.random_tensor.rows_per_block // 8, 1) * 8 if on_host() else count
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def search_blocks(
    job: Job,
    plan: Plan,
    branch: Branch | None,
    blocks: np.ndarray,
    targets: np.ndarray,
    attempt: int,
    how: "SolverConfig",
) -> Any:
    """What the solver finds for targets [B, R] of ascending blocks int64 [B] in an attempt: one answer a target."""
    drawn: Any = candidates(plan, branch, blocks, attempt=attempt, seed=job.seed)
    each = targets.shape[1]
    given = targets
    if plan.random_tensor.sampler.locked > 0:
        free, targets, given = without_locked(job, plan, branch, blocks, targets, attempt)
        free = np.pad(free, ((0, len(drawn) - len(free)), (0, 0)))
        drawn = np.where(free, np.asarray(drawn), np.float32(0))
        drawn = drawn if on_host() else jnp.asarray(drawn)
    if on_host():
        drawn, wanted = np.asarray(drawn)[: len(blocks)], targets.reshape(-1)
    else:
        # What was drawn beyond the targets stays: a slice on a device would be compiled for every length.
        wanted = np.zeros(len(drawn) * each, np.float32)
        wanted[: targets.size] = targets.reshape(-1)
        wanted = jnp.asarray(wanted)
    key = jax.random.key(job.seed % 2**32) if how.solver.needs_key else None
    found: Any = solve(
        Problem(drawn, wanted, how.tolerance, targets_per_row=each),
        how.solver,
        key=key,
        grid=how.grid,
        count=targets.size,
    )
    if plan.step and not np.array_equal(targets, given):
        # What is left of these weights is no float32, so that nothing found is exact.
        rounded = (targets != given).reshape(-1)
        found = dataclasses.replace(found, status=np.where(rounded, Status.NOT_FOUND, found.status).astype(np.uint8))
    if not has_forced_entries(plan.random_tensor):
        return found
    # Most solvers choose no candidate of 0; in those that do, such a one is an absent weight, or locked anyway.
    there = pack_bits(np.asarray(drawn)[: len(blocks)] != 0).repeat(each, 0)
    return dataclasses.replace(found, bits=found.bits & (there if found.bits.ndim == 2 else there[:, None]))


def without_locked(
    job: Job, plan: Plan, branch: Branch | None, blocks: np.ndarray, targets: np.ndarray, attempt: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which candidates are not locked, bool [B, N], and what the locked weights of a block leave of targets [B, R].

    The latter as float32, and in float64, in which it is made.
    """
    locked = forced_blocks(plan.random_tensor, job.seed, blocks, attempt) == 1
    kept = np.where(locked, plan.random_tensor.draw(job.seed, blocks, attempt), 0).astype(np.float64)
    free = ~locked
    if branch is not None:
        assert plan.group is not None
        if branch.whole is None:
            raise InputError("this construction does not say what its locked weights count; lock none of them")
        group = plan.group(blocks)
        kept *= branch.whole[group]
        free = np.take_along_axis(free, branch.slots[group], 1)
    left = targets - kept.sum(1, keepdims=True)
    return free, left.astype(np.float32), left


def with_locked(job: Job, plan: Plan, blocks: np.ndarray, mask: np.ndarray, attempt: int) -> np.ndarray:
    """Masks bool [B R, width] of blocks in an attempt, what is locked in them."""
    if plan.random_tensor.sampler.locked == 0:
        return mask
    return mask | (forced_blocks(plan.random_tensor, job.seed, blocks, attempt) == 1).repeat(
        len(mask) // len(blocks), 0
    )


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """The solver, the tolerance it is given, and its grid: from the plan alone, so that every chunk has the same."""

    solver: Solver
    tolerance: float
    grid: GridSize


def how_to_promise(plan: Plan, solver: Solver, tolerance: float) -> SolverConfig:
    """How to solve a plan so that what is found within the solver's tolerance is within `tolerance` in float64."""
    if tolerance == 0:
        # Sums and targets are multiples of the step: within half of one is equal.
        return _on_grid(plan, solver, plan.step / 2)
    scaled = tolerance / plan.gain
    # Products, targets and the tolerance are rounded to float32.
    summed = plan.candidates
    if plan.random_tensor.sampler.locked > 0:
        summed += (
            2 * plan.random_tensor.width
        )  # what is left of a target is rounded, too, and may be as large as all of a row
    margin = (summed * plan.bound + scaled) * _FLOAT32_STEP
    return _on_grid(plan, solver, max(scaled - margin, scaled / 2))


def how_to_promise_directly(plan: Plan, solver: Solver, tolerance: float) -> SolverConfig:
    """As `how_to_promise` where candidates and targets are float32 as they are: nothing is rounded, so no margin."""
    # A tensor of zeros asks for equality: what is below the candidates' step is equal.
    return _on_grid(plan, solver, tolerance or plan.bound * _FLOAT32_STEP / 4)


def _on_grid(plan: Plan, solver: Solver, allowed: float) -> SolverConfig:
    narrow = fits_int32(plan.candidates, plan.candidates * plan.bound, allowed)
    return SolverConfig(solver, allowed, "int32" if narrow else "int64")


def mask_rows(plan: Plan, rows: np.ndarray, subsets: list[np.ndarray]) -> np.ndarray:
    """Masks bool [R, width] of weights at flat positions [R], from the chosen candidates uint32 [R, W] by branch."""
    chosen = [unpack_bits(bits, plan.candidates) for bits in subsets]
    if not plan.branches:
        return chosen[0]
    assert plan.group is not None
    group, mask = plan.group(rows), np.zeros((len(rows), plan.random_tensor.width), bool)
    for branch, kept in zip(plan.branches, chosen, strict=True):
        own = np.zeros_like(mask)  # the branches use different units
        np.put_along_axis(own, branch.slots[group], kept, 1)
        mask |= own
    return mask
