"""Trained tickets: networks that are pruned and trained, as baselines of strong lottery tickets."""

from lottery_jax.pruning.at_initialisation import Grasp, PruningFromScratch, RandomPruning, SmartRatio, Snip, Synflow
from lottery_jax.pruning.criteria import CRITERIA, kept_counts
from lottery_jax.pruning.gradual import Gradual, sparse_target
from lottery_jax.pruning.magnitude import IterativeMagnitude, Magnitude, MagnitudeReinit, MagnitudeSupermask
from lottery_jax.training.learner import Learner, TrainingRequest

__all__ = ["CRITERIA", "TRAINED", "Gradual", "Magnitude", "TrainingRequest", "kept_counts", "sparse_target"]

TRAINED: dict[str, type[Learner]] = {
    learner.name: learner
    for learner in (
        *(Magnitude, IterativeMagnitude, MagnitudeReinit, MagnitudeSupermask),
        *(Snip, Grasp, Synflow, RandomPruning, SmartRatio, PruningFromScratch),
    )
}
"""Every method of trained tickets, by name."""
