"""Randomised search for any number of candidates: restarted differencing with an exact search of the rest."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.algorithms.karmarkar_karp import differenced, from_partition, sides_of, to_partition
from lottery_jax.subset_sum.algorithms.pairs import first_row
from lottery_jax.subset_sum.algorithms.sorted_sums import meet_in_the_middle
from lottery_jax.subset_sum.engine.grid import FINEST_BITS, Grid
from lottery_jax.subset_sum.kernels import KERNEL_CANDIDATES, kernel_is_ready
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.solver import CpuKernel, SinglePass

_ROUNDED_BITS = 28  # of the remaining numbers; twice them are candidates of the 32-bit search


@dataclasses.dataclass(frozen=True)
class Randomized(SinglePass[Solution]):
    """Differencing to few numbers and an exact search of their signs, restarted; for N up to thousands.

    Every restart but the first puts two random numbers on opposite sides before it differences the others. The best
    subset of all restarts is returned. Median residuals for U[-1, 1] and one restart: 2**-33 for N = 100, 2**-40 for
    200, 2**-48 (the end of the grid) for 1000.
    A restart costs about 8 N**2 + 12 N vector operations and a ``MeetInTheMiddle`` of ``left`` candidates. On CPU with
    Numba, ``kernels.differencing_cpu`` keeps the numbers in a heap: N log2 N steps, the same answers.
    All problems of a call share the random positions, so an answer does not depend on other problems. ``solve`` needs a
    key. Karmarkar and Karp 1982; Korf 1998.

    Args:
        left: The exact search takes over when ``left`` + 1 numbers remain, rounded to 28 bits.
        restarts: Number of restarts.

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
    needs_int64: ClassVar[bool] = True
    finest_grid: ClassVar[bool] = True
    integer_bits: ClassVar[int] = FINEST_BITS

    def __post_init__(self) -> None:
        if not 1 <= self.left <= 24:
            raise InputError(f"left must be from 1 to 24 numbers, got {self.left}; two more cost twice as much")
        if self.restarts < 1:
            raise InputError(f"restarts must be at least 1, got {self.restarts}")

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        assert key is not None
        numbers, complement = to_partition(grid)

        def restart(best, pair):
            side = _sides(numbers, pair, self.left)
            residual = jnp.abs(jnp.where(side, numbers, -numbers).sum(0, dtype=numbers.dtype))
            return (jnp.where(residual < best[1], side, best[0]), jnp.minimum(residual, best[1])), None

        worst = jnp.zeros_like(numbers, bool), jnp.full_like(numbers[0], jnp.iinfo(numbers.dtype).max)
        (side, _), _ = jax.lax.scan(restart, worst, _first_pairs(key, len(numbers), self.restarts))
        return from_partition(side, complement, grid.candidates)

    def cpu_kernel(self, candidates: int, problems: int, key: jax.Array | None) -> CpuKernel | None:
        work = problems * max(candidates // 32, 1)  # in units of a problem of 24 candidates
        exact = min(self.left, candidates) in KERNEL_CANDIDATES["closest_subset_cpu"]
        if not (exact and kernel_is_ready("differencing_cpu", candidates, work)):
            return None
        from lottery_jax.subset_sum.kernels import differencing_cpu  # importing Numba takes a while

        def search(grid: Grid, count: int) -> np.ndarray:
            assert key is not None
            pairs = np.asarray(_first_pairs(key, candidates + 1, self.restarts))
            # Of all problems, also of those that are not solved, so that one shape is compiled.
            numbers, complement = _to_partition(grid)
            side = np.zeros(numbers.shape, bool)
            side[:, :count] = differencing_cpu.best_sides(np.asarray(numbers)[:, :count], pairs, self.left)
            return np.asarray(_from_partition(side, complement, grid.candidates))[:, :count]

        return search

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        lists = 2 ** (17 if cpu else 24) // 2 ** ((self.left + 1) // 2)
        return max(1, min(128 if cpu else lists, lists, 2 ** (17 if cpu else 24) // candidates))


_to_partition, _from_partition = jax.jit(to_partition), jax.jit(from_partition)


def _first_pairs(key: jax.Array, numbers: int, restarts: int) -> jax.Array:
    """Two different rows for each restart, the lower first, int32 [restarts, 2]; -1 for the first restart."""
    first, second = (
        jax.random.randint(own, (restarts,), 0, numbers - taken, jnp.int32)
        for taken, own in enumerate(jax.random.split(key))
    )
    second = second + (second >= first).astype(jnp.int32)
    pairs = jnp.stack([jnp.minimum(first, second), jnp.maximum(first, second)], 1)
    return pairs.at[0].set(-1)


def _sides(numbers: jax.Array, pair: jax.Array, left: int) -> jax.Array:
    """The sides of numbers [M, B], bool, if the rows ``pair`` are differenced first."""
    count = len(numbers)
    if count <= left + 1:
        found = differenced(numbers, count)
        return sides_of(found, _best_signs(found.values), count)
    rows = jnp.arange(count, dtype=jnp.int32)[:, None]
    # Not `argmax`, which JAX lowers by the settings of a caller that has not enabled 64-bit types.
    largest = first_row(numbers == numbers.max(0))
    others = jnp.where(rows == largest, -1, numbers)
    second = first_row(others == others.max(0))
    # The first restart begins with the two largest, as differencing does.
    low, high = (jnp.where(pair[0] < 0, default, row) for default, row in zip((largest, second), pair, strict=True))
    values = [jnp.where(rows == at, numbers, 0).sum(0, dtype=numbers.dtype) for at in (low, high)]
    swap = values[1] > values[0]
    larger, smaller = jnp.where(swap, high, low), jnp.where(swap, low, high)
    paired = (rows == larger) | (rows == smaller)
    extended = jnp.concatenate([jnp.where(paired, -1, numbers), jnp.abs(values[0] - values[1])[None]])
    found = differenced(extended, left + 1, count - 1)
    side = sides_of(found, _best_signs(found.values), count + 1)
    return jnp.where(paired, side[-1] == (rows == larger), side[:-1])


def _best_signs(numbers: jax.Array) -> jax.Array:
    """Signs, true for plus, bool [L, B], of the sum of +-numbers [L, B] nearest to 0 in 28 bits; the first is plus."""
    # A small margin, because rounding may push the sum of the integers over a power of two.
    total = numbers.sum(0, dtype=numbers.dtype)
    shift = jnp.maximum(64 - jax.lax.clz(total + (total >> 20)) - _ROUNDED_BITS, 0)
    rounded = ((numbers + ((jnp.int64(1) << shift) >> 1)) >> shift).astype(jnp.int32)
    others = rounded[1:]
    side = meet_in_the_middle(2 * others, others.sum(0, dtype=jnp.int32) - rounded[0])
    return jnp.concatenate([jnp.ones_like(rounded[:1], bool), side])
