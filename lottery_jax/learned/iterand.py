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
from lottery_jax.networks.sources.decided import decided_blocks
from lottery_jax.networks.sources.drawn import MOST_ATTEMPTS, Drawn, attempts_of


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
            renewed = np.flatnonzero(pruned & (chance < self.renewal) & (attempts < MOST_ATTEMPTS))
            attempts[renewed] = _next_attempts(drawn, seed, renewed, attempts[renewed])
            again = np.flatnonzero(attempts)
            found[name] = np.stack([again, attempts[again]], 1)
        return found


def _next_attempts(drawn: Drawn, seed: int, blocks: np.ndarray, attempts: np.ndarray) -> np.ndarray:
    """The next draw of each pruned block in which none of its weights is locked; the same one where there is none.

    Else ever more weights would be locked, and more kept than are asked for.
    """
    found, open_ = attempts + 1, np.arange(len(blocks))
    while drawn.sampler.locked > 0 and len(open_):
        locked = (decided_blocks(drawn, seed, blocks[open_], found[open_]) > 0).any(1)
        open_ = open_[locked & (found[open_] <= MOST_ATTEMPTS)]
        found[open_] += 1
    return np.where(found <= MOST_ATTEMPTS, found, attempts)
