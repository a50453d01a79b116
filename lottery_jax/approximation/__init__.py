"""From a target to a ticket: plan a job, solve its chunks, assemble the ticket."""

from lottery_jax.approximation.api import approximate
from lottery_jax.approximation.budget.budget import Budget
from lottery_jax.approximation.job import Job, plan_job
from lottery_jax.approximation.loss_aware.loss_aware import LossAware
from lottery_jax.approximation.run import run_in_memory, run_to_file
from lottery_jax.approximation.tolerance import ToleranceObjective

__all__ = [
    "Budget",
    "Job",
    "LossAware",
    "ToleranceObjective",
    "approximate",
    "plan_job",
    "run_in_memory",
    "run_to_file",
]
