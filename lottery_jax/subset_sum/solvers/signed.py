"""Subsets with signs: coefficients -1, 0 and 1."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.algorithms.pairs import first_row
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Problem, Solution, pack_bits, unpack_bits
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class Signed(SinglePass[Solution]):
    """The least residual with each candidate dropped, added or subtracted, exact: a mask in {-1, 0, 1}.

    With 3**N sums, 13 candidates are as accurate as 21 without signs. The 3**(N/2) sums of both halves are sorted
    together and the nearest pair is adjacent: O(N 3**(N/2)) operations and memory. Horowitz and Sahni 1974.
    ``Solution.coefficients`` has the signs, ``Solution.subsets`` the added and subtracted candidates.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.7, 0.2, 0.15]), np.array([0.55]), tolerance=0.1)
    >>> solve(problem, Signed()).coefficients
    array([[ 1,  0, -1]], dtype=int8)
    """

    max_candidates: ClassVar[int] = 26

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        """Chosen candidates and negated candidates, bool [2 N, B]; see ``transform``."""
        count = grid.candidates.shape[0] // 2
        a, half = grid.candidates[:count], count // 2
        largest = jnp.abs(a).sum(0, dtype=a.dtype)
        target = jnp.clip(grid.targets, -largest, largest)
        left, right = _signed_sums(a[:half]), target - _signed_sums(a[half:])
        # The lowest bit tells the halves apart; neighbours of different halves differ by an odd number. A gap below a
        # sum of the left half is one too small.
        merged = jax.lax.sort(jnp.concatenate([2 * left, 2 * right + 1]), dimension=0)
        info = jnp.iinfo(merged.dtype)
        gap = merged[1:] - merged[:-1]
        gap = jnp.where(gap & 1 == 1, gap + (merged[:-1] & 1), info.max)
        least = gap.min(0)
        lower = jnp.where(gap == least, merged[:-1], info.min).max(0)
        is_right = lower & 1 == 1
        from_left = jnp.where(is_right, lower + least - 1, lower) >> 1
        from_right = jnp.where(is_right, lower, lower + least) >> 1
        digits = [
            (first_row(sums == value)[None] // (3 ** np.arange(rows, dtype=np.int32))[:, None]) % 3
            for sums, value, rows in ((left, from_left, half), (right, from_right, count - half))
        ]
        digit = jnp.concatenate(digits)
        return jnp.concatenate([digit == 1, digit == 2])

    def transform(self, problem: Problem) -> Problem:
        """Append the negated candidates, [P, 2 N]: the same sums without signs."""
        values: Any = problem.candidates
        xp: Any = jnp if isinstance(values, jax.Array) else np
        with jax.enable_x64(problem.integers):
            values = values.astype(np.int64) if problem.integers else values  # narrow integers may have no opposite
            return dataclasses.replace(problem, candidates=xp.concatenate([values, -values], -1))

    def finalise(self, found: Solution) -> Solution:
        """From chosen candidates and negated candidates [P, 2 N] to used and subtracted candidates [P, N]."""
        count = found.candidates // 2
        chosen = unpack_bits(found.bits, 2 * count)
        minus = chosen[:, count:]
        used = chosen[:, :count] | minus
        return dataclasses.replace(found, bits=pack_bits(used), minus=pack_bits(minus), candidates=count)

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        # `candidates` includes the negated ones.
        entries = 3 ** ((candidates // 2 + 1) // 2)
        return max(1, min(128, 2 ** (17 if cpu else 25) // entries))


def _signed_sums(a: jax.Array) -> jax.Array:
    """All sums with coefficients 0, 1 and -1, [3**rows, B]: digits 0, 1 and 2 of the position in base 3."""
    sums = jnp.zeros_like(a, shape=(1, *a.shape[1:]))
    for row in a:
        sums = jnp.concatenate([sums, sums + row, sums - row])
    return sums
