"""Masks learned from data on frozen random weights."""

from lottery_jax.learned.base import Learner
from lottery_jax.learned.biprop import Biprop
from lottery_jax.learned.edge_popup import EdgePopup
from lottery_jax.learned.evolution import Evolution
from lottery_jax.learned.gem_miner import GemMiner
from lottery_jax.learned.hard_concrete import HardConcrete
from lottery_jax.learned.inits import INITS
from lottery_jax.learned.iterand import IteRand
from lottery_jax.learned.multi_bit import MultiBitSupermask
from lottery_jax.learned.registry import LEARNERS, SOURCES
from lottery_jax.learned.search import ScoreLearner
from lottery_jax.learned.signed_supermask import SignedSupermask
from lottery_jax.learned.sources import plain_source, redundant_source, wide_source
from lottery_jax.learned.supermask import RescaledSupermask, Supermask

__all__ = [
    "INITS",
    "LEARNERS",
    "SOURCES",
    "Biprop",
    "EdgePopup",
    "Evolution",
    "GemMiner",
    "HardConcrete",
    "IteRand",
    "Learner",
    "MultiBitSupermask",
    "RescaledSupermask",
    "ScoreLearner",
    "SignedSupermask",
    "Supermask",
    "plain_source",
    "redundant_source",
    "wide_source",
]
