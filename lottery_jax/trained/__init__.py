"""Trained tickets: a network trained, pruned, rewound and trained again; no strong ones, but what those are held to."""

from lottery_jax.trained.criteria import CRITERIA
from lottery_jax.trained.gradual import Gradual, sparse_target
from lottery_jax.trained.magnitude import Magnitude
from lottery_jax.trained.pruning import kept_counts
from lottery_jax.trained.registry import TRAINED

__all__ = ["CRITERIA", "TRAINED", "Gradual", "Magnitude", "kept_counts", "sparse_target"]
