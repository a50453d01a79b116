"""Constructions: theorems made executable. A target's weights go in, a ticket comes out, by subset sums."""

from lottery_jax.constructions.approximate import CONSTRUCTIONS, OBJECTIVES, approximate

__all__ = ["CONSTRUCTIONS", "OBJECTIVES", "approximate"]
