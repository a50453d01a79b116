"""Pruning at initialisation: the mask is found before any training, then the network is trained once under it."""

import abc
import dataclasses
import itertools
from collections.abc import Sequence

from lottery_jax.data import Dataset
from lottery_jax.networks.network import Network
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.trained.base import TrainedLearner, Wanted, after_training
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

    def _learn(self, points: Sequence["PrunedAtStart"], target: Network, asked: Wanted) -> list[Ticket]:
        dataset, epochs = asked.dataset, asked.epochs
        random = random_network(target, trained=True)
        first = {seed: initial_tensors(random, seed) for seed in asked.seeds}
        runs = list(itertools.product(points, asked.seeds, asked.keeps))
        masks = [point.masks(random, dataset, first[seed], seed, keep) for point, seed, keep in runs]
        starts = [
            Start(seed, {**first[seed], **{name: first[seed][name] * own[name] for name in own}}, own, point.numbers)
            for (point, seed, _), own in zip(runs, masks, strict=True)
        ]
        told = lambda done: asked.progress(done, epochs)  # noqa: E731
        training = self.training(target, len(runs))
        found = training.runs(starts, dataset, epochs, told=told, checkpoints=asked.checkpoints)
        tickets = []
        for at, last in self.survivors(runs, found):
            (point, seed, keep), mask = runs[at], masks[at]
            settings = point.settings(dataset, epochs, keep, mask) | after_training(last, 0)
            settings["rewound_sha256"] = beginnings_digest(first[seed], mask)
            tickets.append(trained_ticket(random, seed, mask, last.tensors, settings, method=self.name))
        return tickets
