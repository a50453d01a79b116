"""Variables of masked networks, and the gate that returns a fixed mask."""

import jax
import jax.numpy as jnp
from flax import nnx


class Frozen(nnx.Variable):
    """A random source weight. It is not an `nnx.Param`, so that no optimiser trains it."""


class Mask(nnx.Variable):
    """A fixed mask: one entry, 0 or 1, for each source weight."""


class FixedGate(nnx.Module):
    """A gate with a fixed mask."""

    def __init__(self, mask: jax.Array) -> None:
        self.mask = Mask(jnp.asarray(mask))

    def __call__(self) -> jax.Array:
        return self.mask[...]
