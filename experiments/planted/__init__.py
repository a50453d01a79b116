"""Planted tickets: sparse networks that solve a task, hidden in random ones, to test which methods find them."""

from planted.measure import Overlap, merged_overlap, overlaps
from planted.planting import Planted, plant, planting_source
from planted.tasks import PLANTED_DATA
from planted.truths import TRUTHS

__all__ = ["PLANTED_DATA", "TRUTHS", "Overlap", "Planted", "merged_overlap", "overlaps", "plant", "planting_source"]
