"""Pruning at initialisation: the mask is found before any training, then the network is trained once under it."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.networks.network import Network
from lottery_jax.progress import Progress, unseen
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.trained.base import TrainedLearner, after_training
from lottery_jax.trained.leaves import initial_tensors, random_network, trained_ticket, weight_names
from lottery_jax.trained.pruning import MasksByName, pruned
from lottery_jax.trained.retraining import ByName, Start
from lottery_jax.trained.saliency import saliency


@dataclasses.dataclass(frozen=True)
class PrunedAtStart(TrainedLearner):
    """The target's architecture pruned before training, and trained once."""

    examples: int = 1000
    """Training examples that scores are taken from."""

    def learn(
        self,
        source: Network,
        dataset: Dataset,
        *,
        seeds: Sequence[int],
        keeps: Sequence[float],
        epochs: int,
        stored: Mapping[str, np.ndarray] | None = None,
        progress: Progress = unseen,
    ) -> list[Ticket]:
        """As in `Learner`, but nothing is taken from the source's leaves, nor from `stored`: all begins untrained."""
        target = source.target
        self.check(target, dataset, seeds, keeps, epochs)
        random = random_network(target, trained=True)
        first = {seed: initial_tensors(random, seed) for seed in seeds}
        runs = list(itertools.product(seeds, keeps))
        masks = [self._masks(target, dataset, first[seed], weight_names(random), keep) for seed, keep in runs]
        starts = [
            Start(seed, {**first[seed], **{name: first[seed][name] * own[name] for name in own}}, own)
            for (seed, _), own in zip(runs, masks, strict=True)
        ]
        told = lambda done: progress(done, epochs)  # noqa: E731
        found = self.training(target, len(runs)).runs(starts, dataset, epochs, told=told)
        tickets = []
        for (seed, keep), mask, last in zip(runs, masks, found, strict=True):
            settings = self.settings(dataset, epochs, keep, mask) | after_training(last, 0)
            tickets.append(trained_ticket(random, seed, mask, last.tensors, settings, method=self.name))
        return tickets

    def _masks(
        self, target: Network, dataset: Dataset, tensors: ByName, names: Sequence[str], keep: float
    ) -> MasksByName:
        """The masks of one run, in rounds whose kept fractions fall geometrically."""
        images = jnp.asarray(dataset.train.images)[: self.examples]
        labels = jnp.asarray(dataset.train.labels)[: self.examples]
        rounds = saliency(self.name)[1]
        masks = {name: np.ones(np.shape(tensors[name]), bool) for name in names}
        for number in range(1, rounds + 1):
            left = {**tensors, **{name: tensors[name] * mask for name, mask in masks.items()}}
            scores = jax.device_get(_scores(self.name, target, left, images, labels))
            masks = pruned(scores, masks, float(keep) ** (number / rounds), scope="global", output=names[-1])
        return masks


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scores(name: str, network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    return dict(saliency(name)[0](network, tensors, images, labels))


@dataclasses.dataclass(frozen=True)
class Snip(PrunedAtStart):
    """SNIP (Lee et al. 2019): weights whose loss would change most are kept, before any training."""

    name: ClassVar[str] = "snip"


@dataclasses.dataclass(frozen=True)
class Grasp(PrunedAtStart):
    """GraSP (Wang et al. 2020): weights that keep up the gradient's flow are kept, before any training."""

    name: ClassVar[str] = "grasp"


@dataclasses.dataclass(frozen=True)
class Synflow(PrunedAtStart):
    """SynFlow (Tanaka et al. 2020): weights on the strongest paths are kept, without data and before any training."""

    name: ClassVar[str] = "synflow"
