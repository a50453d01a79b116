"""Source sizes that the theorems require, and random subset sums by formula and by experiment."""

from lottery_jax.theory.candidates import DISTRIBUTIONS, Candidates
from lottery_jax.theory.success import (
    Constant,
    Success,
    best_subsets,
    estimate_constant,
    least_residuals,
    predicted_median,
    predicted_success,
    residual_law,
    success_probability,
)
from lottery_jax.theory.theorem import Requirement, Theorem
from lottery_jax.theory.theorems import THEOREMS, lower_bound_target, theorem_named

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
