"""Forced mask entries: the weights that the seed makes absent (-1) or locked in every mask (1); all others are 0.

They are drawn at the position of each random weight, so a redrawn block has other absent and locked weights.
Absent weights: Gadhikar et al. 2023. Locked weights: Otsuka et al. 2024.
"""

import numpy as np

from lottery_jax.rng.random_tensor import RandomTensor, block_attempts
from lottery_jax.rng.sampler import forced_at
from lottery_jax.rng.threefry import seed_words


def has_forced_entries(tensor: RandomTensor) -> bool:
    """True if the seed fixes entries of the tensor's mask."""
    return tensor.sampler.density < 1 or tensor.sampler.locked > 0


def forced_blocks(tensor: RandomTensor, seed: int, blocks: np.ndarray, attempts: np.ndarray | int) -> np.ndarray:
    """The forced entries of blocks int64 [B] in their attempts: -1 absent, 1 locked, 0 free, int8 [B, N].

    >>> from lottery_jax.rng.random_tensor import ContiguousLayout
    >>> from lottery_jax.rng.sampler import Sampler
    >>> tensor = RandomTensor((1, 8), 8, Sampler("normal", density=0.6, locked=0.3), ContiguousLayout(8))
    >>> forced_blocks(tensor, 3, np.array([0]), 0).tolist()
    [[-1, 1, 1, 1, -1, -1, -1, 1]]
    """
    stream, position = tensor.positions(blocks[:, None], np.reshape(attempts, (-1, 1)))
    index = position + np.arange(tensor.width) * tensor.layout.step
    return forced_at(tensor.sampler, seed_words(seed), stream, index)


def forced_mask(tensor: RandomTensor, seed: int, redraws: np.ndarray) -> np.ndarray:
    """The forced entries of a whole tensor, int8 in the shape of its mask; redraws: int64 rows (block, attempt)."""
    if not has_forced_entries(tensor):
        return np.zeros(tensor.shape, np.int8)
    blocks = forced_blocks(tensor, seed, np.arange(tensor.blocks), block_attempts(redraws, 0, tensor.blocks))
    return blocks.repeat(tensor.rows_per_block, 0).reshape(tensor.shape)
