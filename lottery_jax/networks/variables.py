"""The kinds of variables of a masked network."""

from flax import nnx


class Frozen(nnx.Variable):
    """A random source weight: drawn from the seed, never trained. Not an `nnx.Param`, so no optimiser sees it."""


class Mask(nnx.Variable):
    """A fixed mask, one entry (0 or 1) for each source weight."""
