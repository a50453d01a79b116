"""The closest pair of two half lists on NVIDIA Hopper: sorting networks in registers, one problem per warp.

NOT YET RUN ON A GPU. What is tested, without one: equality with the XLA code in Pallas' interpreter of GPU kernels;
what it lowers to for CUDA, and that a barrier stands between all writes and reads of shared memory; and, where JAX's
CUDA plugin is installed, equality of the machine's instructions (PTX), run one by one on a CPU. Nothing uses it
unasked (`MeetInTheMiddle(hopper_kernel=True)`) until a file in benchmarks/results/ shows a gain. docs/hopper-kernel.md
says more.

Layout. A value is an array [4, 32]: one problem per warp of a warpgroup, one list entry per lane, so a Python list of
R values is a list of 32 R entries in R registers per lane. Entry p is first at lane p % 32 of value p // 32:
compare-exchanges over distances of 32 and more are then instructions between registers. The rest, distances 16 to 1,
follows after a transposition of 32 x 32 entries through shared memory (rows padded to 33 words: no bank conflicts),
when lane l holds the entries 32 l ... 32 l + 31.

Lists. The sums of a half are kept with both signs, ascending: S. With one more candidate s, the new list is
sort(-|S - s|) followed by sort(|S - s|), both bitonic as they stand. No list is ever reversed, which across lanes
would cost a shuffle. XLA sorts the sums of the first eight candidates of each half; the signs of the closest pair are
found by the same XLA code as without the kernel.

The floor, counted by hand for N = 21 (halves of 10, the last candidate an outer loop of two), in operations per lane
slot and problem: lists 1.5 k + 8.2 k (256 to 512 each) and 3 k + 18.4 k (512 to 1024); per merge of 2048 entries 1 k
to prepare, 22.5 k in 11 stages, 12.3 k for gaps (subtract, rotate, minimum, compare, select, maximum). Together
103 k, of which each SM does 64 a clock (32-bit integer minimum, comparison and addition alike): for 397,000 problems
on the 132 SMs of an H200 at 1.98 GHz, 2.4 ms. Shared memory moves 23 k words a problem, 32 a clock: 1.1 ms, beside the
arithmetic. Device memory moves 2 KiB of started lists a problem, written and read: 0.4 ms, and XLA's passes that sort
them about 14 KiB: 1.2 ms. The goal for the whole of Experiment 1 is 15 ms.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from lottery_jax.subset_sum.search import sorted_sums

_LANES, _WARPS = 32, 4
_STARTED = 8  # candidates per half whose sums XLA sorts
_MOST_VALUES = 64  # of one merge in registers; longer ones are split by recomputing their first stages
_HALVES = range(_STARTED + 1, 13)  # shorter halves would leave lanes idle, longer ones overflow shared memory
# Lanes in pairs, though 32 in a row would name the same lanes: for fours of lanes JAX 0.12 would move matrices
# (ldmatrix, stmatrix), whose rows must start at multiples of 16 bytes; rows of 33 words do not.
_LAYOUT = plgpu.Layout.TILED(
    plgpu.Tiling(((_WARPS, _LANES), (2,), (1,))), warp_dims=(-4,), lane_dims=(-3, -2), vector_dim=-1
)
# JAX 0.10 must be given an index, 0.11 would rather not, later versions take none.
_index = inspect.signature(plgpu.load).parameters.get("idx")
_WHOLE = ((),) if _index is not None and _index.default is inspect.Parameter.empty else ()
_store = getattr(plgpu, "store", None)  # from JAX 0.12 on, where plain assignment refuses rows of 33 words


def closest_pair(
    left: jax.Array, right: jax.Array, goals: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`sorted_sums.closest_pair` by the kernel on CUDA devices for int32 halves of 9 to 12, by XLA elsewhere."""
    if len(left) not in _HALVES or len(right) != len(left) or left.dtype != jnp.int32:
        return sorted_sums.closest_pair(left, right, goals)
    return jax.lax.platform_dependent(left, right, goals, cuda=pair_in_registers, default=sorted_sums.closest_pair)


def pair_in_registers(
    left: jax.Array, right: jax.Array, goals: Sequence[jax.Array], interpret: Any = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`sorted_sums.closest_pair` by the kernel, for int32 left and right [h, B] and one or two goals [B]."""
    half, count = left.shape
    lists, steps, wanted = kernel_inputs(left, right, goals)
    entries = 2 ** (half + 1)  # of both lists together
    kernel = plgpu.kernel(
        functools.partial(_kernel, half=half, access=_Access(bool(interpret))),
        out_type=jax.ShapeDtypeStruct((len(lists), _LANES), jnp.int32),
        grid=(len(lists) // _WARPS,),
        grid_names=("block",),
        kernel_name="closest_pair",
        scratch_types={
            "square": plgpu.SMEM((_WARPS, _LANES, _LANES + 1), jnp.int32),
            "table": plgpu.SMEM((_WARPS, entries // _LANES**2, _LANES, _LANES + 1), jnp.int32),
            "edges": plgpu.SMEM((_WARPS, 1 + entries // _LANES), jnp.int32),
        },
        # Mosaic GPU would put two barriers around each store; the kernel has its own, one for 32 of them.
        compiler_params=plgpu.CompilerParams(
            lowering_semantics=plgpu.LoweringSemantics.Lane, unsafe_no_auto_barriers=True
        ),
        interpret=interpret,
    )
    gap, lower, second = kernel(lists, steps, wanted)[:count, :3].T
    return gap, lower, second == 1


def kernel_inputs(left: jax.Array, right: jax.Array, goals: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """What `_kernel` reads, the problems padded to a multiple of four: started lists, further candidates, goals."""
    missing = -left.shape[1] % _WARPS
    left, right = (jnp.pad(d, ((0, 0), (0, missing))) for d in (left, right))
    wanted = jnp.pad(jnp.stack(goals), ((0, 0), (0, missing)))
    upper = sorted_sums.upper_half(jnp.stack([left[:_STARTED], right[:_STARTED]], 1))
    lists = jnp.concatenate([-upper[::-1], upper]).transpose(2, 1, 0).reshape(wanted.shape[1], -1)
    steps = jnp.stack([left[_STARTED:], right[_STARTED:]], 1).reshape(-1, wanted.shape[1])
    return lists, steps, wanted


class _Access:
    """Loads, stores and layouts of values int32 [4, 32]; the interpreter knows no layouts."""

    def __init__(self, interpret: bool) -> None:
        self.interpret = interpret

    def load(self, ref: Any, layout: Any = _LAYOUT) -> jax.Array:
        return ref[...] if self.interpret else plgpu.load(ref, *_WHOLE, layout=layout, optimized=False)

    def store(self, ref: Any, value: jax.Array) -> None:
        if self.interpret or _store is None:
            ref[...] = value
        else:
            _store(ref, value, optimized=False)

    def lay(self, value: jax.Array) -> jax.Array:
        return value if self.interpret else plgpu.layout_cast(value, _LAYOUT)

    def spread(self, each: jax.Array) -> jax.Array:
        """One number per problem, [4], to all its lanes."""
        return self.lay(jax.lax.broadcast_in_dim(each, (_WARPS, _LANES), (0,)))

    def load_each(self, ref: Any) -> jax.Array:
        return self.spread(self.load(ref, _LAYOUT.reduce(1)))


def _kernel(
    lists: Any, steps: Any, wanted: Any, out: Any, *, square: Any, table: Any, edges: Any, half: int, access: _Access
) -> None:
    """Four problems: lists [B, 512] (left, right), steps [2 (h - 8), B], wanted [1 or 2, B] to out [B, 32].

    In shared memory: square [4, 32, 33] for transpositions, table [4, C, 32, 33] with both lists, edges [4, 1 + 32 C].
    """
    problems = pl.ds(_WARPS * jax.lax.axis_index("block"), _WARPS)
    across = pl.ds(0, _LANES)
    lane = access.lay(jax.lax.broadcasted_iota(jnp.int32, (_WARPS, _LANES), 1))

    def full(number: int) -> jax.Array:
        return access.lay(jnp.full((_WARPS, _LANES), number, jnp.int32))

    # As arrays: with 64-bit types on, a plain number would pass through int64, and lose its sign in Mosaic GPU.
    none_above, none_below = full(2**31 - 1), full(-(2**31))

    def entries(place: int) -> jax.Array:
        return access.load(table.at[:, place // _LANES, place % _LANES, across])

    def in_lanes(values: list[jax.Array]) -> list[jax.Array]:
        """The last five stages, for which lane l takes over the 32 entries of value l."""
        plgpu.commit_smem()  # a barrier, as below
        for row, value in enumerate(values):
            access.store(square.at[:, row, across], value)
        plgpu.commit_smem()
        return _stages([access.load(square.at[:, :, column]) for column in range(_LANES)], _LANES // 2)

    size = 2**_STARTED // _LANES  # values of one list
    sums = [access.load(lists.at[problems, pl.ds(_LANES * place, _LANES)]) for place in range(2 * size)]
    for level in range(half - _STARTED):
        longer = []
        for side in range(2):
            step = access.load_each(steps.at[2 * level + side, problems])
            upper = [jnp.abs(value - step) for value in sums[side * size : (side + 1) * size]]
            longer += _stages([-value for value in upper], size // 2) + _stages(upper, size // 2)
        for chunk in range(len(longer) // _LANES):
            for column, value in enumerate(in_lanes(longer[chunk * _LANES : (chunk + 1) * _LANES])):
                access.store(table.at[:, chunk, :, column], value)
        plgpu.commit_smem()
        size *= 2
        if level < half - _STARTED - 1:
            sums = [entries(place) for place in range(2 * size)]

    def merge(shift: jax.Array, best: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        goal = access.load_each(wanted.at[shift, problems])

        def bitonic(place: int) -> jax.Array:
            """The left list, ascending, then goal - right list, descending."""
            return entries(place) if place < size else goal - entries(place)

        key, lower = none_above, none_below
        chunk = 0
        for part in _parts(bitonic, 2 * size):
            part = _stages(part, len(part) // 2)
            for start in range(0, len(part), _LANES):
                values = in_lanes(part[start : start + _LANES])
                access.store(edges.at[:, pl.ds(1 + _LANES * chunk, _LANES)], values[-1])
                plgpu.commit_smem()
                below = [access.load(edges.at[:, pl.ds(_LANES * chunk, _LANES)]), *values[:-1]]
                keys = [_key(value - under) for value, under in zip(values, below, strict=True)]
                if chunk == 0:
                    keys[0] = jnp.where(lane == 0, none_above, keys[0])
                least = _tree(jnp.minimum, keys)
                at_least = _tree(
                    jnp.maximum,
                    [jnp.where(k == least, under, none_below) for k, under in zip(keys, below, strict=True)],
                )
                lower = jnp.where(least <= key, at_least, lower)  # later chunks hold larger values
                key = jnp.minimum(least, key)
                chunk += 1
        least = access.spread(key.min(1))
        at_least = access.spread(jnp.where(key == least, lower, none_below).max(1))
        better = least < best[0]
        found = (least, at_least, best[2] + 1)  # the first is always better, so that this counts from 0
        return tuple(jnp.where(better, new, old) for new, old in zip(found, best, strict=True))

    start = none_above, none_below, full(-1)
    key, lower, second = jax.lax.fori_loop(0, wanted.shape[0], merge, start)
    gap = (key << 1) | 1
    access.store(out.at[problems, :], jnp.where(lane == 0, gap, jnp.where(lane == 1, lower, second)))


def _stages(values: list[jax.Array], distance: int) -> list[jax.Array]:
    """Compare-exchanges over `distance`, half of it, ... 1, counted in values."""
    while distance:
        values = [
            (jnp.maximum if place & distance else jnp.minimum)(values[place & ~distance], values[place | distance])
            for place in range(len(values))
        ]
        distance //= 2
    return values


def _parts(bitonic: Callable[[int], jax.Array], count: int) -> Iterator[list[jax.Array]]:
    """A bitonic list of `count` values as bitonic lists short enough, each wholly below the next."""
    if count <= _MOST_VALUES:
        yield [bitonic(place) for place in range(count)]
    else:
        for side in (jnp.minimum, jnp.maximum):
            yield from _parts(lambda p, side=side: side(bitonic(p), bitonic(p + count // 2)), count // 2)


def _key(gap: jax.Array) -> jax.Array:
    """Rotated by one bit, a gap between different sides, which is odd, is negative; the least stays the least."""
    return jax.lax.shift_right_logical(gap, jax.lax.full_like(gap, 1)) | (gap << 31)


def _tree(combine: Callable, values: list[jax.Array]) -> jax.Array:
    while len(values) > 1:
        values = [combine(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
    return values[0]
