"""Planted tickets: sparse networks that solve a task, hidden in random ones, for asking which methods find them."""

from planted.measure import Overlap, overlaps, runs_per_step
from planted.planting import Planted, plant, planting_source
from planted.tasks import PLANTED_DATA
from planted.truths import TRUTHS

__all__ = ["PLANTED_DATA", "TRUTHS", "Overlap", "Planted", "overlaps", "plant", "planting_source", "runs_per_step"]
