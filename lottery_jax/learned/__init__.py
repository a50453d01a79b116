"""Masks learned from data on frozen random weights."""

from lottery_jax.learned.base import Learner
from lottery_jax.learned.edge_popup import EdgePopup
from lottery_jax.learned.gem_miner import GemMiner
from lottery_jax.learned.hard_concrete import HardConcrete
from lottery_jax.learned.inits import INITS
from lottery_jax.learned.iterand import IteRand
from lottery_jax.learned.registry import LEARNERS, SOURCES
from lottery_jax.learned.search import ScoreLearner
from lottery_jax.learned.sources import plain_source, redundant_source, wide_source
from lottery_jax.learned.supermask import RescaledSupermask, Supermask

__all__ = [
    "INITS",
    "LEARNERS",
    "SOURCES",
    "EdgePopup",
    "GemMiner",
    "HardConcrete",
    "IteRand",
    "Learner",
    "RescaledSupermask",
    "ScoreLearner",
    "Supermask",
    "plain_source",
    "redundant_source",
    "wide_source",
]
