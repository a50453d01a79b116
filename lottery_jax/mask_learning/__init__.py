"""Masks learned from data on frozen random weights."""

from lottery_jax.mask_learning.biprop import Biprop
from lottery_jax.mask_learning.edge_popup import EdgePopup, IteRand
from lottery_jax.mask_learning.evolution import Evolution
from lottery_jax.mask_learning.gem_miner import GemMiner
from lottery_jax.mask_learning.learner_sources import plain_source, redundant_source, wide_source
from lottery_jax.mask_learning.multi_level import MultiBitSupermask, SignedSupermask
from lottery_jax.mask_learning.registry import LEARNERS, SOURCES
from lottery_jax.mask_learning.score_learner import ScoreLearner, SGDScoreLearner
from lottery_jax.mask_learning.supermask import HardConcrete, RescaledSupermask, Supermask
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.training.initialisers import INITS
from lottery_jax.training.learner import Learner, TrainingRequest

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
    "SGDScoreLearner",
    "ScoreLearner",
    "SignedSupermask",
    "Supermask",
    "TrainingRequest",
    "plain_source",
    "redundant_source",
    "train_scores",
    "wide_source",
]
