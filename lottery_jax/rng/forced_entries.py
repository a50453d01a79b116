"""What the seed decides of a mask before anything is searched or learned: weights that are absent, or always kept.

-1 is absent, 1 locked (always kept), 0 left to the mask. It is drawn at the place of each random weight, so that other
ones are absent or locked in a block that is drawn again.
"""

import numpy as np

from lottery_jax.rng.random_tensor import RandomTensor, block_attempts
from lottery_jax.rng.sampler import forced_at
from lottery_jax.rng.threefry import seed_words


def has_forced_entries(drawn: RandomTensor) -> bool:
    """Whether the seed decides anything of a random tensor's mask."""
    return drawn.sampler.density < 1 or drawn.sampler.locked > 0


def forced_columns(
    drawn: RandomTensor, seed: int, blocks: np.ndarray, columns: np.ndarray, attempts: np.ndarray | int
) -> np.ndarray:
    """Of some random weights of some blocks: int8 in the shape that the three have together.

    >>> from lottery_jax.rng.random_tensor import ContiguousLayout
    >>> from lottery_jax.rng.sampler import Sampler
    >>> drawn = RandomTensor((1, 8), 8, Sampler("normal", density=0.6, locked=0.3), ContiguousLayout(8))
    >>> forced_columns(drawn, 3, np.array([0]), np.arange(8), 0).tolist()
    [-1, 1, 1, 1, -1, -1, -1, 1]
    """
    stream, position = drawn.positions(blocks, attempts)
    index = position + columns * drawn.layout.step
    return forced_at(drawn.sampler, seed_words(seed), np.broadcast_to(stream, index.shape), index.astype(np.uint32))


def forced_blocks(drawn: RandomTensor, seed: int, blocks: np.ndarray, attempts: np.ndarray | int) -> np.ndarray:
    """Of all random weights of blocks int64 [B], in these attempts: int8 [B, N]."""
    return forced_columns(drawn, seed, blocks[:, None], np.arange(drawn.width), np.reshape(attempts, (-1, 1)))


def forced_mask(drawn: RandomTensor, seed: int, redraws: np.ndarray) -> np.ndarray:
    """Of a whole random tensor, int8 in the shape of its mask. redraws: int64 rows (block, attempt)."""
    if not has_forced_entries(drawn):
        return np.zeros(drawn.shape, np.int8)
    blocks = forced_blocks(drawn, seed, np.arange(drawn.blocks), block_attempts(redraws, 0, drawn.blocks))
    return blocks.repeat(drawn.rows_per_block, 0).reshape(drawn.shape)
