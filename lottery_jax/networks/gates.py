"""Gates: small modules whose call gives the mask of one tensor."""

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.networks.variables import Mask


class FixedGate(nnx.Module):
    """A mask that is given, by a ticket or by what a learner makes of its scores."""

    def __init__(self, mask: jax.Array) -> None:
        self.mask = Mask(jnp.asarray(mask))

    def __call__(self) -> jax.Array:
        return self.mask[...]
