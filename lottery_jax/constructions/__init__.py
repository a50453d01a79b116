"""Constructions: theorems made executable. A target's weights go in, a ticket comes out, by subset sums."""

from lottery_jax.constructions.approximate import CONSTRUCTIONS, OBJECTIVES, approximate
from lottery_jax.constructions.importance import fisher_importance
from lottery_jax.constructions.within_budget import TargetFronts, approximate_within_budget

__all__ = [
    "CONSTRUCTIONS",
    "OBJECTIVES",
    "TargetFronts",
    "approximate",
    "approximate_within_budget",
    "fisher_importance",
]
