"""IteRand (Chijiwa et al. 2021, arXiv 2106.09269): edge-popup whose pruned weights are drawn again while it trains.

What is drawn again is recorded, so that the ticket is seed and bits still, and counted among its bits. Published is a
draw every 300 steps; here it is after each epoch.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.learned.edge_popup import EdgePopup
from lottery_jax.networks.network import NO_REDRAWS, Network, Redraws
from lottery_jax.networks.sources.drawn import MOST_ATTEMPTS, attempts_of


@dataclasses.dataclass(frozen=True)
class IteRand(EdgePopup):
    """IteRand (Chijiwa et al. 2021): edge-popup whose pruned weights are now and then drawn again."""

    name: ClassVar[str] = "iterand"
    usual: ClassVar[bool] = False
    renews: ClassVar[bool] = True

    renewal: float = 0.1
    """Probability that a pruned weight is drawn again after an epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.renewal <= 1:
            raise InputError(f"renewal is {self.renewal}; give a probability, in [0, 1]")

    def renewed(
        self, network: Network, seed: int, epoch: int, masks: Mapping[str, np.ndarray], redraws: Redraws
    ) -> Redraws:
        found = {}
        for name, drawn in network.drawn.items():
            # Blocks are drawn as a whole: one of several weights only where none of them is kept.
            pruned = ~masks[name].reshape(drawn.blocks, -1).any(1)
            words = hashlib.sha256(f"{seed} {epoch} {name}".encode()).digest()
            chance = np.random.default_rng(np.frombuffer(words, np.uint32)).random(drawn.blocks)
            attempts = attempts_of(redraws.get(name, NO_REDRAWS), 0, drawn.blocks)
            attempts += pruned & (chance < self.renewal) & (attempts < MOST_ATTEMPTS)
            again = np.flatnonzero(attempts)
            found[name] = np.stack([again, attempts[again]], 1)
        return found
