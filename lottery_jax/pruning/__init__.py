"""Trained tickets: a network trained, pruned, rewound and trained again; no strong ones, but what those are held to."""

from lottery_jax.pruning.criteria import CRITERIA, kept_counts
from lottery_jax.pruning.gradual import Gradual, sparse_target
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.pruning.registry import TRAINED

__all__ = ["CRITERIA", "TRAINED", "Gradual", "Magnitude", "kept_counts", "sparse_target"]
