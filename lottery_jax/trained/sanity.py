"""Other masks than the one that was found, to see what it is worth (Su et al. 2020, arXiv 2009.11094).

If a mask that is shuffled within its layers does as well, only their kept fractions mattered; if its inverse does, not
even these.
"""

import dataclasses
from typing import Literal

import numpy as np

from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.networks.sources.drawn import ATTEMPT_STRIDE, Drawn
from lottery_jax.sampler import Sampler
from lottery_jax.trained.beginnings import MOST_ROUNDS, NEW_STREAM

MaskKind = Literal["found", "shuffled", "inverted"]


def changed_mask(kind: MaskKind, mask: np.ndarray, drawn: Drawn, seed: int) -> np.ndarray:
    """The mask that is used in place of one that was found: as many kept if it is shuffled, all others if inverted."""
    if kind == "found":
        return mask
    if kind == "inverted":
        return ~mask
    return mask.reshape(-1)[np.argsort(chance(drawn, seed).reshape(-1), kind="stable")].reshape(mask.shape)


def chance(drawn: Drawn, seed: int) -> np.ndarray:
    """A random number in [-1, 1) for each weight of a tensor, from the seed alone and from streams of their own."""
    stream = NEW_STREAM + (MOST_ROUNDS + 1) * ATTEMPT_STRIDE + drawn.stream
    own = dataclasses.replace(drawn, sampler=Sampler.uniform(-1, 1), stream=stream)
    return own.draw_all(seed, NO_REDRAWS)
