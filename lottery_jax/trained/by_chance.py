"""Random pruning at initialisation: only how many weights each layer keeps is chosen, which ones is chance.

Su et al. 2020 (arXiv 2009.11094) give layer l of L a kept fraction in proportion to (L - l + 1)**2 + (L - l + 1), and
the last one 0.3 of itself. That is the rule for residual networks, used for all here; for VGG they divide by l**2.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import kept_count
from lottery_jax.trained.at_start import PrunedAtStart
from lottery_jax.trained.leaves import weight_names
from lottery_jax.trained.pruning import MasksByName, Scope, counts_of, highest, pruned
from lottery_jax.trained.retraining import ByName
from lottery_jax.trained.sanity import chance


@dataclasses.dataclass(frozen=True)
class RandomAtStart(PrunedAtStart):
    """Weights at random places are kept, before any training: what every other way is to be better than."""

    name: ClassVar[str] = "random-at-start"

    scope: Scope = "layer"
    """Whether each layer is pruned at one rate, all weights are drawn together, or densities are Erdos-Renyi's."""
    output_rate: float = 0.5
    """Pruning rate of the output layer as a part of that of the others, where the scope is layer."""

    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """As in `PrunedAtStart`; of the data nothing is used."""
        names = weight_names(random)
        scores = {name: chance(random.drawn[name], seed) for name in names}
        whole = {name: np.ones_like(scores[name], bool) for name in names}
        return pruned(scores, whole, keep, scope=self.scope, rates={names[-1]: self.output_rate})


@dataclasses.dataclass(frozen=True)
class SmartRatio(PrunedAtStart):
    """SmartRatio (Su et al. 2020): weights at random places are kept, fewer in later layers, before any training."""

    name: ClassVar[str] = "smart-ratio"

    output_keep: float = 0.3
    """Kept fraction of the last layer; at most its even share of all that is kept."""

    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """As in `PrunedAtStart`; of the data nothing is used."""
        if not 0 <= self.output_keep <= 1:
            raise InputError(f"output_keep is {self.output_keep}; give the last layer's kept fraction, in [0, 1]")
        sizes = {name: random.drawn[name].size for name in weight_names(random)}
        counts = smart_counts(sizes, int(kept_count(keep, sum(sizes.values()))), self.output_keep)
        whole = {name: np.ones(random.drawn[name].shape, bool) for name in sizes}
        return {name: highest(chance(random.drawn[name], seed), counts[name], whole[name]) for name in sizes}


def smart_counts(sizes: dict[str, int], total: int, output_keep: float) -> dict[str, int]:
    """Kept weights of each tensor, in the order of the tree, that sum to the total.

    No tensor keeps more than all: what it cannot is kept by the others, in proportion, and last of all by the output.

    >>> smart_counts({"a": 600, "b": 600, "c": 100}, 270, 0.3)
    {'a': 160, 'b': 80, 'c': 30}
    """
    *hidden, output = sizes
    last = min(round(output_keep * sizes[output]), total // len(sizes)) if hidden else total
    last = max(last, total - sum(sizes[name] for name in hidden))
    if not hidden:
        return {output: last}
    left = range(len(sizes), 1, -1)  # L - l + 1
    shares = {name: float(k * k + k) for name, k in zip(hidden, left, strict=True)}
    least = min(shares.values())

    def densities(rate: float) -> dict[str, float]:
        # 1 at the least share for a rate of 0, so that all is kept.
        return {name: min(1.0, (1 - rate) * share / least) for name, share in shares.items()}

    return counts_of(densities, {name: sizes[name] for name in hidden}, total - last) | {output: last}
