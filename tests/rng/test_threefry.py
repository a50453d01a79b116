"""Random bits: published test vectors, the same on host and device, and products in 32 bits against those in 64."""

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.rng.threefry import bits_at, bits_of_blocks, multiply_high, seed_words, threefry


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_vectors(key, counter, expected):
    """The known answers of the Random123 distribution."""
    words = threefry(key, tuple(np.array([c], np.uint32) for c in counter))
    assert tuple(int(word[0]) for word in words) == expected


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_a_position_has_the_word_of_its_block(xp):
    key, blocks = seed_words(2**63 + 9), np.arange(5, 25, dtype=np.uint32)
    even, odd = threefry(key, (np.full(20, 3, np.uint32), blocks))
    wanted = np.stack([even, odd], -1).reshape(-1)
    np.testing.assert_array_equal(bits_of_blocks(key, xp.uint32(3), xp.asarray(blocks), xp), wanted)
    positions = xp.arange(10, 50, dtype=xp.uint32)
    np.testing.assert_array_equal(bits_at(key, xp.uint32(3), positions, xp), wanted)
    np.testing.assert_array_equal(bits_at(key, xp.full(40, 3, xp.uint32), positions[::-1], xp), wanted[::-1])


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("m", [1, 5, 2**16 - 1, 2**16, 2**25 + 1, 2**26 - 1])
def test_the_high_word_of_a_product_is_that_of_64_bits(xp, m):
    x = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32)
    x[:4] = 0, 1, 2**16 - 1, 2**32 - 1
    wanted = (x.astype(np.uint64) * np.uint64(m) >> np.uint64(32)).astype(np.uint32)
    for factor in (m, np.uint32(m)):
        np.testing.assert_array_equal(multiply_high(xp.asarray(x), factor, xp), wanted)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed):
    with pytest.raises(InputError, match="seed must be in"):
        seed_words(seed)
