"""The instance behind the lower bound of Pensia et al. 2020, Theorem 2: a linear map with nothing to spare.

So many matrices are pairwise different beyond eps that each needs a mask of its own: a source must have as many masks,
d^2 log2(1/eps) bits. Almost every random matrix is such a target; how wide a source must be before it is found is
measured by `experiments/pensia_lower_bound.py`.
"""

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.target import Target
from lottery_jax.networks.zoo.mlp import mlp_target


def lower_bound_target(size: int, *, seed: int) -> Target:
    """One layer x -> W x without ReLU or bias, W float32 [size, size] uniform on [-1, 1], inputs of any sign.

    >>> lower_bound_target(3, seed=0)
    <Target of 9 weights, 1 layer: fc1.weight [3, 3] ([out, in]), inputs [3] of any sign>
    """
    if size < 1:
        raise InputError(f"the size of a matrix is {size}; give 1 or more")
    drawn = np.random.default_rng(seed).uniform(-1, 1, (size, size))
    return mlp_target([drawn.astype(np.float32)])
