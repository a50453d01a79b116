"""Pruning at initialisation: the mask is found before any training, then the network is trained once under it."""

import abc
import dataclasses
import itertools
from collections.abc import Sequence

from lottery_jax.data import Dataset
from lottery_jax.lanes import Told
from lottery_jax.networks.network import Network
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.trained.base import TrainedLearner, TrainedRun, Wanted, after_training
from lottery_jax.trained.leaves import beginnings_digest, initial_tensors, random_network, trained_ticket
from lottery_jax.trained.pruning import MasksByName
from lottery_jax.trained.retraining import ByName, Finish, Start


@dataclasses.dataclass(frozen=True)
class _Run(TrainedRun):
    learner: "PrunedAtStart"
    keep: float


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
        runs = [_Run(*each) for each in itertools.product(points, asked.seeds, asked.keeps)]
        training = self.training(target, len(runs))
        kept = asked.checkpoints and asked.checkpoints.own()

        def train(group: Sequence[_Run], tell: Told | None) -> list[Ticket | None]:
            masks = [run.learner.masks(random, dataset, first[run.seed], run.seed, run.keep) for run in group]
            starts = [
                Start(run.seed, _masked(first[run.seed], mask), mask, run.learner.numbers)
                for run, mask in zip(group, masks, strict=True)
            ]
            found = training.runs(starts, dataset, epochs, told=tell, checkpoints=kept)
            return [
                None if last is None else self._ticket(random, first[run.seed], run, mask, last, asked)
                for run, mask, last in zip(group, masks, found, strict=True)
            ]

        told = lambda done: asked.progress(done, epochs)  # noqa: E731
        return self.in_groups(train, runs, training.lanes.width, target, asked, told)

    def _ticket(
        self, random: Network, first: ByName, run: _Run, mask: MasksByName, last: Finish, asked: Wanted
    ) -> Ticket:
        settings = run.learner.settings(asked.dataset, asked.epochs, run.keep, mask) | after_training(last, 0)
        settings["rewound_sha256"] = beginnings_digest(first, mask)
        return trained_ticket(random, run.seed, mask, last.tensors, settings, method=self.name)


def _masked(tensors: ByName, masks: MasksByName) -> ByName:
    return {**tensors, **{name: tensors[name] * mask for name, mask in masks.items()}}
