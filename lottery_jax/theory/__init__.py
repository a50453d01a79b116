"""What the theorems of the strong lottery ticket ask for, as functions; and random subset sums, by experiment."""

from lottery_jax.theory.candidates import Candidates
from lottery_jax.theory.chance import (
    Success,
    best_subsets,
    least_residuals,
    predicted_median,
    predicted_success,
    residual_law,
    success_probability,
)
from lottery_jax.theory.constant import Constant, estimate_constant
from lottery_jax.theory.distributions import DISTRIBUTIONS
from lottery_jax.theory.lower_bound import lower_bound_target
from lottery_jax.theory.registry import THEOREMS, theorem_named
from lottery_jax.theory.theorem import Requirement, Theorem

__all__ = [
    "DISTRIBUTIONS",
    "THEOREMS",
    "Candidates",
    "Constant",
    "Requirement",
    "Success",
    "Theorem",
    "best_subsets",
    "estimate_constant",
    "least_residuals",
    "lower_bound_target",
    "predicted_median",
    "predicted_success",
    "residual_law",
    "success_probability",
    "theorem_named",
]
