"""The searches as pure JAX functions of arrays, for ``jit``, ``vmap``, ``lax.map`` and ``shard_map``.

They run the searches of the solvers on the same grid. ``solve`` is for large batches on the host: it picks the grid by
the values, uses the kernels for the CPU, and bounds the memory.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.subset_sum.algorithms.sorted_sums import count_within
from lottery_jax.subset_sum.engine.chunks import CHUNKS_PER_CALL, map_chunks, search_chunks
from lottery_jax.subset_sum.engine.devices import largest_sum, local_mesh
from lottery_jax.subset_sum.engine.grid import (
    FINEST_BITS,
    INT64_BITS,
    MAX_INT32_CANDIDATES,
    Grid,
    integers_need_int64,
)
from lottery_jax.subset_sum.engine.recompute import split_tolerance
from lottery_jax.subset_sum.problem import MIN_TOLERANCE, Solution, Status, checked_array, checked_tolerance, is_traced
from lottery_jax.subset_sum.solver import SearchPass, Solver
from lottery_jax.subset_sum.solvers.exact import MeetInTheMiddle
from lottery_jax.subset_sum.solvers.randomized import Randomized
from lottery_jax.subset_sum.solvers.smallest import Smallest

GridDtype = Literal["auto", "int32", "int64"]

_MAX_INT32_COUNT = 30  # candidates whose numbers of subsets an int32 holds


def closest_subset(candidates: Any, targets: Any, tolerance: Any = None, *, grid: GridDtype = "auto") -> Solution:
    """The subset of least residual of each problem, exact on the grid: ``solve(..., MeetInTheMiddle())``, bit for bit.

    A trace cannot read the values. So the 32-bit grid serves floats of up to 24 candidates even if ``solve`` would take
    the 64-bit grid for a small tolerance. Its step is at most 2**-27 of the sum of |candidates|, and the residual at
    most N + 1 steps above the least one. A problem with values that are not finite has the residual NaN.

    Args:
        candidates: [..., N], float32, float64 or integers, up to 44; leading axes broadcast with those of the targets.
        targets: [...], of the same kind.
        tolerance: Bound of |residual| for ``Solution.status``, a number or [...]; default: the least one that float32
            arrays may have (2**-80), and 0 for integers.
        grid: Integers of the search. "auto" takes int64 for float64, for more than 24 candidates and for integers
            whose sums need it. jax_enable_x64 is not needed.

    Returns:
        A ``Solution`` of JAX arrays: bits [..., ceil(N / 32)], residuals [...] in the dtype of the candidates (int64
        for integers) and status [...].

    Raises:
        InputError: A shape or dtype is invalid, integers could overflow, or a gradient is asked for.

    >>> import jax, jax.numpy as jnp
    >>> candidates, targets = jnp.array([[0.5, -0.25, 0.125], [0.5, 0.25, 0.125]]), jnp.array([0.3, 0.6])
    >>> jax.jit(jax.vmap(closest_subset))(candidates, targets).subsets
    Array([[ True,  True, False],
           [ True, False,  True]], dtype=bool)
    """
    return _find(closest_subset.__name__, MeetInTheMiddle(), candidates, targets, tolerance, None, grid)


def smallest_subset(candidates: Any, targets: Any, tolerance: Any, *, grid: GridDtype = "auto") -> Solution:
    """The subset of fewest candidates within the tolerance, exact on the grid: ``solve(..., Smallest())``.

    As ``closest_subset``, for up to 40 candidates. Among the subsets of that size it is the one of least residual; if
    no subset is within the tolerance, it is the one of least residual.

    >>> import jax.numpy as jnp
    >>> smallest_subset(jnp.array([0.5, 0.3, 0.2, 0.1]), jnp.array([0.0, 0.6]), 0.01).sizes
    Array([0, 2], dtype=int32)
    """
    return _find(smallest_subset.__name__, Smallest(), candidates, targets, tolerance, None, grid)


def randomized_subset(
    candidates: Any, targets: Any, key: jax.Array, tolerance: Any = None, *, left: int = 24, restarts: int = 1
) -> Solution:
    """A subset of small residual of any number of candidates: ``solve(..., Randomized(left, restarts), key=key)``.

    As ``closest_subset``, always on the 64-bit grid. All problems of a call share the random positions; under ``vmap``
    over keys, each key has its own.

    >>> import jax
    >>> candidates = jax.random.uniform(jax.random.key(0), (4, 100), minval=-1)
    >>> abs(randomized_subset(candidates, 0.3, jax.random.key(1)).residuals).max() < 1e-6
    Array(True, dtype=bool)
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise InputError(f"key must be a typed key, got {type(key).__name__}. Pass jax.random.key(seed).")
    solver = Randomized(left, restarts)
    return _find(randomized_subset.__name__, solver, candidates, targets, tolerance, key, "int64")


def subset_count(candidates: Any, targets: Any, tolerance: Any = 0) -> jax.Array:
    """The number of subsets whose sum is within the tolerance of the target, for integers, exact: int64 [...].

    The lists of ``MeetInTheMiddle`` are merged twice for each target, in O(N 2**(N/2)) operations. A candidate 0
    doubles the number.

    Args:
        candidates: [..., N], integers, up to 44; leading axes broadcast with those of the targets. In a trace of at
            most 32 bits, because larger sums could overflow unseen.
        targets: [...], integers.
        tolerance: Whole number of at least 0, or [...]; 0 asks for equality.

    Raises:
        InputError: A shape or dtype is invalid, sums could overflow, or a gradient is asked for.

    >>> import numpy as np
    >>> subset_count(np.array([1, 2, 3, 4, 5]), np.array([5, 6, 100]))
    Array([3, 3, 0], dtype=int64)
    """
    candidates = checked_array("candidates", candidates)
    if candidates.dtype.kind == "f":
        raise InputError(
            f"candidates must be integers to count subsets, got {candidates.dtype}."
            " Multiply by a power of two and round."
        )
    arrays, int64, batch = _checked(candidates, targets, tolerance, FINEST_BITS, "auto")
    count = candidates.shape[-1]
    MeetInTheMiddle().check(count)
    with jax.enable_x64(True):
        function = _function(subset_count.__name__, None, int64 or count > _MAX_INT32_COUNT)
        return function(*arrays, None)[0].reshape(batch)


def _find(
    name: str, solver: Solver, candidates: Any, targets: Any, tolerance: Any, key: jax.Array | None, grid: GridDtype
) -> Solution:
    count = np.shape(candidates)[-1] if np.ndim(candidates) else 0
    bits = min((one.integer_bits for one in solver.passes(max(count, 1))), default=INT64_BITS)
    arrays, int64, batch = _checked(candidates, targets, tolerance, bits, grid)
    solver.check(count)
    dtype = arrays[0].dtype
    with jax.enable_x64(True):
        found, residuals, status = _function(name, solver, int64)(*arrays, key)
        residuals = residuals.astype(np.int64 if dtype.kind in "iu" else dtype).reshape(batch)
        return Solution(found.reshape(*batch, found.shape[-1]), residuals, status.reshape(batch), count, solver=solver)


def _checked(
    candidates: Any, targets: Any, tolerance: Any, bits: int, grid: GridDtype
) -> tuple[tuple[Any, Any, Any], bool, tuple[int, ...]]:
    """Arrays [P, N], [P] and [P], the tolerance of 64 bits; True for the 64-bit grid; and the leading axes."""
    candidates = checked_array("candidates", candidates)
    if isinstance(targets, int | float) and not isinstance(targets, bool):
        targets = np.asarray(targets, candidates.dtype)
    targets = checked_array("targets", targets)
    integers = candidates.dtype.kind in "iu"
    if integers != (targets.dtype.kind in "iu"):
        raise InputError(
            "candidates and targets must both be integers or both floats, got"
            f" {candidates.dtype} and {targets.dtype}. Convert one of them."
        )
    if candidates.ndim == 0 or candidates.shape[-1] == 0:
        raise InputError(f"candidates must have shape [..., N] with N of at least 1, got {candidates.shape}")
    if grid not in get_args(GridDtype):
        raise InputError(f"grid {grid!r} is unknown; {suggest(grid, get_args(GridDtype))}")
    if tolerance is None:
        tolerance = 0 if integers else MIN_TOLERANCE[np.float32]
    tolerance = checked_tolerance(tolerance, candidates.dtype, on_device=True)
    try:
        batch = np.broadcast_shapes(candidates.shape[:-1], targets.shape, np.shape(tolerance))
    except ValueError:
        raise InputError(
            "candidates [..., N], targets [...] and tolerance [...] must have leading axes that broadcast, got shapes"
            f" {candidates.shape}, {targets.shape} and {np.shape(tolerance)}"
        ) from None
    count = candidates.shape[-1]
    if integers:
        int64 = integers_need_int64(_largest_sum(candidates, count), bits)
        limit = max(_largest_sum(targets, 1), 0 if is_traced(tolerance) else np.max(tolerance, initial=0))
        if limit >= 2**62:
            raise InputError("targets and tolerance must be below 2**62 for integers. Divide by a common factor.")
        if int64 and grid == "int32":
            raise InputError("grid must be auto or int64 for integers with large sums, got int32. Omit grid.")
        int64 |= grid == "int64"
        dtype = np.int64
    else:
        dtype = np.promote_types(candidates.dtype, targets.dtype)
        wide = dtype == np.float64 or count > MAX_INT32_CANDIDATES
        int64 = wide if grid == "auto" else grid == "int64"
    with jax.enable_x64(True):
        parts = jnp.asarray(candidates, dtype), jnp.asarray(targets, dtype)
        bound = jnp.asarray(tolerance).astype(np.int64 if integers else np.float64)
        problems = math.prod(batch)
        return (
            (
                jnp.broadcast_to(parts[0], (*batch, count)).reshape(problems, count),
                jnp.broadcast_to(parts[1], batch).reshape(problems),
                jnp.broadcast_to(bound, batch).reshape(problems),
            ),
            int64,
            batch,
        )


def _largest_sum(values: Any, width: int) -> float:
    """The largest sum of |integers| of a row; in a trace the largest that the dtype allows."""
    if isinstance(values, jax.Array) and is_traced(values):
        info = jnp.iinfo(values.dtype)
        return float(width) * max(-float(info.min), float(info.max))
    return largest_sum(values, width, values.size // width)


@functools.cache
def _function(name: str, solver: Solver | None, int64: bool) -> Callable[..., Any]:
    """The search of candidates [P, N], targets [P], tolerance [P] and a key, which batches itself under ``vmap``.

    Without a solver it counts. Problems of an axis of ``vmap`` are further problems of the same chunks.
    """

    @jax.custom_batching.custom_vmap
    def search(candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, key: Any) -> tuple[jax.Array, ...]:
        # Fused with what computes the arrays, they could round differently.
        candidates, targets, tolerance = jax.lax.optimization_barrier((candidates, targets, tolerance))
        with jax.enable_x64(True):
            if solver is None:
                return _count(int64, candidates, targets, tolerance)
            return _solve(solver, int64, candidates, targets, tolerance, key)

    @search.def_vmap
    def _(size: int, batched: Any, *arguments: Any) -> Any:
        *arrays, key = arguments
        with jax.enable_x64(True):
            for number, own in enumerate(batched[:3]):
                if not own:
                    arrays[number] = jnp.broadcast_to(arrays[number], (size, *arrays[number].shape))
            if batched[3]:
                found = jax.lax.map(lambda own: search(*own), (*arrays, key))
            else:
                shape = arrays[1].shape
                candidates, targets, tolerance = (part.reshape(math.prod(shape), *part.shape[2:]) for part in arrays)
                merged = search(candidates, targets, tolerance, key)
                found = tuple(part.reshape(*shape, *part.shape[1:]) for part in merged)
        return found, (True,) * len(found)

    function = jax.custom_jvp(search)

    @function.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        raise InputError(
            f"{name} must not be differentiated, because a subset does not change smoothly. Pass"
            " jax.lax.stop_gradient(candidates) and jax.lax.stop_gradient(targets)."
        )

    return jax.jit(function)


def _solve(
    solver: Solver, int64: bool, candidates: jax.Array, targets: jax.Array, tolerance: jax.Array, key: Any
) -> tuple[jax.Array, ...]:
    """The passes of a solver, as in ``solve``: bits [P, W], residuals [P] and status [P]."""
    within, arrays = int(Status.WITHIN), (candidates, targets, tolerance)
    first, *others = solver.passes(candidates.shape[1])
    bits, residuals, status = _run_pass(first, int64 or first.needs_int64, *arrays, key, len(targets))
    unsolved = jnp.asarray(first.unsolved(status == within))
    for search_pass in others:
        # Unsolved problems first, so that few chunks are searched.
        rows = jnp.argsort(~unsolved, stable=True)
        wide, searched = int64 or search_pass.needs_int64, unsolved.sum(dtype=jnp.int32)
        found = _run_pass(search_pass, wide, *(part[rows] for part in arrays), key, searched)
        new_bits, new_residuals, new_status = (part[jnp.argsort(rows)] for part in found)
        # An answer within the tolerance is never replaced by one that is not.
        better = unsolved & ((new_status == within) | (status != within))
        bits = jnp.where(better[:, None], new_bits, bits)
        residuals = jnp.where(better, new_residuals.astype(residuals.dtype), residuals)
        status = jnp.where(better, new_status, status)
        unsolved = unsolved & search_pass.unsolved(new_status == within)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        finite = jnp.isfinite(candidates).all(1) & jnp.isfinite(targets)
        bits = jnp.where(finite[:, None], bits, 0)
        residuals = jnp.where(finite, residuals, jnp.nan)
        status = jnp.where(finite, status, int(Status.NOT_FOUND)).astype(status.dtype)
    return bits, residuals, status


def _run_pass(
    search_pass: SearchPass,
    int64: bool,
    candidates: jax.Array,
    targets: jax.Array,
    tolerance: jax.Array,
    key: Any,
    searched: Any,
) -> tuple[jax.Array, ...]:
    """One pass over the first ``searched`` problems."""
    dtype: Any = np.float64 if int64 and candidates.dtype == np.float32 else candidates.dtype
    arrays = candidates.astype(dtype), targets.astype(dtype), split_tolerance(tolerance, dtype, jnp)
    search = functools.partial(search_chunks, search_pass, int64, key=key)
    # As in `solve`, where 64-bit types are enabled for the passes that need them.
    with jax.enable_x64(dtype != np.float32):
        return _in_calls(search, _chunk_size(search_pass, candidates), searched, *arrays)


def _count(int64: bool, candidates: jax.Array, targets: jax.Array, tolerance: jax.Array) -> tuple[jax.Array, ...]:
    def count(grid: Grid) -> jax.Array:
        return count_within(grid.candidates, grid.targets, grid.tolerance)

    def search(*arrays: jax.Array) -> tuple[jax.Array]:
        return (map_chunks(count, int64, False, *arrays)[1].reshape(-1).astype(np.int64),)

    chunk = _chunk_size(MeetInTheMiddle(), candidates)
    return _in_calls(search, chunk, len(targets), candidates, targets, split_tolerance(tolerance, np.int64, jnp))


def _chunk_size(search_pass: SearchPass, candidates: jax.Array) -> int:
    problems, count = candidates.shape
    cpu = local_mesh().devices[0].platform == "cpu"
    return max(min(search_pass.chunk_size(count, cpu), problems), 1)


def _in_calls(
    search: Callable[..., tuple[jax.Array, ...]],
    chunk: int,
    searched: Any,
    candidates: jax.Array,
    targets: jax.Array,
    tolerance: jax.Array,
) -> tuple[jax.Array, ...]:
    """``search`` of the chunks of [P, N], [P] and [2, P], in calls of as many chunks as ``solve`` makes.

    One call after the other bounds the memory, and what surrounds the search of a call stays in the cache.
    """
    problems, count = candidates.shape
    calls = max(-(-problems // (chunk * CHUNKS_PER_CALL)), 1)
    chunks = max(-(-problems // (chunk * calls)), 1)
    padding = calls * chunks * chunk - problems
    values = jnp.pad(candidates, ((0, padding), (0, 0))).reshape(calls, chunks, chunk, count)
    bounds = jnp.pad(tolerance, ((0, 0), (0, padding))).reshape(2, calls, chunks, chunk)
    wanted = jnp.pad(targets, (0, padding)).reshape(calls, chunks, chunk)
    begins = jnp.arange(calls, dtype=jnp.int32) * chunks
    used = jnp.clip(-(-searched // chunk) - begins, 0, chunks)

    def call(own: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        values, wanted, bounds, used = own
        return search(jnp.moveaxis(values, 1, 2), wanted, bounds, used[None])

    found = jax.lax.map(call, (values, wanted, jnp.moveaxis(bounds, 0, 1), used))
    return tuple(part.reshape(calls * chunks * chunk, *part.shape[2:])[:problems] for part in found)
