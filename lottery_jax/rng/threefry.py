"""Threefry-2x32 with 20 rounds (Salmon et al. 2011): random bits from a counter, equal in NumPy and JAX.

It needs only uint32 additions, rotations and exclusive ors. ``xp`` is ``numpy`` or ``jax.numpy``.
"""

import operator
from typing import Any

import numpy as np

from lottery_jax.errors import InputError, listed_values, shown

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def checked_seed(seed: Any) -> int:
    """The seed as an int; raises `InputError` unless it is a whole number in [0, 2**64), of any library.

    >>> checked_seed(np.arange(3)[2])
    2
    """
    try:
        number = None if isinstance(seed, bool | np.bool_) else operator.index(seed)
    except TypeError:
        number = None
    if number is None:
        shape, dtype = getattr(seed, "shape", None), str(getattr(seed, "dtype", ""))
        if dtype.startswith("key<") or (dtype == "uint32" and shape and shape[-1] == 2):
            raise InputError(
                "seed must be a whole number in [0, 2**64), got a key of jax.random. Pass the number that made the key."
            )
        raise InputError(f"seed must be a whole number in [0, 2**64), got {shown(seed)}. Pass an int.")
    if not 0 <= number < 2**64:
        raise InputError(f"seed must be in [0, 2**64), got {number}. Pass a number of that range.")
    return number


def checked_seeds(seeds: Any) -> tuple[int, ...]:
    """Seeds in a list as ints; raises `InputError`.

    >>> checked_seeds(np.arange(3))
    (0, 1, 2)
    """
    return tuple(map(checked_seed, listed_values("seeds", seeds, "[0, 1, 2]")))


def seed_words(seed: int) -> tuple[np.uint32, np.uint32]:
    """The two 32-bit key words of a seed in [0, 2**64).

    >>> [int(word) for word in seed_words(2**32 + 5)]
    [5, 1]
    """
    seed = checked_seed(seed)
    return np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)


def threefry(key: tuple[Any, Any], counter: tuple[Any, Any], xp: Any = np) -> tuple[Any, Any]:
    """Two uint32 arrays of random bits from two key words and two uint32 arrays of counters."""
    u32 = xp.uint32
    keys = (u32(key[0]), u32(key[1]), u32(0x1BD11BDA) ^ u32(key[0]) ^ u32(key[1]))
    with np.errstate(over="ignore"):  # NumPy warns when a scalar wraps around
        x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
        for block in range(5):
            for rotation in _ROTATIONS[block % 2]:
                x0 = x0 + x1
                x1 = (x1 << u32(rotation)) | (x1 >> u32(32 - rotation))
                x1 = x1 ^ x0
            x0 = x0 + keys[(block + 1) % 3]
            x1 = x1 + (keys[(block + 2) % 3] + u32(block + 1))
    return x0, x1


def bits_at(key: tuple[Any, Any], stream: Any, index: Any, xp: Any = np) -> Any:
    """The bits at positions ``index`` of one stream, or of one stream for each position: uint32, as ``index``.

    Positions 2 b and 2 b + 1 are the two words of block b.
    """
    index = index.astype(xp.uint32)
    one = xp.uint32(1)
    counter = (xp.zeros_like(index) + stream, index >> one)
    even, odd = threefry(key, counter, xp)
    return xp.where(index & one == 0, even, odd)


def bits_of_blocks(key: tuple[Any, Any], stream: Any, block: Any, xp: Any = np) -> Any:
    """The bits at positions 2 b and 2 b + 1 for each block b (uint32 [B]) of a stream: uint32 [2 B].

    >>> blocks, key = np.arange(3, dtype=np.uint32), seed_words(7)
    >>> positions = np.arange(6, dtype=np.uint32)
    >>> bool((bits_of_blocks(key, np.uint32(1), blocks) == bits_at(key, np.uint32(1), positions)).all())
    True
    """
    words = threefry(key, (xp.zeros_like(block) + stream, block), xp)
    return xp.stack(words, -1).reshape(-1)


def multiply_high(x: Any, m: Any, xp: Any = np) -> Any:
    """floor(x * m / 2**32) for uint32 ``x`` and m < 2**26, in 32-bit arithmetic.

    >>> int(multiply_high(np.uint32(2**31), 5))
    2
    """
    u32 = xp.uint32
    low_m, high_m, mask, half = u32(m & 0xFFFF), u32(m >> 16), u32(0xFFFF), u32(16)
    x_low, x_high = x & mask, x >> half
    middle = x_low * high_m + ((x_low * low_m) >> half)
    cross = x_high * low_m
    carry = ((middle & mask) + (cross & mask)) >> half
    return x_high * high_m + (middle >> half) + (cross >> half) + carry
