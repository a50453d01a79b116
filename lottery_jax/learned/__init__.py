"""Learned masks: scores trained on frozen random weights. One learner per file."""

from lottery_jax.learned.base import Learner
from lottery_jax.learned.edge_popup import EdgePopup
from lottery_jax.learned.registry import LEARNERS, SOURCES
from lottery_jax.learned.sources import redundant_source, wide_source

__all__ = ["LEARNERS", "SOURCES", "EdgePopup", "Learner", "redundant_source", "wide_source"]
