"""The kinds of variables of a masked network; `nnx.split(model, Score, ...)` separates what is trained."""

from flax import nnx


class Frozen(nnx.Variable):
    """A random source weight: drawn from the seed, never trained. Not an `nnx.Param`, so no optimiser sees it."""


class Mask(nnx.Variable):
    """A fixed mask, one entry (0 or 1) per source weight."""


class Score(nnx.Variable):
    """A trainable score, one per source weight, from which a gate derives its mask."""
