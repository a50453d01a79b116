"""Magnitude pruning: train, prune, rewind, train again (Frankle & Carbin 2019, arXiv 1803.03635).

The dense network of a seed is trained once for all kept fractions. Each round prunes what its criterion ranks last, the
kept weights begin again where they began (or after some epochs, or elsewhere: `beginnings`), and are trained again;
pruned ones are zero, or frozen (`pruned_weights`). In `rounds` rounds the kept fraction falls geometrically.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.trained.base import TrainedLearner, Wanted, after_training, batches_digest
from lottery_jax.trained.beginnings import MOST_ROUNDS, Beginning, beginning_weights
from lottery_jax.trained.criteria import criterion
from lottery_jax.trained.dense import dense_runs
from lottery_jax.trained.leaves import (
    beginnings_digest,
    frozen_names,
    initial_tensors,
    random_network,
    trained_ticket,
    untrained_ticket,
    weight_names,
)
from lottery_jax.trained.pruned_weights import Action, frozen_mask
from lottery_jax.trained.pruning import MasksByName, Scope, pruned
from lottery_jax.trained.retraining import ByName, Finish, Start
from lottery_jax.trained.sanity import MaskKind, changed_mask


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """One learner, seed and kept fraction between two rounds.

    last: what training made of each weight the last time that it was trained. found: of the last training.
    """

    learner: "Magnitude"
    seed: int
    keep: float
    masks: MasksByName
    frozen: MasksByName
    last: ByName
    dense: Finish
    found: Finish


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
    """Pruning rate of the output layer as a part of that of dense layers, where the scope is layer."""
    convolution_rate: float = 1.0
    """Pruning rate of convolutions as a part of that of dense layers, where the scope is layer."""
    rounds: int = 1
    """Rounds of pruning; the kept fraction falls geometrically."""
    rewind: int = 0
    """Epoch that is rewound to; 0 is before training."""
    kept_weights: Beginning = "rewind"
    """Where kept weights begin: rewound, drawn anew, shuffled in their layer, or one size (the layer's deviation)."""
    same_sign: bool = False
    """Give weights that are not rewound the signs of those that would be."""
    pruned_weights: Action = "zero"
    """Pruned weights: zero; freeze, at their first values; movement, frozen where they moved away from zero."""
    mask: MaskKind = "found"
    """The mask that was found, or for comparison shuffled within each tensor, or inverted."""
    retrain: bool = True
    """Train after pruning; else the ticket is a mask of random weights."""

    def _learn(self, points: Sequence["Magnitude"], target: Network, asked: Wanted) -> list[Ticket]:
        dataset, seeds, epochs = asked.dataset, asked.seeds, asked.epochs
        retrainings = self.rounds if self.retrain else self.rounds - 1
        random = random_network(target, trained=self.retrain, frozen=self.pruned_weights != "zero")
        first = {seed: initial_tensors(random, seed) for seed in seeds}
        training = self.training(target, len(points) * len(seeds) * len(asked.keeps))
        total = epochs + retrainings * (epochs - self.rewind)
        whole = {name: np.ones(target.tensors[name], bool) for name in weight_names(random)}
        none = {name: ~mask for name, mask in whole.items()}
        begun = list(itertools.product(points, seeds))
        starts = [Start(seed, first[seed], whole, point.numbers) for point, seed in begun]
        options: dict[str, Any] = {"checkpoints": asked.checkpoints}
        told = lambda done: asked.progress(done, total)  # noqa: E731
        all_dense = dense_runs(training, starts, dataset, epochs, earlier=self.rewind, told=told, **options)
        left = self.survivors([(point, seed, None) for point, seed in begun], all_dense)
        dense = {(begun[at][0].numbers, begun[at][1]): finish for at, finish in left}
        runs = [
            _Run(point, seed, keep, whole, none, own.tensors, own, own)
            for point, seed, keep in itertools.product(points, seeds, asked.keeps)
            if (own := dense.get((point.numbers, seed))) is not None
        ]
        for number in range(1, self.rounds + 1):
            runs = [run.learner._pruned(random, first[run.seed], run, number) for run in runs]
            if number > retrainings:
                break
            starts = [run.learner._start(random, first[run.seed], run, number) for run in runs]
            over = epochs + (number - 1) * (epochs - self.rewind)
            told = lambda done, over=over: asked.progress(over + done, total)  # noqa: E731
            found = training.runs(starts, dataset, epochs, told=told, **options)
            left = self.survivors([(run.learner, run.seed, run.keep) for run in runs], found)
            runs = [dataclasses.replace(runs[at], found=finish) for at, finish in left]
        return [run.learner._ticket(random, first[run.seed], run, dataset, epochs) for run in runs]

    def _ticket(self, random: Network, first: ByName, run: _Run, dataset: Dataset, epochs: int) -> Ticket:
        """What is left of a run, and what it says of how it was made."""
        dense = run.dense
        if not self.retrain:
            # Frozen weights are as drawn, and so are kept ones: one mask has both.
            masks = {name: mask | run.frozen[name] for name, mask in run.masks.items()}
            settings = self.settings(dataset, epochs, run.keep, masks) | {"dense_loss": dense.loss}
            constant = self.kept_weights == "constant"
            return untrained_ticket(random, run.seed, masks, first, settings, method=self.name, constant=constant)
        masks = run.masks | frozen_names(random, run.frozen)
        settings: dict[str, Any] = self.settings(dataset, epochs, run.keep, masks)
        settings |= {"dense_loss": dense.loss, **after_training(run.found, self.rewind)}
        settings["rewound_sha256"] = beginnings_digest(dense.earlier, run.masks)
        settings["dense_batches_sha256"] = batches_digest(dense.batches[self.rewind :])
        return trained_ticket(random, run.seed, masks, run.found.tensors, settings, method=self.name)

    def _pruned(self, random: Network, initial: ByName, run: _Run, number: int) -> _Run:
        """The run with the masks after one round more."""
        score, final = criterion(self.criterion), run.found.tensors
        # Weights that are pruned already were trained in an earlier round.
        last = {name: np.where(mask, final[name], run.last[name]) for name, mask in run.masks.items()}
        masks = pruned(
            {name: score(initial[name], final[name]) for name in run.masks},
            run.masks,
            float(run.keep) ** (number / self.rounds),
            scope=self.scope,
            rates=self._rates(run.masks),
        )
        if number == self.rounds:
            masks = {name: changed_mask(self.mask, mask, random.drawn[name], run.seed) for name, mask in masks.items()}
        frozen = {
            name: frozen_mask(self.pruned_weights, initial[name], last[name], mask) for name, mask in masks.items()
        }
        return dataclasses.replace(run, masks=masks, frozen=frozen, last=last)

    def _rates(self, masks: MasksByName) -> dict[str, float]:
        """The pruning rates of layers that have their own."""
        *hidden, output = masks
        return {name: self.convolution_rate for name in hidden if masks[name].ndim > 2} | {output: self.output_rate}

    def _start(self, random: Network, initial: ByName, run: _Run, number: int) -> Start:
        """What a round begins to train; tensors without masks are rewound."""
        rewound = run.dense.earlier
        begun = {
            name: beginning_weights(
                self.kept_weights,
                rewound[name],
                mask,
                random.drawn[name],
                same_sign=self.same_sign,
                seed=run.seed,
                round_number=number,
            )
            for name, mask in run.masks.items()
        }
        held = {name: np.where(run.frozen[name], initial[name], own) for name, own in begun.items()}
        return Start(run.seed, {**rewound, **held}, run.masks, self.numbers, self.rewind)

    def check(
        self, target: Network, dataset: Dataset, seeds: Sequence[int], keeps: Sequence[float], epochs: int
    ) -> None:
        """Refuse what cannot be trained, before anything is; raises `InputError`."""
        super().check(target, dataset, seeds, keeps, epochs)
        if not 0 <= self.rewind < epochs:
            raise InputError(f"the epoch rewound to is {self.rewind}; give one from 0 to {epochs - 1}")
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise InputError(f"the number of rounds is {self.rounds}; give 1 to {MOST_ROUNDS}")
        for what in ("output_rate", "convolution_rate"):
            if not 0 < (rate := getattr(self, what)) <= 1:
                raise InputError(f"{what} is {rate}; give a part of the dense layers' rate, in (0, 1]")
        for value, kind, what in (
            (self.scope, Scope, "scope"),
            (self.kept_weights, Beginning, "beginning"),
            (self.pruned_weights, Action, "action on pruned weights"),
            (self.mask, MaskKind, "mask"),
        ):
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
