"""What becomes of pruned weights (Zhou et al. 2019, arXiv 1905.01067, "mask-0 actions").

They are zero; or stay frozen at their initial values; or that alone where training moved them away from zero, so that
what training did to them is taken to its end.
"""

from typing import Literal

import numpy as np

from lottery_jax.trained.criteria import magnitude_increase

Action = Literal["zero", "freeze", "movement"]


def frozen_mask(action: Action, initial: np.ndarray, final: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which of the pruned weights keep their initial values, bool; final: what training made of them before.

    >>> initial, final = np.array([1.0, 1.0, 1.0]), np.array([3.0, -2.0, 0.5])
    >>> frozen_mask("movement", initial, final, np.array([True, False, False])).tolist()
    [False, True, False]
    """
    if action == "zero":
        return np.zeros_like(mask)
    return ~mask if action == "freeze" else ~mask & (magnitude_increase(initial, final) >= 0)
