"""One chunk from positions to packed bits: draw, search, draw again what failed."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lottery_jax.constructions.model.job import Chunk, Job
from lottery_jax.errors import InputError
from lottery_jax.networks.copies import ATTEMPT_STRIDE, Copies
from lottery_jax.sampler import UniformGrid, draw_grid_at, draw_grid_pairs, seed_words, uniform_grid
from lottery_jax.subset_sum import Problem, Solution, solve, unpack_bits
from lottery_jax.subset_sum.engine.devices import is_lone_cpu, local_mesh, over_problems
from lottery_jax.subset_sum.engine.grid import fits_int32
from lottery_jax.subset_sum.solve import GridSize
from lottery_jax.tensor_file import TensorFile

_FLOAT32_STEP = 2.0**-24
_PIECE = 1 << 16  # weights whose candidates are on the host at once
Key = tuple[np.uint32, np.uint32]


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
    """What a chunk's file holds.

    mask: uint8, the bits [weights, C] of the chunk in row-major order, lowest bit first. redraws: int64 rows
    (block of the tensor, attempt). failures: weights not within the tolerance. kept: bits set.
    """

    mask: np.ndarray
    redraws: np.ndarray
    failures: int
    kept: int


def solve_chunk(job: Job, chunk: Chunk, file: TensorFile) -> Solved:
    """Find the subsets of all weights of a chunk; `file` is the model's, open.

    A weight that fails has its block drawn again, up to `max_redraws` times, from the stream of that attempt, and
    with shared candidates the whole row is solved again. A block that never succeeds keeps its first draw.
    """
    layer = job.tensors[chunk.tensor]
    row = layer.block_weights
    targets = file.read_float64(layer.name, chunk.first * row, chunk.count * row).astype(np.float32)
    targets = targets.reshape(chunk.count, row)
    # On the host in pieces: smaller arrays than the allocator keeps for later. What is found is the same.
    step = max(_PIECE // row // 8, 1) * 8 if _on_host() else chunk.count
    pieces = [slice(start, min(start + step, chunk.count)) for start in range(0, chunk.count, step)]
    found = [_solve(job, layer, _first_draw(job, chunk, piece), targets[piece]) for piece in pieces]
    bits, within = (np.concatenate(parts) for parts in zip(*found, strict=True))
    redraws = []
    failed = np.flatnonzero(~within.all(1))
    for attempt in range(1, job.max_redraws + 1):
        if not len(failed):
            break
        new_bits, new_within = _solve(job, layer, _draw_again(job, chunk, failed, attempt), targets[failed])
        settled = new_within.all(1)
        done = failed[settled]
        bits[done], within[done] = new_bits[settled], True
        redraws.append(np.stack([chunk.first + done, np.full_like(done, attempt)], 1))
        failed = failed[~settled]
    rows = np.concatenate(redraws) if redraws else np.zeros((0, 2), np.int64)
    flat = bits.reshape(chunk.count * row, -1)
    return Solved(
        np.packbits(unpack_bits(flat, job.candidates), bitorder="little"),
        rows[np.argsort(rows[:, 0])].astype(np.int64),
        int(np.count_nonzero(~within)),
        int(np.bitwise_count(flat).sum()),
    )


def _solve(job: Job, layer: Copies, drawn: jax.Array, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Subsets (bits uint32 [B, R, W]) and within (bool [B, R]) for targets [B, R]; `drawn` [P, C] has P >= B blocks."""
    allowed, grid = _promise(job, layer)
    blocks, row = targets.shape
    candidates: Any = drawn
    if _on_host():
        candidates, wanted = np.asarray(drawn)[:blocks], targets.reshape(-1)
    else:
        # What was drawn beyond the targets stays: a slice on a device would be compiled for every length.
        wanted = np.zeros(len(drawn) * row, np.float32)
        wanted[: targets.size] = targets.reshape(-1)
        wanted = jnp.asarray(wanted)
    key = jax.random.key(job.seed % 2**32)
    problem = Problem(candidates, wanted, allowed, each=row)
    found = solve(problem, job.solver, key=key, grid=grid, first=targets.size)
    if not isinstance(found, Solution) or found.minus is not None:
        raise InputError(f"{job.solver} does not answer with one subset for each weight; choose another solver")
    return found.bits.reshape(blocks, row, -1), found.within.reshape(blocks, row)


def _on_host() -> bool:
    """A lone CPU device reads NumPy arrays where they are; elsewhere the candidates never leave the devices."""
    return is_lone_cpu(local_mesh())


def _promise(job: Job, layer: Copies) -> tuple[float, GridSize]:
    """The tolerance for the solver and its grid, from the tensor alone: every chunk must have the same."""
    bound = layer.sampler.high
    # Targets and tolerance are rounded to float32; the margin keeps what the solver accepts true in float64.
    margin = (job.candidates * bound + job.tolerance) * _FLOAT32_STEP
    allowed = max(job.tolerance - margin, job.tolerance / 2)
    return allowed, "int32" if fits_int32(job.candidates, job.candidates * bound, allowed) else "int64"


def _place(job: Job, chunk: Chunk) -> tuple[UniformGrid, Key, int, int]:
    """Grid and key of the candidates, the chunk's stream, and its first block on that stream."""
    layer = job.tensors[chunk.tensor]
    part, place = divmod(chunk.first, layer.stream_blocks)
    return uniform_grid(layer.sampler), seed_words(job.seed), job.streams[chunk.tensor] + part, place


def _first_draw(job: Job, chunk: Chunk, piece: slice) -> jax.Array:
    """The blocks of a piece, which begins at a multiple of 8 of them: at an even position."""
    grid, key, stream, place = _place(job, chunk)
    first, blocks = np.uint32((place + piece.start) * job.candidates // 2), _padded(piece.stop - piece.start)
    return _draw_run(grid, key, np.uint32(stream), first, blocks, job.candidates, _spread(blocks))


def _draw_again(job: Job, chunk: Chunk, failed: np.ndarray, attempt: int) -> jax.Array:
    grid, key, stream, place = _place(job, chunk)
    blocks = np.zeros(_padded(len(failed)), np.uint32)
    blocks[: len(failed)] = place + failed
    stream = np.uint32(stream + ATTEMPT_STRIDE * attempt)
    return _draw_some(grid, key, stream, blocks, job.candidates, _spread(len(blocks)))


def _padded(blocks: int) -> int:
    """A power of two, so that few shapes are compiled; what is drawn beyond the blocks is not used."""
    return max(1 << (blocks - 1).bit_length(), 8)


def _spread(blocks: int) -> NamedSharding | None:
    """Each device draws the candidates of the problems that it will search."""
    mesh = local_mesh()
    return None if _on_host() or blocks % mesh.size else over_problems(mesh)


@functools.partial(jax.jit, static_argnames=("blocks", "copies", "spread"))
def _draw_run(
    grid: UniformGrid, key: Key, stream: Any, first_pair: Any, blocks: int, copies: int, spread: NamedSharding | None
) -> jax.Array:
    """Neighbouring blocks, [B, C] with B even, from the one that begins at pair `first_pair` of positions."""
    drawn = draw_grid_pairs(grid, key, stream, first_pair, blocks * copies // 2, jnp).reshape(blocks, copies)
    return drawn if spread is None else jax.lax.with_sharding_constraint(drawn, spread)


@functools.partial(jax.jit, static_argnames=("copies", "spread"))
def _draw_some(
    grid: UniformGrid, key: Key, stream: Any, blocks: jax.Array, copies: int, spread: NamedSharding | None
) -> jax.Array:
    """Blocks [B] anywhere on a stream, [B, C]."""
    index = blocks[:, None] * jnp.uint32(copies) + jnp.arange(copies, dtype=jnp.uint32)
    drawn = draw_grid_at(grid, key, stream, index, jnp)
    return drawn if spread is None else jax.lax.with_sharding_constraint(drawn, spread)
