"""Where the kept weights of a pruned network begin, before it is trained again (Zhou et al. 2019, "mask-1 actions").

Rewinding gives each its own weight of before; the others ask what of it mattered: its value, or its sign.

What becomes of pruned weights (Zhou et al. 2019, arXiv 1905.01067, "mask-0 actions").

They are zero; or stay frozen at their initial values; or that alone where training moved them away from zero, so that
what training did to them is taken to its end.
Other masks than the one that was found, to see what it is worth (Su et al. 2020, arXiv 2009.11094).

If a mask that is shuffled within its layers does as well, only their kept fractions mattered; if its inverse does, not
even these.
"""

import dataclasses
from typing import Literal

import numpy as np

from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.pruning.criteria import magnitude_increase
from lottery_jax.rng.random_tensor import ATTEMPT_STRIDE, RandomTensor
from lottery_jax.rng.sampler import Sampler

Mask1Action = Literal["rewind", "reinit", "reshuffle", "constant"]

MOST_ROUNDS = 1 << 12

NEW_STREAM = (
    3 << 30
)  # new weights are drawn from streams that neither the source's tensors use nor the scores of learners


def mask_1_weights(
    beginning: Mask1Action,
    rewound: np.ndarray,
    mask: np.ndarray,
    drawn: RandomTensor,
    *,
    same_sign: bool,
    seed: int,
    round_number: int,
) -> np.ndarray:
    """The weights of a tensor when round `round_number` begins to train them, float32, zero where they are pruned.

    rewound: what is rewound to. same_sign: whether the others get the signs that these have; else theirs are chance.
    """
    if beginning == "rewind":
        return np.where(mask, rewound, np.float32(0))
    own = dataclasses.replace(drawn, stream=NEW_STREAM + round_number * ATTEMPT_STRIDE + drawn.stream)
    fresh = own.draw_all(seed, NO_REDRAWS)
    if beginning == "reshuffle":
        found = np.zeros_like(rewound)
        # The order of fresh draws is a shuffle that depends on the seed alone.
        found[mask] = rewound[mask][np.argsort(fresh[mask], kind="stable")]
    elif beginning == "constant":
        found = np.copysign(np.float32(drawn.sampler.standard_deviation), fresh)
    else:
        found = fresh
    if same_sign:
        found = np.copysign(found, rewound)
    return np.where(mask, found, np.float32(0))


Mask0Action = Literal["zero", "freeze", "movement"]


def frozen_mask(action: Mask0Action, initial: np.ndarray, final: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which of the pruned weights keep their initial values, bool; final: what training made of them before.

    >>> initial, final = np.array([1.0, 1.0, 1.0]), np.array([3.0, -2.0, 0.5])
    >>> frozen_mask("movement", initial, final, np.array([True, False, False])).tolist()
    [False, True, False]
    """
    if action == "zero":
        return np.zeros_like(mask)
    return ~mask if action == "freeze" else ~mask & (magnitude_increase(initial, final) >= 0)


MaskKind = Literal["found", "shuffled", "inverted"]


def changed_mask(kind: MaskKind, mask: np.ndarray, drawn: RandomTensor, seed: int) -> np.ndarray:
    """The mask that is used in place of one that was found: as many kept if it is shuffled, all others if inverted."""
    if kind == "found":
        return mask
    if kind == "inverted":
        return ~mask
    return mask.reshape(-1)[np.argsort(chance(drawn, seed).reshape(-1), kind="stable")].reshape(mask.shape)


def chance(drawn: RandomTensor, seed: int) -> np.ndarray:
    """A random number in [-1, 1) for each weight of a tensor, from the seed alone and from streams of their own."""
    stream = NEW_STREAM + (MOST_ROUNDS + 1) * ATTEMPT_STRIDE + drawn.stream
    own = dataclasses.replace(drawn, sampler=Sampler.uniform(-1, 1), stream=stream)
    return own.draw_all(seed, NO_REDRAWS)
