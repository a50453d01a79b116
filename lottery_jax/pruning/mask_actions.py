"""Mask-1 and mask-0 actions of Zhou et al. 2019 (arXiv 1905.01067), and masks for comparison.

Shuffled and inverted masks are the sanity checks of Su et al. 2020 (arXiv 2009.11094): if a mask that is shuffled
within its layers does as well, only the kept fractions of the layers matter.
"""

import dataclasses
from typing import Literal

import numpy as np

from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.pruning.criteria import magnitude_increase
from lottery_jax.rng.random_tensor import ATTEMPT_STRIDE, RandomTensor
from lottery_jax.rng.sampler import Sampler

Mask1Action = Literal["rewind", "reinit", "reshuffle", "constant"]

MAX_ROUNDS = 1 << 12

NEW_STREAM = 3 << 30  # streams of the sampler that neither source tensors nor scores use


def mask_1_weights(
    action: Mask1Action,
    rewound: np.ndarray,
    mask: np.ndarray,
    drawn: RandomTensor,
    *,
    same_sign: bool,
    seed: int,
    round_number: int,
) -> np.ndarray:
    """The weights of a tensor before the training of a round, float32, zero if pruned.

    Args:
        action: rewind, reinit (redrawn), reshuffle (within the tensor) or constant (the deviation of the tensor).
        rewound: The weights of the epoch that is rewound to.
        mask: Kept weights, bool.
        drawn: The random tensor of the first weights.
        same_sign: Whether weights that are not rewound get the signs of the rewound ones.
        seed: Seed of redrawn weights, of the shuffle and of signs.
        round_number: Number of the round, from 1.
    """
    if action == "rewind":
        return np.where(mask, rewound, np.float32(0))
    own = dataclasses.replace(drawn, stream=NEW_STREAM + round_number * ATTEMPT_STRIDE + drawn.stream)
    fresh = own.draw_all(seed, NO_REDRAWS)
    if action == "reshuffle":
        found = np.zeros_like(rewound)
        # The ranks of fresh draws are a shuffle that depends on the seed alone.
        found[mask] = rewound[mask][np.argsort(fresh[mask], kind="stable")]
    elif action == "constant":
        found = np.copysign(np.float32(drawn.sampler.standard_deviation), fresh)
    else:
        found = fresh
    if same_sign:
        found = np.copysign(found, rewound)
    return np.where(mask, found, np.float32(0))


Mask0Action = Literal["zero", "freeze", "movement"]


def frozen_mask(action: Mask0Action, initial: np.ndarray, final: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pruned weights that keep their first values, bool.

    Args:
        action: zero, none of them; freeze, all; movement, those whose absolute value training increased.
        initial: Weights before training.
        final: Weights after the last training in which they were not pruned.
        mask: Kept weights, bool.

    >>> initial, final = np.array([1.0, 1.0, 1.0]), np.array([3.0, -2.0, 0.5])
    >>> frozen_mask("movement", initial, final, np.array([True, False, False])).tolist()
    [False, True, False]
    """
    if action == "zero":
        return np.zeros_like(mask)
    return ~mask if action == "freeze" else ~mask & (magnitude_increase(initial, final) >= 0)


MaskKind = Literal["found", "shuffled", "inverted"]


def changed_mask(kind: MaskKind, mask: np.ndarray, drawn: RandomTensor, seed: int) -> np.ndarray:
    """A found mask, shuffled within its tensor, or inverted."""
    if kind == "found":
        return mask
    if kind == "inverted":
        return ~mask
    return mask.reshape(-1)[np.argsort(random_scores(drawn, seed).reshape(-1), kind="stable")].reshape(mask.shape)


def random_scores(drawn: RandomTensor, seed: int) -> np.ndarray:
    """A random number in [-1, 1) for each weight of a tensor, from the seed and a stream of its own."""
    stream = NEW_STREAM + (MAX_ROUNDS + 1) * ATTEMPT_STRIDE + drawn.stream
    own = dataclasses.replace(drawn, sampler=Sampler.uniform(-1, 1), stream=stream)
    return own.draw_all(seed, NO_REDRAWS)
