"""Edge-popup (Ramanujan et al. 2020, arXiv 1911.13299): train a score per frozen weight, keep the top ones.

The forward pass uses the masked random network; the gradient passes through the selection to |score|.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.learned.scores import Tensors, edge_tensors, initial_scores
from lottery_jax.learned.search import ScoreLearner
from lottery_jax.learned.trainer import Run
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import top_k_mask

SCOPES = ("layer", "global")


@dataclasses.dataclass(frozen=True)
class EdgePopup(ScoreLearner):
    """Edge-popup (Ramanujan et al. 2020): a trained score for each frozen random weight; the top ones are kept.

    Exactly round(keep * size) are kept of each tensor, or of all together. The defaults are those of Pensia et al.,
    Experiment 2.
    """

    name: ClassVar[str] = "edge-popup"
    usual: ClassVar[bool] = True

    scope: str = "layer"
    """What scores are ranked in: each tensor for itself (layer), or all together (global)."""

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise InputError(f"scope {self.scope!r} is unknown; {suggest(self.scope, SCOPES)}")

    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        return initial_scores(network, seed)

    def masks(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        if self.scope == "layer":
            return {name: top_k_mask(score, run.counts[name]) for name, score in scores.items()}
        flat = top_k_mask(jnp.concatenate([score.reshape(-1) for score in scores.values()]), run.total)
        ends = np.cumsum([score.size for score in scores.values()])[:-1]
        parts = zip(scores.items(), jnp.split(flat, ends), strict=True)
        return {name: part.reshape(score.shape) for (name, score), part in parts}

    def first_counts(self, network: Network, counts: Tensors) -> dict[str, Any]:
        # At random both edges of a path are kept with probability keep**2, but training soon aligns them.
        edges = edge_tensors(network)
        return {name: network.drawn[name].size if name in edges else count for name, count in counts.items()}
