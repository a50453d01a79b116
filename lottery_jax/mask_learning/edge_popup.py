"""Edge-popup (Ramanujan et al. 2020, arXiv 1911.13299): train a score per frozen weight, keep the top ones.

The forward pass uses the masked random network; the gradient passes through the selection to |score|.

IteRand (Chijiwa et al. 2021, arXiv 2106.09269): edge-popup whose pruned weights are drawn again while it trains.

What is drawn again is recorded, so that the ticket is seed and bits still, and counted among its bits. Published is a
draw every 300 steps; here it is after each epoch.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.mask_learning.score_learner import ScoreLearner
from lottery_jax.mask_learning.scores import Tensors, edge_tensors, initial_scores
from lottery_jax.mask_learning.train_scores import RunInputs
from lottery_jax.networks.network import NO_REDRAWS, Network, Redraws
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.rng.forced_entries import forced_blocks
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS, RandomTensor, block_attempts

SCOPES = ("layer", "global")


@dataclasses.dataclass(frozen=True)
class EdgePopup(ScoreLearner):
    """Edge-popup (Ramanujan et al. 2020): a trained score for each frozen random weight; the top ones are kept.

    Exactly round(keep * size) are kept of each tensor, or of all together. The defaults are those of Pensia et al.,
    Experiment 2.
    """

    name: ClassVar[str] = "edge-popup"
    is_default: ClassVar[bool] = True

    scope: str = "layer"
    """What scores are ranked in: each tensor for itself (layer), or all together (global)."""

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise InputError(f"scope {self.scope!r} is unknown; {suggest(self.scope, SCOPES)}")

    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        return initial_scores(network, seed)

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        if self.scope == "layer":
            return {name: top_k_mask(score, run.counts[name]) for name, score in scores.items()}
        flat = top_k_mask(jnp.concatenate([score.reshape(-1) for score in scores.values()]), run.total)
        ends = np.cumsum([score.size for score in scores.values()])[:-1]
        parts = zip(scores.items(), jnp.split(flat, ends), strict=True)
        return {name: part.reshape(score.shape) for (name, score), part in parts}

    def first_counts(self, network: Network, counts: Tensors) -> dict[str, Any]:
        # At random both edges of a path are kept with probability keep**2, but training soon aligns them.
        edges = edge_tensors(network)
        return {name: network.random_tensors[name].size if name in edges else count for name, count in counts.items()}


@dataclasses.dataclass(frozen=True)
class IteRand(EdgePopup):
    """IteRand (Chijiwa et al. 2021): edge-popup whose pruned weights are now and then drawn again."""

    name: ClassVar[str] = "iterand"
    is_default: ClassVar[bool] = False
    resamples: ClassVar[bool] = True

    renewal: float = 0.1
    """Probability that a pruned weight is drawn again after an epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.renewal <= 1:
            raise InputError(f"renewal is {self.renewal}; give a probability, in [0, 1]")

    def resample(
        self, network: Network, seed: int, epoch: int, masks: Mapping[str, np.ndarray], redraws: Redraws
    ) -> Redraws:
        found = {}
        for name, drawn in network.random_tensors.items():
            # Blocks are drawn as a whole: one of several weights only where none of them is kept.
            pruned = ~masks[name].reshape(drawn.blocks, -1).any(1)
            words = hashlib.sha256(f"{seed} {epoch} {name}".encode()).digest()
            chance = np.random.default_rng(np.frombuffer(words, np.uint32)).random(drawn.blocks)
            attempts = block_attempts(redraws.get(name, NO_REDRAWS), 0, drawn.blocks)
            resample = np.flatnonzero(pruned & (chance < self.renewal) & (attempts < MAX_ATTEMPTS))
            attempts[resample] = _next_attempts(drawn, seed, resample, attempts[resample])
            again = np.flatnonzero(attempts)
            found[name] = np.stack([again, attempts[again]], 1)
        return found


def _next_attempts(drawn: RandomTensor, seed: int, blocks: np.ndarray, attempts: np.ndarray) -> np.ndarray:
    """The next draw of each pruned block in which none of its weights is locked; the same one where there is none.

    Else ever more weights would be locked, and more kept than are asked for.
    """
    found, open_ = attempts + 1, np.arange(len(blocks))
    while drawn.sampler.locked > 0 and len(open_):
        locked = (forced_blocks(drawn, seed, blocks[open_], found[open_]) > 0).any(1)
        open_ = open_[locked & (found[open_] <= MAX_ATTEMPTS)]
        found[open_] += 1
    return np.where(found <= MAX_ATTEMPTS, found, attempts)
