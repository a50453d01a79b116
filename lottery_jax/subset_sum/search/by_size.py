"""The least residual among subsets of exactly k candidates, exact, for one k or several.

Each subset of size k is a subset of size i of the first half joined to one of size k - i of the second. The halves'
sums are listed by size, and all pairs are tried: a subtraction, an absolute value and a minimum for each of the
C(N, k) subsets, operands in cache, nothing else per subset. For each entry of the second half's list only the least
distance is kept; the entry where it is least is then looked for again in the first half.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.search.pairs import bit_rows, first_row, least_distances, masks_of_size
from lottery_jax.subset_sum.search.sorted_by_size import closest_of_size

_MOST_SUBSETS = 2**26  # subsets of one size that are tried; sizes that have more are met in the middle by sorting


def closest_of_sizes(candidates: jax.Array, targets: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Chosen candidates, bool [K, N, B], of the nearest subset sum of each of K sizes (int [N, B] and [B]).

    A size above N chooses nothing. Sizes above N / 2 are found by their complement, and those with the most subsets as
    `sorted_by_size` does it.
    """
    count = candidates.shape[0]
    sorted_ = _sorted_sizes(count, sizes)
    few = [size for size in sizes if 2 * size <= count and size not in sorted_]
    many = [size for size in sizes if count / 2 < size <= count and size not in sorted_]
    chosen = dict.fromkeys(sizes, jnp.zeros_like(candidates, bool))
    if sorted_:
        if candidates.dtype != jnp.int64:
            raise InputError(f"sizes {sorted_} of {count} candidates need the 64-bit grid; leave grid at auto")
        # One program for all of them.
        found = jax.lax.map(lambda size: closest_of_size(candidates, targets, size)[0], jnp.array(sorted_, jnp.int64))
        chosen |= dict(zip(sorted_, found, strict=True))
    if few:
        chosen |= _closest(candidates, targets, few)
    if many:
        rest = candidates.sum(0, dtype=candidates.dtype) - targets
        dropped = _closest(candidates, rest, [count - size for size in many])
        chosen |= {count - size: ~subset for size, subset in dropped.items()}
    return jnp.stack([chosen[size] for size in sizes])


def problems_at_once(candidates: int, sizes: tuple[int, ...], cpu: bool) -> int:
    """Problems per chunk: lists that stay in a core's second-level cache; on an accelerator about 1 GiB of lists."""
    half = candidates - candidates // 2
    sorted_ = _sorted_sizes(candidates, sizes)
    if sorted_:
        return 2 ** max((16 if cpu else 24) - half, 0)
    most = max(min(size, candidates - size) for size in sizes if size <= candidates)
    longest = sum(math.comb(half, size) for size in range(most + 1))
    return (
        max(1, min(128, 2 ** (18 - longest.bit_length()))) if cpu else 2 ** min(max(24 - longest.bit_length(), 0), 14)
    )


def _sorted_sizes(candidates: int, sizes: tuple[int, ...]) -> list[int]:
    return [size for size in sizes if math.comb(candidates, size) > _MOST_SUBSETS]


def sums_by_size(a: jax.Array, most: int) -> list[jax.Array]:
    """Sums of all subsets of 0, 1, ... `most` rows of `a` (as many as there are), in the order of `masks_of_size`."""
    count, batch = a.shape
    sums = [jnp.zeros((1, batch), a.dtype)]
    for size in range(1, min(most, count) + 1):
        # Those whose last member is `row` add it to the subsets of the rows before, which come first in their list.
        fewer = [math.comb(row, size - 1) for row in range(count)]
        shorter = np.concatenate([np.arange(number, dtype=np.int32) for number in fewer])
        sums.append(_rows(sums[-1], shorter) + _rows(a, np.repeat(np.arange(count, dtype=np.int32), fewer)))
    return sums


def _rows(a: jax.Array, index: np.ndarray) -> jax.Array:
    return a.at[index].get(mode="promise_in_bounds")  # the index is known: no bounds to check per element


def _closest(candidates: jax.Array, targets: jax.Array, sizes: list[int]) -> dict[int, jax.Array]:
    """Chosen candidates, bool [N, B], for each of the sizes, none above N / 2."""
    count = candidates.shape[0]
    half, most = count // 2, max(sizes)
    left, right = sums_by_size(candidates[:half], most), sums_by_size(candidates[half:], most)
    distance: dict[tuple[int, int], jax.Array] = {}
    for i in range(len(left)):
        # All right parts that a left one of size i may meet, in one go.
        partners = [size - i for size in sizes if 0 <= size - i < len(right)]
        if partners:
            least = least_distances(jnp.concatenate([right[j] for j in partners]), targets - left[i])
            ends = np.cumsum([len(right[j]) for j in partners])[:-1]
            distance |= {(i, j): part for j, part in zip(partners, jnp.split(least, ends), strict=True)}
    masks = [
        [masks_of_size(rows, size) for size in range(len(sums))] for rows, sums in ((half, left), (count - half, right))
    ]
    chosen = {}
    for size in sizes:
        pairs = [(i, size - i) for i in range(size + 1) if (i, size - i) in distance]
        rows = jnp.concatenate([distance[pair] for pair in pairs])
        least = rows.min(0)
        at = first_row(rows == least)
        value = jnp.take_along_axis(jnp.concatenate([right[j] for _, j in pairs]), at[None], 0)
        left_size = jnp.asarray(np.repeat([i for i, _ in pairs], [len(right[j]) for _, j in pairs]))[at]
        sizes_of_rows = jnp.asarray(np.repeat([i for i, _ in pairs], [len(left[i]) for i, _ in pairs]))
        met = jnp.abs(targets - jnp.concatenate([left[i] for i, _ in pairs]) - value) == least
        partner = first_row(met & (sizes_of_rows[:, None] == left_size))
        words = (
            (jnp.asarray(np.concatenate([masks[0][i] for i, _ in pairs]))[partner], half),
            (jnp.asarray(np.concatenate([masks[1][j] for _, j in pairs]))[at], count - half),
        )
        chosen[size] = jnp.concatenate([bit_rows(word, rows) for word, rows in words])
    return chosen
