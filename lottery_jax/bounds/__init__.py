"""Bounds of the outputs: the largest difference between a ticket's outputs and its target's on a box of inputs."""

from lottery_jax.bounds.output import OutputBound, bound_output, bound_output_from_tolerance
from lottery_jax.bounds.verify_box import BoxVerification, attack, verify_box

__all__ = ["BoxVerification", "OutputBound", "attack", "bound_output", "bound_output_from_tolerance", "verify_box"]
