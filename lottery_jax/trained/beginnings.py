"""Where the kept weights of a pruned network begin, before it is trained again (Zhou et al. 2019, "mask-1 actions").

Rewinding gives each its own weight of before; the others ask what of it mattered: its value, or its sign.
"""

import dataclasses
from typing import Literal

import numpy as np

from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.networks.sources.drawn import ATTEMPT_STRIDE, Drawn

Beginning = Literal["rewind", "reinit", "reshuffle", "constant"]
MOST_ROUNDS = 1 << 12
NEW_STREAM = (
    3 << 30
)  # new weights are drawn from streams that neither the source's tensors use nor the scores of learners


def beginning_weights(
    beginning: Beginning,
    rewound: np.ndarray,
    mask: np.ndarray,
    drawn: Drawn,
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
