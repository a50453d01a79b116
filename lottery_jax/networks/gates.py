"""The kinds of variables of a masked network.

Gates: small modules whose call gives the mask of one tensor.
"""

import jax
import jax.numpy as jnp
from flax import nnx


class Frozen(nnx.Variable):
    """A random source weight: drawn from the seed, never trained. Not an `nnx.Param`, so no optimiser sees it."""


class Mask(nnx.Variable):
    """A fixed mask, one entry (0 or 1) for each source weight."""


class FixedGate(nnx.Module):
    """A mask that is given, by a ticket or by what a learner makes of its scores."""

    def __init__(self, mask: jax.Array) -> None:
        self.mask = Mask(jnp.asarray(mask))

    def __call__(self) -> jax.Array:
        return self.mask[...]
