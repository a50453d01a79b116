"""From a target and a construction to a ticket: one subset-sum problem per weight."""

from lottery_jax.approximation.api import ApproximationOptions, ApproximationResult, approximate, run_approximation
from lottery_jax.approximation.budget import Budget
from lottery_jax.approximation.job import Job, plan_job
from lottery_jax.approximation.loss_aware import LossAware
from lottery_jax.approximation.run import run_in_memory, run_to_file
from lottery_jax.approximation.tolerance import ToleranceObjective

__all__ = [
    "ApproximationOptions",
    "ApproximationResult",
    "Budget",
    "Job",
    "LossAware",
    "ToleranceObjective",
    "approximate",
    "plan_job",
    "run_approximation",
    "run_in_memory",
    "run_to_file",
]
