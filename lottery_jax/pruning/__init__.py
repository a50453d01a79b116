"""Trained tickets: networks that are pruned and trained, as baselines of strong lottery tickets."""

from lottery_jax.pruning.criteria import CRITERIA, kept_counts
from lottery_jax.pruning.gradual import Gradual, sparse_target
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.pruning.registry import TRAINED
from lottery_jax.training.learner import TrainingRequest

__all__ = ["CRITERIA", "TRAINED", "Gradual", "Magnitude", "TrainingRequest", "kept_counts", "sparse_target"]
