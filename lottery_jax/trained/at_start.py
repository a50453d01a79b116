"""Pruning at initialisation: the mask is found before any training, then the network is trained once under it."""

import abc
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.networks.network import Network
from lottery_jax.progress import Progress, unseen
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.trained.base import TrainedLearner, after_training
from lottery_jax.trained.leaves import beginnings_digest, initial_tensors, random_network, trained_ticket
from lottery_jax.trained.pruning import MasksByName
from lottery_jax.trained.retraining import ByName, Start


@dataclasses.dataclass(frozen=True)
class PrunedAtStart(TrainedLearner):
    """The target's architecture pruned before training, and trained once."""

    @abc.abstractmethod
    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """The masks of one run, by tensor in the order of the tree: round(keep * weights) in all.

        random: the network with its random leaves; tensors: its target's before any training.
        """

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
        checkpoints: Path | None = None,
    ) -> list[Ticket]:
        """As in `Learner`, but nothing is taken from the source's leaves, nor from `stored`: all begins untrained.

        Nothing is kept of unfinished trainings.
        """
        target = source.target
        self.check(target, dataset, seeds, keeps, epochs)
        random = random_network(target, trained=True)
        first = {seed: initial_tensors(random, seed) for seed in seeds}
        runs = list(itertools.product(seeds, keeps))
        masks = [self.masks(random, dataset, first[seed], seed, keep) for seed, keep in runs]
        starts = [
            Start(seed, {**first[seed], **{name: first[seed][name] * own[name] for name in own}}, own)
            for (seed, _), own in zip(runs, masks, strict=True)
        ]
        told = lambda done: progress(done, epochs)  # noqa: E731
        found = self.training(target, len(runs)).runs(starts, dataset, epochs, told=told)
        tickets = []
        for at, last in self.survivors(runs, found):
            (seed, keep), mask = runs[at], masks[at]
            settings = self.settings(dataset, epochs, keep, mask) | after_training(last, 0)
            settings["rewound_sha256"] = beginnings_digest(first[seed], mask)
            tickets.append(trained_ticket(random, seed, mask, last.tensors, settings, method=self.name))
        return tickets
