"""Lossless tickets: every weight within half the last float32 bit of the largest weight in its tensor."""

import dataclasses

from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.promise import Promise
from lottery_jax.errors import InputError
from lottery_jax.networks.target import Target
from lottery_jax.subset_sum import Randomized

LOSSLESS = 2.0**-25
"""Of a tensor's largest |weight|: at most half the distance of neighbouring float32 numbers there."""
_EXACT = 24


def made_lossless(target: Target, construction: Construction, goal: Promise) -> tuple[Construction, Promise]:
    """A construction and a promise whose tickets are lossless; its number of candidates is kept if it is no default.

    Raises `InputError` for constructions that cannot, and for targets of float64, which a float32 does not hold.

    >>> import numpy as np
    >>> from lottery_jax.constructions.scalar import Scalar
    >>> from lottery_jax.networks.zoo.mlp import mlp_target
    >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
    >>> made_lossless(target, Scalar(), Promise())[0].candidates
    32
    """
    if goal.objective != "least-error":
        raise InputError(f"a lossless ticket takes the nearest subsets, not {goal.objective}; leave the objective out")
    for name in target.network.approximated:
        if target.tensors.tensors[name].dtype == "F64":
            raise InputError(f"tensor {name!r} is float64, and lossless is half the last bit of a float32; convert it")
    given = construction.candidates if construction.candidates != type(construction).candidates else None
    made = construction.lossless(given)
    # The exact search takes milliseconds beyond 24 candidates, and one in ten weights that is drawn again takes less.
    solver = goal.solver or (Randomized() if made.candidates > _EXACT else None)
    return made, dataclasses.replace(goal, tolerance=LOSSLESS, relative=True, solver=solver)
