"""One pass of a solver over many problems: chunks that fit a cache, looped over by every device for itself."""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from lottery_jax.subset_sum.engine.devices import AXIS, is_lone_cpu, is_split, on_every_device, over_problems
from lottery_jax.subset_sum.engine.grid import Grid, residuals, to_grid
from lottery_jax.subset_sum.problem import Problem, words
from lottery_jax.subset_sum.solver import HostSearch, Stage

_CALL_CHUNKS = 64  # chunks of one device in one compiled call
_IN_FLIGHT = 2  # calls: while one is searched, the next one's problems travel


class Rows:
    """The problems of one `solve`, on the host or on the devices of a mesh: JAX arrays never visit the host.

    A JAX array that is split over the mesh stays so; any other is copied to every device, and each takes its rows.
    """

    def __init__(self, problem: Problem, mesh: Mesh) -> None:
        self.mesh = mesh
        self.on_one_cpu = is_lone_cpu(mesh)
        self.problems, self.candidates = problem.shape
        self.shared = problem.shared
        self.each = problem.each
        self.double = problem.double
        self.tolerance = problem.tolerance
        self._arrays: tuple[Any, Any] = problem.candidates, problem.targets
        self._split = not problem.shared and problem.each == 1 and is_split(problem.candidates, mesh)
        self._on_device = any(isinstance(x, jax.Array) for x in self._arrays)
        if self._on_device:
            whole, split = on_every_device(mesh), over_problems(mesh)
            # Without the setting a float64 target beside float32 candidates would be rounded.
            with jax.enable_x64(self.double):
                placed = (jax.device_put(x, split if self._split else whole) for x in self._arrays)
                self._arrays = tuple(placed)  # type: ignore[assignment]

    def on_host(self) -> tuple[np.ndarray, np.ndarray]:
        """Candidates [P / each, N] and targets [P]."""
        values, targets = (np.asarray(x) for x in self._arrays)
        return (values[None] if self.shared else values), targets

    def queues(self, index: np.ndarray) -> list[range]:
        """For each device, the places in the ascending `index` of the problems that it searches."""
        parts = np.arange(self.mesh.size + 1)
        if self._split:
            bounds = np.searchsorted(index, parts * (self.problems // self.mesh.size))
        else:
            bounds = parts * len(index) // self.mesh.size
        return [range(start, stop) for start, stop in itertools.pairwise(bounds.tolist())]

    def laid_out(self, parts: list[np.ndarray], chunks: int, chunk: int, dtype: Any) -> tuple[Any, Any]:
        """Candidates [D C, B, N] and targets [D C, B], split over D devices; `parts` are each one's problems."""
        split = over_problems(self.mesh)
        shape = len(parts) * chunks, chunk
        if self._on_device:
            own = self.problems // self.mesh.size if self._split else 0
            places = _filled([part - device * own for device, part in enumerate(parts)], shape, np.int32)
            return _take(
                self.mesh, self._split, self.shared, self.each, dtype, *self._arrays, jax.device_put(places, split)
            )
        values, targets = self._arrays
        if self.shared:
            values = np.broadcast_to(values, (self.problems, *values.shape))
        laid, wanted = (
            _filled([_rows(all_, part, each) for part in parts], (*shape, *all_.shape[1:]), dtype)
            for all_, each in ((values, self.each), (targets, 1))
        )
        # With several devices, a call given NumPy would copy all of it to each.
        return jax.device_put((laid, wanted), split) if self.mesh.size > 1 else (laid, wanted)


def _rows(values: np.ndarray, index: np.ndarray, each: int) -> np.ndarray:
    if each == 1 and len(index) and index[-1] - index[0] + 1 == len(index):
        return values[index[0] : index[-1] + 1]  # neighbours need no copy
    return values[index // each]


def _filled(parts: list[np.ndarray], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Each device's rows at the start of its share of an array of zeros [D C, B, ...]."""
    laid = np.zeros((len(parts), shape[0] // len(parts) * shape[1], *shape[2:]), dtype)
    for share, part in zip(laid, parts, strict=True):
        share[: len(part)] = part
    return laid.reshape(shape)


@functools.partial(jax.jit, static_argnames=("mesh", "split", "shared", "each", "dtype"))
def _take(mesh: Mesh, split: bool, shared: bool, each: int, dtype: Any, values: Any, targets: Any, places: Any) -> Any:
    """Rows at `places` [D C, B] of candidates [P / each, N] or [N] and of targets [P], each device its own."""
    held, own = PartitionSpec(AXIS) if split else PartitionSpec(), PartitionSpec(AXIS)

    def one_device(values: jax.Array, targets: jax.Array, places: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = jnp.broadcast_to(values, (*places.shape, *values.shape)) if shared else values[places // each]
        return rows.astype(dtype), targets[places].astype(dtype)

    return jax.shard_map(one_device, mesh=mesh, in_specs=(held, held, own), out_specs=own, check_vma=False)(
        values, targets, places
    )


@dataclasses.dataclass(frozen=True)
class _Call:
    """Which problems, as places in the pass's index, each device searches, and the answers on their way."""

    queues: list[range]
    answers: tuple[jax.Array, ...]


def search_rows(
    stage: Stage,
    rows: Rows,
    index: np.ndarray,
    key: jax.Array | None,
    wide: bool,
    progress: Callable[[int], None] | None,
) -> tuple[np.ndarray, ...]:
    """Search the problems at the ascending `index`: bits [R, W], residuals [R], within [R]."""
    mesh = rows.mesh
    cpu = mesh.devices[0].platform == "cpu"
    # XLA runs such a loop on one core: a lone CPU device gets a call from each core's thread.
    workers = (os.cpu_count() or 1) if rows.on_one_cpu else 1
    queues = rows.queues(index)
    longest = max(len(queue) for queue in queues)
    # Sizes are powers of eight, so that few shapes are ever compiled; empty chunks at the end are not searched.
    chunk = min(stage.chunk(rows.candidates, cpu), _power_of_eight(longest))
    needed = -(-longest // (chunk * workers))
    chunks = min(_CALL_CHUNKS, _power_of_eight(needed))
    share = chunk * min(chunks, needed)
    x64 = wide or rows.double
    dtype = np.float64 if x64 else np.float32
    host = stage.on_host(rows.candidates, len(index)) if rows.on_one_cpu and not wide else None

    def start(place: int) -> _Call:
        parts = [queue[place : place + share] for queue in queues]
        used = np.array([-(-len(part) // chunk) for part in parts], np.int32)
        # The setting belongs to the thread, so each call makes its own.
        with jax.enable_x64(x64):
            values, targets = rows.laid_out([index[part.start : part.stop] for part in parts], chunks, chunk, dtype)
            if host is None:
                answers = _search(stage, wide, mesh, values, targets, dtype(rows.tolerance), used, key)
            else:
                answers = _search_on_host(host, values, targets, dtype(rows.tolerance), chunk * int(used[0]))
        for answer in answers:
            answer.copy_to_host_async()
        return _Call(parts, answers)

    def finish(call: _Call) -> tuple[_Call, list[np.ndarray]]:
        fetched = jax.device_get(call.answers)
        found = [answer.reshape(mesh.size, chunks * chunk, *answer.shape[2:]) for answer in fetched]
        if progress is not None:
            progress(sum(len(queue) for queue in call.queues))
        return call, found

    def answers() -> Iterator[tuple[_Call, list[np.ndarray]]]:
        starts = range(0, longest, share)
        if workers > 1 and len(starts) > 1:
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                yield from pool.map(lambda place: finish(start(place)), starts)
            return
        # Calls are started by one thread: several could reach the devices in different orders.
        waiting = collections.deque[_Call]()
        for place in starts:
            waiting.append(start(place))
            if len(waiting) == _IN_FLIGHT:
                yield finish(waiting.popleft())
        yield from map(finish, waiting)

    gathered: list[np.ndarray] = []
    for call, found in answers():
        if not gathered:
            gathered = [np.empty((len(index), *answer.shape[2:]), answer.dtype) for answer in found]
        for device, places in enumerate(call.queues):
            for whole, answer in zip(gathered, found, strict=True):
                whole[places.start : places.stop] = answer[device, : len(places)]
    return tuple(gathered)


@functools.partial(jax.jit, static_argnames=("stage", "wide", "mesh"))
def _search(
    stage: Stage, wide: bool, mesh: Mesh, candidates: Any, targets: Any, tolerance: Any, used: Any, key: Any
) -> Any:
    """Each device d searches the first used[d] of its C chunks: candidates [D C, B, N], targets [D C, B]."""
    own, every = PartitionSpec(AXIS), PartitionSpec()
    specs = own, own, every, own, every
    device = functools.partial(_search_chunks, stage, wide)
    # Nothing is exchanged, so there is nothing for the check of varying axes to find.
    mapped = jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)
    return mapped(candidates, targets, tolerance, used, key)


def _search_chunks(stage: Stage, wide: bool, candidates: Any, targets: Any, tolerance: Any, used: Any, key: Any) -> Any:
    dtype = jnp.int64 if wide else jnp.int32

    # On the grid before the loop: inside it, XLA would round anew wherever a candidate is read.
    candidates, targets = jnp.moveaxis(candidates, 1, -1), jnp.moveaxis(targets, 1, -1)
    grids = jax.vmap(to_grid, (0, 0, None, None))(candidates, targets, tolerance, dtype)

    def one_chunk(place: jax.Array) -> tuple[jax.Array, ...]:
        on_grid = jax.tree.map(lambda all_: all_[place], grids)
        return answer(on_grid, stage.search(on_grid, key))

    shapes = jax.eval_shape(one_chunk, jax.ShapeDtypeStruct((), jnp.int32))
    empty = tuple(jnp.zeros((len(targets), *part.shape), part.dtype) for part in shapes)

    def step(place: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(all_.at[place].set(one) for all_, one in zip(found, one_chunk(place), strict=True))

    return jax.lax.fori_loop(0, used[0], step, empty)


def answer(grid: Grid, chosen: jax.Array) -> tuple[jax.Array, ...]:
    """Bits [B, W], residuals [B] (or [B, D]) and within [B] of the chosen candidates, bool [N, B].

    A search over several sizes has them in front, [K, N, B]; its answers have them behind the problems.
    """
    vectors = grid.targets.ndim == 2
    taken = jnp.where(chosen[:, None] if vectors else chosen, grid.candidates, 0)
    steps = taken.sum(-1 - grid.targets.ndim, dtype=grid.targets.dtype) - grid.targets
    within = (jnp.abs(steps) <= grid.tolerance) & (grid.clipped == 0)
    within = within.all(0) if vectors else within
    return tuple(jnp.moveaxis(x, -1, 0) for x in (_pack(chosen), residuals(grid, steps), within))


_on_grid, _answers = jax.jit(to_grid, static_argnames="dtype"), jax.jit(answer)


def _search_on_host(search: HostSearch, candidates: Any, targets: Any, tolerance: Any, used: int) -> Any:
    """As `_search` by a function of NumPy arrays, for the first `used` of candidates [C, B, N] and targets [C, B]."""
    flat = np.asarray(candidates).reshape(-1, candidates.shape[2])
    grid = _on_grid(flat.T, np.asarray(targets).reshape(-1), tolerance, dtype=jnp.int32)
    chosen = np.zeros(flat.shape[::-1], bool)
    chosen[:, :used] = search(np.asarray(grid.candidates)[:, :used], np.asarray(grid.targets)[:used])
    return tuple(part.reshape(*targets.shape, *part.shape[1:]) for part in _answers(grid, chosen))


def _pack(chosen: jax.Array) -> jax.Array:
    """bool [..., N, B] to uint32 [..., W, B]."""
    *outer, count, batch = chosen.shape
    padding = [(0, 0)] * len(outer) + [(0, 32 * words(count) - count), (0, 0)]
    padded = jnp.pad(chosen, padding).reshape(*outer, words(count), 32, batch)
    placed = padded.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[:, None]
    return placed.sum(-2, dtype=jnp.uint32)


def _power_of_eight(count: int) -> int:
    return 8 ** math.ceil(math.log(max(count, 1), 8) - 1e-9)
