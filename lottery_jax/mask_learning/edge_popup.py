"""Edge-popup (Ramanujan et al. 2020, arXiv 1911.13299) and IteRand (Chijiwa et al. 2021, arXiv 2106.09269).

The gradient passes through the selection to |score|. IteRand's ticket records the redraws and counts them among its
bits. Published is a redraw every 300 steps; here it is after each epoch.
"""

import dataclasses
import hashlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.mask_learning.score_learner import RunInputs, SGDScoreLearner
from lottery_jax.mask_learning.scores import Arrays, Tensors, edge_tensors
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.networks.network import NO_REDRAWS, Network, Redraws
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.rng.forced_entries import forced_blocks
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS, RandomTensor, block_attempts

SCOPES = ("layer", "global")


@dataclasses.dataclass(frozen=True)
class EdgePopup(SGDScoreLearner):
    """Edge-popup (Ramanujan et al. 2020): a trained score for each frozen random weight; the top ones are kept.

    Exactly round(keep * size) weights are kept of each tensor, or of all tensors together. The defaults are those of
    Pensia et al. 2020, Experiment 2.
    """

    learn = sweep = train_scores

    name: ClassVar[str] = "edge-popup"
    is_default: ClassVar[bool] = True

    scope: str = "layer"
    """Scope of the ranking of scores: layer, each tensor; global, all tensors together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope not in SCOPES:
            raise InputError(f"scope {self.scope!r} is unknown; {suggest(self.scope, SCOPES)}")

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        masks, start = {}, 0
        if self.scope == "layer":
            for name, score in scores.items():
                masks[name] = top_k_mask(score, run.counts[name])
            return masks
        top = top_k_mask(jnp.concatenate(list(map(jnp.ravel, scores.values()))), run.total)
        for name, score in scores.items():
            masks[name] = top[start : start + score.size].reshape(score.shape)
            start += score.size
        return masks

    def initial_counts(self, network: Network, counts: Tensors) -> dict[str, Any]:
        # Random scores keep both edges of a path with probability keep**2, but training soon aligns them.
        return {**counts, **{name: network.random_tensors[name].size for name in edge_tensors(network)}}


@dataclasses.dataclass(frozen=True)
class IteRand(EdgePopup):
    """IteRand (Chijiwa et al. 2021): edge-popup whose pruned weights are redrawn now and then."""

    name: ClassVar[str] = "iterand"
    is_default: ClassVar[bool] = False
    resamples: ClassVar[bool] = True

    renewal: float = 0.1
    """Probability that a pruned weight is redrawn after an epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.renewal <= 1:
            raise InputError(f"`renewal` must be in [0, 1], got {self.renewal}. Give a probability.")

    def resample(self, network: Network, seed: int, epoch: int, masks: Arrays, redraws: Redraws) -> Redraws:
        found = {}
        for name, drawn in network.random_tensors.items():
            # A block of several weights is redrawn only if none of them is kept.
            pruned = ~masks[name].reshape(drawn.blocks, -1).any(1)
            words = hashlib.sha256(f"{seed} {epoch} {name}".encode()).digest()
            chance = np.random.default_rng(np.frombuffer(words, np.uint32)).random(drawn.blocks)
            attempts = block_attempts(redraws.get(name, NO_REDRAWS), 0, drawn.blocks)
            blocks = np.flatnonzero(pruned & (chance < self.renewal) & (attempts < MAX_ATTEMPTS))
            attempts[blocks] = _next_attempts(drawn, seed, blocks, attempts[blocks])
            redrawn = np.flatnonzero(attempts)
            found[name] = np.stack([redrawn, attempts[redrawn]], 1)
        return found


def _next_attempts(drawn: RandomTensor, seed: int, blocks: np.ndarray, attempts: np.ndarray) -> np.ndarray:
    """The next attempt of each pruned block that has no locked weight; the same attempt if there is none.

    Otherwise the number of locked weights would grow, and exceed the number of kept weights.
    """
    found, rest = attempts + 1, np.arange(len(blocks))
    while drawn.sampler.locked > 0 and len(rest):
        locked = (forced_blocks(drawn, seed, blocks[rest], found[rest]) > 0).any(1)
        rest = rest[locked & (found[rest] <= MAX_ATTEMPTS)]
        found[rest] += 1
    return np.where(found <= MAX_ATTEMPTS, found, attempts)
