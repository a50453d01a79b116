"""One pass of a solver over many problems: chunks that fit a cache, looped over by every device for itself."""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from lottery_jax.environment import cores
from lottery_jax.subset_sum.engine.devices import AXIS, is_single_cpu, is_split, on_every_device, problem_sharding
from lottery_jax.subset_sum.engine.grid import Grid, to_grid
from lottery_jax.subset_sum.engine.recompute import answers, two_parts
from lottery_jax.subset_sum.problem import Problem, Status
from lottery_jax.subset_sum.solver import HostSearch, SearchPass

_CALL_CHUNKS = 64  # chunks of one device in one compiled call

_HOST_CHUNK = 1 << 13  # problems in one call of a function of NumPy arrays

_HOST_CALL = 1 << 20  # and their candidates

_SMALL_CALL = 1 << 18  # candidates: up to so many a call has one shape for any number of problems

_IN_FLIGHT = 2  # calls: while one is searched, the next one's problems travel


class Rows:
    """The problems of one `solve`, on the host or on the devices of a mesh: JAX arrays never visit the host.

    A JAX array that is split over the mesh stays so; any other is copied to every device, and each takes its rows.
    """

    def __init__(self, problem: Problem, mesh: Mesh) -> None:
        self.mesh = mesh
        self.on_one_cpu = is_single_cpu(mesh)
        self.problems, self.candidates = problem.shape
        self.shared = problem.shared
        self.targets_per_row = problem.targets_per_row
        self.double = problem.double
        self.tolerance = problem.tolerance
        self._arrays: tuple[Any, Any] = problem.candidates, problem.targets
        self._split = not problem.shared and problem.targets_per_row == 1 and is_split(problem.candidates, mesh)
        self._on_device = any(isinstance(x, jax.Array) for x in self._arrays)
        if self._on_device:
            whole, split = on_every_device(mesh), problem_sharding(mesh)
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
        """Candidates [D C, N, B] and targets [D C, B], split over D devices; `parts` are each one's problems."""
        split, shape = problem_sharding(self.mesh), (self.mesh.size * chunks, chunk)
        if self._on_device:
            own = self.problems // self.mesh.size if self._split else 0
            places = _filled([part - device * own for device, part in enumerate(parts)], shape, np.int32)
            return _take(
                self.mesh,
                self._split,
                self.shared,
                self.targets_per_row,
                dtype,
                *self._arrays,
                jax.device_put(places, split),
            )
        values, targets = self._arrays
        if self.shared:
            values = np.broadcast_to(values, (self.problems, *values.shape))
        laid, wanted = (
            # Once, here: XLA would read across the rows again in every step.
            np.moveaxis(_filled([_rows(all_, part, each) for part in parts], shape, dtype), 1, -1).copy(order="C")
            for all_, each in ((values, self.targets_per_row), (targets, 1))
        )
        # With several devices, a call given NumPy would copy all of it to each.
        return jax.device_put((laid, wanted), split) if self.mesh.size > 1 else (laid, wanted)


def _rows(values: np.ndarray, index: np.ndarray, each: int) -> np.ndarray:
    if each == 1 and len(index) and index[-1] - index[0] + 1 == len(index):
        return values[index[0] : index[-1] + 1]  # neighbours need no copy
    return values[index // each]


def _filled(parts: list[np.ndarray], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Each device's rows at the start of its share of an array of zeros [D C, B, ...]."""
    count = len(parts)
    laid = np.zeros((count, shape[0] // count * shape[1], *parts[0].shape[1:]), dtype)
    for share, part in zip(laid, parts, strict=True):
        share[: len(part)] = part
    return laid.reshape(*shape, *laid.shape[2:])


@functools.partial(jax.jit, static_argnames=("mesh", "split", "shared", "each", "dtype"))
def _take(mesh: Mesh, split: bool, shared: bool, each: int, dtype: Any, values: Any, targets: Any, places: Any) -> Any:
    """Candidates [D C, N, B] and targets [D C, B] at `places` [D C, B] of [P / each, N] or [N] and of [P]."""
    held, own = PartitionSpec(AXIS) if split else PartitionSpec(), PartitionSpec(AXIS)

    def one_device(values: jax.Array, targets: jax.Array, places: jax.Array) -> tuple[jax.Array, ...]:
        rows = jnp.broadcast_to(values, (*places.shape, *values.shape)) if shared else values[places // each]
        return tuple(jnp.moveaxis(x.astype(dtype), 1, -1) for x in (rows, targets[places]))

    return jax.shard_map(one_device, mesh=mesh, in_specs=(held, held, own), out_specs=own, check_vma=False)(
        values, targets, places
    )


@dataclasses.dataclass(frozen=True)
class _Call:
    """Which problems, as places in the pass's index, each device searches, and the answers on their way."""

    queues: list[range]
    answers: tuple[jax.Array, ...]


def search_rows(
    stage: SearchPass,
    rows: Rows,
    index: np.ndarray,
    key: jax.Array | None,
    wide: bool,
    closed: Callable[[int], None],
) -> tuple[np.ndarray, ...]:
    """Search the problems at the ascending `index`: bits [R, W], residuals [R], status [R].

    closed: told of so many more problems that need no further pass.
    """
    mesh = rows.mesh
    cpu = mesh.devices[0].platform == "cpu"
    # XLA runs such a loop on one core: a lone CPU device gets a call from each core's thread.
    workers = cores() if rows.on_one_cpu else 1
    queues = rows.queues(index)
    longest = max(len(queue) for queue in queues)
    host = stage.on_host(rows.candidates, len(index), key) if rows.on_one_cpu and wide == stage.wide else None
    chunk = stage.chunk_size(rows.candidates, cpu) if host is None else _host_chunk(rows.candidates)
    chunks = _CALL_CHUNKS if host is None else 1
    if chunk * chunks * rows.candidates > _SMALL_CALL:
        # Sizes are powers of eight, so that few shapes are ever compiled.
        chunk = min(chunk, _power_of_eight(longest))
        chunks = min(chunks, _power_of_eight(-(-longest // (chunk * workers))))
    # Empty chunks at the end are not searched.
    share = chunk * min(chunks, max(-(-longest // (chunk * workers)), 1))
    x64 = wide or rows.double
    dtype = np.float64 if x64 else np.float32
    tolerance = two_parts(rows.tolerance, dtype)

    def start(place: int) -> _Call:
        parts = [queue[place : place + share] for queue in queues]
        # The setting belongs to the thread, so each call makes its own.
        with jax.enable_x64(x64):
            values, targets = rows.laid_out([index[part.start : part.stop] for part in parts], chunks, chunk, dtype)
            if host is None:
                used = np.array([-(-len(part) // chunk) for part in parts], np.int32)
                found = _search(stage, wide, mesh, values, targets, tolerance, used, key)
            else:
                found = _search_on_host(stage, wide, host, values, targets, tolerance, len(parts[0]))
        for answer in found:
            answer.copy_to_host_async()
        return _Call(parts, found)

    def finish(call: _Call) -> tuple[_Call, list[np.ndarray]]:
        fetched = jax.device_get(call.answers)
        return call, [answer.reshape(mesh.size, chunks * chunk, *answer.shape[1:]) for answer in fetched]

    def finished() -> Iterator[tuple[_Call, list[np.ndarray]]]:
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
    for call, found in finished():
        if not gathered:
            gathered = [np.empty((len(index), *answer.shape[2:]), answer.dtype) for answer in found]
        for device, places in enumerate(call.queues):
            for whole, answer in zip(gathered, found, strict=True):
                whole[places.start : places.stop] = answer[device, : len(places)]
            closed(number_closed(stage, found[-1][device, : len(places)]))
    return tuple(gathered)


def number_closed(stage: SearchPass, status: np.ndarray) -> int:
    """How many problems, of which a pass found this status, need no further one."""
    return int((~stage.still_open(status == Status.WITHIN)).sum())


@functools.partial(jax.jit, static_argnames=("stage", "wide", "mesh"))
def _search(
    stage: SearchPass, wide: bool, mesh: Mesh, candidates: Any, targets: Any, tolerance: Any, used: Any, key: Any
) -> Any:
    """Each device d searches the first used[d] of its C chunks: candidates [D C, N, B], targets [D C, B]."""
    own, every = PartitionSpec(AXIS), PartitionSpec()
    specs = own, own, every, own, every
    device = functools.partial(_search_chunks, stage, wide)
    # Nothing is exchanged, so there is nothing for the check of varying axes to find.
    mapped = jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)
    return mapped(candidates, targets, tolerance, used, key)


def _search_chunks(
    stage: SearchPass, wide: bool, candidates: Any, targets: Any, tolerance: Any, used: Any, key: Any
) -> Any:
    dtype = jnp.int64 if wide else jnp.int32

    # On the grid before the loop: inside it, XLA would round anew wherever a candidate is read.
    grids = jax.vmap(to_grid, (0, 0, None, None, None))(candidates, targets, tolerance[0], dtype, stage.fine)

    def one_chunk(place: jax.Array) -> jax.Array:
        return stage.search(jax.tree.map(lambda all_: all_[place], grids), key)

    def step(place: jax.Array, found: jax.Array) -> jax.Array:
        return found.at[place].set(one_chunk(place))

    shape = jax.eval_shape(one_chunk, jax.ShapeDtypeStruct((), jnp.int32)).shape
    chosen = jax.lax.fori_loop(0, used[0], step, jnp.zeros((len(targets), *shape), bool))

    def flat(chunks: jax.Array) -> jax.Array:
        """[C, ..., B] to [..., C B]."""
        return jnp.moveaxis(chunks, 0, -2).reshape(*chunks.shape[1:-1], -1)

    given = flat(candidates), flat(targets), tolerance, flat(grids.error)
    return answers(*given, flat(chosen), int(stage.failure), stage.sized)


def _search_on_host(
    stage: SearchPass, wide: bool, search: HostSearch, candidates: Any, targets: Any, tolerance: Any, used: int
) -> tuple[jax.Array, ...]:
    """As `_search` by a function of NumPy arrays, for the first `used` of candidates [1, N, B] and targets [1, B]."""
    given = candidates[0], targets[0], tolerance
    grid = _on_grid(*given, np.int64 if wide else np.int32, stage.fine)
    chosen = np.zeros(given[0].shape, bool)
    chosen[:, :used] = search(grid, used)
    return _answers(*given, grid.error, chosen, int(stage.failure), stage.sized)


_answers = jax.jit(answers, static_argnums=6)


@functools.partial(jax.jit, static_argnames=("dtype", "fine"))
def _on_grid(candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, dtype: Any, fine: bool) -> Grid:
    return to_grid(candidates, targets, tolerance[0], dtype, fine)


def _host_chunk(candidates: int) -> int:
    """Problems in one call of a function of NumPy arrays."""
    return max(min(_HOST_CHUNK, _HOST_CALL // candidates), 1)


def _power_of_eight(count: int) -> int:
    return 8 ** math.ceil(math.log(max(count, 1), 8) - 1e-9)
