"""SNIP, GraSP and SynFlow: weights are scored before training, and the highest scores of all tensors are kept."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.networks.network import Network
from lottery_jax.trained.at_start import PrunedAtStart
from lottery_jax.trained.leaves import weight_names
from lottery_jax.trained.pruning import MasksByName, pruned
from lottery_jax.trained.retraining import ByName
from lottery_jax.trained.saliency import saliency


@dataclasses.dataclass(frozen=True)
class Salient(PrunedAtStart):
    """Keeps the weights of the highest scores, in rounds whose kept fractions fall geometrically."""

    examples: int = 1000
    """Training examples that scores are taken from."""

    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """As in `PrunedAtStart`; the seed has said what the tensors are."""
        names, rounds = weight_names(random), saliency(self.name)[1]
        images = jnp.asarray(dataset.train.images)[: self.examples]
        labels = jnp.asarray(dataset.train.labels)[: self.examples]
        masks = {name: np.ones(np.shape(tensors[name]), bool) for name in names}
        for number in range(1, rounds + 1):
            left = {**tensors, **{name: tensors[name] * mask for name, mask in masks.items()}}
            scores = jax.device_get(_scores(self.name, random.target, left, images, labels))
            masks = pruned(scores, masks, float(keep) ** (number / rounds), scope="global")
        return masks


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scores(name: str, network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    return dict(saliency(name)[0](network, tensors, images, labels))


@dataclasses.dataclass(frozen=True)
class Snip(Salient):
    """SNIP (Lee et al. 2019): weights whose loss would change most are kept, before any training."""

    name: ClassVar[str] = "snip"


@dataclasses.dataclass(frozen=True)
class Grasp(Salient):
    """GraSP (Wang et al. 2020): weights that keep up the gradient's flow are kept, before any training."""

    name: ClassVar[str] = "grasp"


@dataclasses.dataclass(frozen=True)
class Synflow(Salient):
    """SynFlow (Tanaka et al. 2020): weights on the strongest paths are kept, without data and before any training."""

    name: ClassVar[str] = "synflow"
