"""Planted tickets: sparse networks that solve a task, hidden in random ones, for asking which methods find them."""

from lottery_jax.planted.measure import Overlap, overlaps, together
from lottery_jax.planted.planting import Planted, plant, planting_source
from lottery_jax.planted.tasks import PLANTED_DATA
from lottery_jax.planted.truths import TRUTHS

__all__ = ["PLANTED_DATA", "TRUTHS", "Overlap", "Planted", "overlaps", "plant", "planting_source", "together"]
