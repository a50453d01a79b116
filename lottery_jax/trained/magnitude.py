"""Magnitude pruning: train, prune, rewind, train again (Frankle & Carbin 2019, arXiv 1803.03635).

The dense network of a seed is trained once for all kept fractions. Each round prunes what its criterion ranks last, the
kept weights begin again where they began (or after some epochs, or elsewhere: `beginnings`), and are trained again. In
`rounds` rounds the kept fraction falls geometrically.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, get_args

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.progress import Progress, unseen
from lottery_jax.storage.sealed import digest
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.trained.base import TrainedLearner, after_training
from lottery_jax.trained.beginnings import MOST_ROUNDS, Beginning, beginning_weights
from lottery_jax.trained.criteria import criterion
from lottery_jax.trained.leaves import initial_tensors, random_network, trained_ticket, untrained_ticket, weight_names
from lottery_jax.trained.pruning import MasksByName, Scope, pruned
from lottery_jax.trained.retraining import ByName, Finish, Start


@dataclasses.dataclass(frozen=True)
class Magnitude(TrainedLearner):
    """Magnitude pruning (Frankle & Carbin 2019): the target's architecture trained, pruned, rewound and trained again.

    Its weights are trained, so its tickets are no strong ones, unless `retrain` is off. Biases and other tensors are
    trained and not pruned. Of the source only the target's layers are used.
    """

    name: ClassVar[str] = "magnitude"

    criterion: str = "large_final"
    """Which weights are kept first, of `trained.criteria`."""
    scope: Scope = "layer"
    """Whether each layer is pruned at one rate, all weights are ranked together, or densities are Erdos-Renyi's."""
    output_rate: float = 0.5
    """Pruning rate of the output layer as a part of that of the others, where the scope is layer."""
    rounds: int = 1
    """Rounds of pruning; the kept fraction falls geometrically."""
    rewind: int = 0
    """Epoch that is rewound to; 0 is before training."""
    kept_weights: Beginning = "rewind"
    """Where kept weights begin: rewound, drawn anew, shuffled in their layer, or one size (the layer's deviation)."""
    same_sign: bool = False
    """Give weights that are not rewound the signs of those that would be."""
    retrain: bool = True
    """Train after pruning; else the ticket is a mask of random weights."""

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
        target, retrainings = source.target, self.rounds if self.retrain else self.rounds - 1
        self._check(target, dataset, seeds, keeps, epochs)
        random = random_network(target, trained=self.retrain)
        first = {seed: initial_tensors(random, seed) for seed in seeds}
        training, total = self.training(target, len(seeds) * len(keeps)), epochs + retrainings * (epochs - self.rewind)

        def trained(starts: list[Start], over: int) -> list[Finish]:
            told = lambda done: progress(over + done, total)  # noqa: E731
            return training.runs(starts, dataset, epochs, earlier=self.rewind, told=told)

        whole = {name: np.ones(target.tensors[name], bool) for name in weight_names(random)}
        dense = dict(zip(seeds, trained([Start(seed, first[seed], whole) for seed in seeds], 0), strict=True))
        runs = list(itertools.product(seeds, keeps))
        masks, found = [whole] * len(runs), [dense[seed] for seed, _ in runs]
        for number in range(1, self.rounds + 1):
            masks = [
                self._pruned(first[seed], found[at].tensors, masks[at], float(keep) ** (number / self.rounds))
                for at, (seed, keep) in enumerate(runs)
            ]
            if number > retrainings:
                break
            starts = [
                Start(seed, self._beginning(random, dense[seed].earlier, mask, seed, number), mask, self.rewind)
                for (seed, _), mask in zip(runs, masks, strict=True)
            ]
            found = trained(starts, epochs + (number - 1) * (epochs - self.rewind))
        tickets = []
        for (seed, keep), mask, last in zip(runs, masks, found, strict=True):
            settings = self.settings(dataset, epochs, keep, mask) | {"dense_loss": float(dense[seed].loss[-1])}
            if self.retrain:
                settings |= after_training(last, self.rewind)
                settings["rewound_sha256"] = digest("", {name: dense[seed].earlier[name] for name in mask})
                tickets.append(trained_ticket(random, seed, mask, last.tensors, settings, method=self.name))
            else:
                constant = self.kept_weights == "constant"
                tickets.append(
                    untrained_ticket(random, seed, mask, first[seed], settings, method=self.name, constant=constant)
                )
        return tickets

    def _pruned(self, initial: ByName, final: ByName, masks: MasksByName, keep: float) -> MasksByName:
        """The masks after one round more."""
        score = criterion(self.criterion)
        scores = {name: score(initial[name], final[name]) for name in masks}
        output, rate = list(masks)[-1], self.output_rate
        return pruned(scores, masks, keep, scope=self.scope, output=output, output_rate=rate)

    def _beginning(self, random: Network, rewound: ByName, masks: MasksByName, seed: int, number: int) -> ByName:
        """All tensors as a round begins to train them; those without masks are rewound."""
        begun = {
            name: beginning_weights(
                self.kept_weights,
                rewound[name],
                mask,
                random.drawn[name],
                same_sign=self.same_sign,
                seed=seed,
                round_number=number,
            )
            for name, mask in masks.items()
        }
        return {**rewound, **begun}

    def _check(
        self, target: Network, dataset: Dataset, seeds: Sequence[int], keeps: Sequence[float], epochs: int
    ) -> None:
        """Refuse what cannot be trained, before anything is; raises `InputError`."""
        self.check(target, dataset, seeds, keeps, epochs)
        if not 0 <= self.rewind < epochs:
            raise InputError(f"the epoch rewound to is {self.rewind}; give one from 0 to {epochs - 1}")
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise InputError(f"the number of rounds is {self.rounds}; give 1 to {MOST_ROUNDS}")
        if not 0 < self.output_rate <= 1:
            raise InputError(f"output_rate is {self.output_rate}; give a part of the other layers' rate, in (0, 1]")
        for value, kind, what in ((self.scope, Scope, "scope"), (self.kept_weights, Beginning, "beginning")):
            if value not in get_args(kind):
                raise InputError(f"the {what} {value!r} is unknown; use one of {', '.join(get_args(kind))}")
        criterion(self.criterion)
        constant = self.kept_weights == "constant" and self.same_sign
        if not self.retrain and (self.rewind or not (constant or self.kept_weights == "rewind")):
            raise InputError(
                "without training after pruning, weights are those of the seed; use rewind=0, and kept_weights='rewind'"
                " or kept_weights='constant' with same_sign"
            )


@dataclasses.dataclass(frozen=True)
class IterativeMagnitude(Magnitude):
    """Iterative magnitude pruning (Frankle & Carbin 2019): as magnitude, pruned and rewound round by round."""

    name: ClassVar[str] = "iterative-magnitude"

    rounds: int = 5
    """Rounds of pruning; the kept fraction falls geometrically."""


@dataclasses.dataclass(frozen=True)
class MagnitudeReinit(Magnitude):
    """The mask of magnitude, trained from other random weights: what the first weights are worth beside the mask."""

    name: ClassVar[str] = "magnitude-reinit"

    kept_weights: Beginning = "reinit"
    """Where kept weights begin: rewound, drawn anew, shuffled in their layer, or one size (the layer's deviation)."""


@dataclasses.dataclass(frozen=True)
class MagnitudeSupermask(Magnitude):
    """Supermask of a trained network (Zhou et al. 2019): large final weights whose sign stayed, kept untrained.

    The kept weights are signed constants drawn from the seed: the ticket is seed and bits alone.
    """

    name: ClassVar[str] = "magnitude-supermask"

    criterion: str = "large_final_same_sign"
    """Which weights are kept first, of `trained.criteria`."""
    kept_weights: Beginning = "constant"
    """What kept weights are: rewound, or one size (the layer's deviation)."""
    same_sign: bool = True
    """Give weights that are not rewound the signs of those that would be."""
    retrain: bool = False
    """Train after pruning; else the ticket is a mask of random weights."""
