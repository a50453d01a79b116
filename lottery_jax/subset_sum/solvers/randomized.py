"""Randomised search for any number of candidates."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.algorithms.karmarkar_karp import differenced, of_signs, positive_target, sides_of
from lottery_jax.subset_sum.algorithms.sorted_sums import closest_subset
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.kernels import HOST_SIZES, at_hand
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.solver import HostSearch, SinglePass

_ROUNDED_BITS = 28  # of the numbers that are left: their doubles are candidates of the 32-bit search

_MOST_ON_HOST = 2**16


@dataclasses.dataclass(frozen=True)
class Randomized(SinglePass[Solution]):
    """Differencing down to some 25 numbers, the exact search over their signs, restarted; for N up to thousands.

    The problem is a partition (see `Differencing`). When `left` + 1 numbers are left their signs are searched at once,
    rounded to 28 bits (some 2**-25 of them is what they leave); each restart but the first puts two random numbers on
    opposite sides before all others, from which on nothing is as it was. The best subset seen is returned, restarts
    being compared in integers. U[-1, 1], medians, one restart: 2**-33 for N = 100, 2**-40 for 200, for 1000 2**-48,
    the end of the grid.
    About 8 N**2 + 12 N vector operations and a `MeetInTheMiddle` of `left` for each restart. On CPU, with Numba
    installed, `kernels.differencing_cpu` keeps the numbers in a heap, N log2 N steps: the same answers, sooner.
    One random choice of positions serves all problems of a call, so a problem's answer does not depend on its
    neighbours. `solve` needs a key. Karmarkar and Karp 1982; differencing with a search behind it: Korf 1998.

    >>> import jax, numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> candidates = np.random.default_rng(0).uniform(-1, 1, (4, 100))
    >>> solve(Problem(candidates, np.full(4, 0.3), 1e-8), Randomized(), key=jax.random.key(0)).within.all()
    np.True_
    """

    left: int = 24
    restarts: int = 1
    max_candidates: ClassVar[int] = 2**16
    needs_key: ClassVar[bool] = True
    failure: ClassVar[Status] = Status.NOT_FOUND
    wide: ClassVar[bool] = True
    fine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.left <= 24:
            raise InputError(f"left must be from 1 to 24 numbers, not {self.left}; two more cost twice as much")
        if self.restarts < 1:
            raise InputError(f"restarts must be at least 1, not {self.restarts}")

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        assert key is not None
        numbers, turned = _partition(grid)

        def restart(best, pair):
            side = _sides(numbers, pair, self.left)
            off = jnp.abs(jnp.where(side, numbers, -numbers).sum(0, dtype=numbers.dtype))
            return (jnp.where(off < best[1], side, best[0]), jnp.minimum(off, best[1])), None

        worst = jnp.zeros(numbers.shape, bool), jnp.full_like(numbers[0], jnp.iinfo(numbers.dtype).max)
        (side, _), _ = jax.lax.scan(restart, worst, _first_pairs(key, len(numbers), self.restarts))
        return _subset(side, turned, grid.candidates)

    def on_host(self, candidates: int, problems: int, key: jax.Array | None) -> HostSearch | None:
        weight = problems * max(candidates // 32, 1)  # in problems that a kernel of 24 candidates takes as long for
        if min(self.left, candidates) not in HOST_SIZES or not at_hand(
            "differencing_cpu", candidates, weight, range(_MOST_ON_HOST + 1)
        ):
            return None
        from lottery_jax.subset_sum.kernels import differencing_cpu  # Numba takes a while to import

        def search(grid: Grid, count: int) -> np.ndarray:
            assert key is not None
            pairs = np.asarray(_first_pairs(key, candidates + 1, self.restarts))
            # Of all problems, also of those that are not solved: of any other number it would be compiled anew.
            numbers, turned = _partition_jit(grid)
            side = np.zeros(numbers.shape, bool)
            side[:, :count] = differencing_cpu.best_sides(np.asarray(numbers)[:, :count], pairs, self.left)
            return np.asarray(_subset_jit(side, turned, grid.candidates))[:, :count]

        return search

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        lists = 2 ** (17 if cpu else 24) // 2 ** ((self.left + 1) // 2)
        return max(1, min(128 if cpu else lists, lists, 2 ** (17 if cpu else 24) // candidates))


def _partition(grid: Grid) -> tuple[jax.Array, jax.Array]:
    """The bias and the candidates' sizes, [N + 1, B], and where a subset stands for what is left out, bool [B]."""
    target, turned = positive_target(grid)
    sizes = jnp.abs(grid.candidates)
    return jnp.concatenate([(sizes.sum(0, dtype=sizes.dtype) - 2 * target)[None], sizes]), turned


def _subset(side: jax.Array, turned: jax.Array, candidates: jax.Array) -> jax.Array:
    """Chosen candidates: with the bias on one side, the sizes on that side and the others differ by the bias."""
    return of_signs((side[1:] == side[0]) != turned, candidates)


_partition_jit, _subset_jit = jax.jit(_partition), jax.jit(_subset)


def _first_pairs(key: jax.Array, numbers: int, restarts: int) -> jax.Array:
    """Two different rows for each restart, the lower first, int32 [restarts, 2]; -1 for the first, which has none."""
    first, second = (
        jax.random.randint(own, (restarts,), 0, numbers - taken, jnp.int32)
        for taken, own in enumerate(jax.random.split(key))
    )
    second = second + (second >= first).astype(jnp.int32)
    pairs = jnp.stack([jnp.minimum(first, second), jnp.maximum(first, second)], 1)
    return pairs.at[0].set(-1)


def _sides(numbers: jax.Array, pair: jax.Array, left: int) -> jax.Array:
    """The sides of numbers [M, B], bool, where `pair` is put on opposite ones first."""
    count = len(numbers)
    if count <= left + 1:
        found = differenced(numbers, count)
        return sides_of(found, _best_signs(found.values), count)
    rows = jnp.arange(count, dtype=jnp.int32)[:, None]
    largest = numbers.argmax(0).astype(jnp.int32)
    second = jnp.where(rows == largest, -1, numbers).argmax(0).astype(jnp.int32)
    # Without a pair of its own a restart begins with the two largest, as differencing does.
    low, high = (jnp.where(pair[0] < 0, usual, own) for usual, own in zip((largest, second), pair, strict=True))
    values = [jnp.where(rows == at, numbers, 0).sum(0, dtype=numbers.dtype) for at in (low, high)]
    swap = values[1] > values[0]
    larger, smaller = jnp.where(swap, high, low), jnp.where(swap, low, high)
    gone = (rows == larger) | (rows == smaller)
    extended = jnp.concatenate([jnp.where(gone, -1, numbers), jnp.abs(values[0] - values[1])[None]])
    found = differenced(extended, left + 1, count - 1)
    side = sides_of(found, _best_signs(found.values), count + 1)
    return jnp.where(gone, side[-1] == (rows == larger), side[:-1])


def _best_signs(numbers: jax.Array) -> jax.Array:
    """Where the sign is plus, as the first's is, bool [L, B], in the sum +-numbers [L, B] nearest to 0 in 28 bits."""
    # A hair more, for rounding may push the sum of the integers over a power of two.
    total = numbers.sum(0, dtype=numbers.dtype)
    shift = jnp.maximum(64 - jax.lax.clz(total + (total >> 20)) - _ROUNDED_BITS, 0)
    rounded = ((numbers + ((jnp.int64(1) << shift) >> 1)) >> shift).astype(jnp.int32)
    others = rounded[1:]
    side = closest_subset(2 * others, others.sum(0, dtype=jnp.int32) - rounded[0])
    return jnp.concatenate([jnp.ones_like(rounded[:1], bool), side])
