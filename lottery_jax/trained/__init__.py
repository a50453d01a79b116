"""Trained tickets: a network trained, pruned, rewound and trained again; no strong ones, but what those are held to."""

from lottery_jax.trained.criteria import CRITERIA
from lottery_jax.trained.magnitude import Magnitude
from lottery_jax.trained.pruning import kept_counts
from lottery_jax.trained.registry import TRAINED

__all__ = ["CRITERIA", "TRAINED", "Magnitude", "kept_counts"]
