"""Bounds of the output: how far a ticket's network may be from its target, on every input of a box."""

from lottery_jax.bounds.attack import attack
from lottery_jax.bounds.output import OutputBound, bound_output, promised_output

__all__ = ["OutputBound", "attack", "bound_output", "promised_output"]
