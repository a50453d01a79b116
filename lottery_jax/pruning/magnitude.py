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
from lottery_jax.pruning.base import (
    SweepRequest,
    TrainedLearner,
    TrainedRun,
    after_training,
    batches_digest,
    frozen_names,
    initial_digest,
    initial_tensors,
    random_network,
    trained_ticket,
    untrained_ticket,
    weight_names,
)
from lottery_jax.pruning.criteria import MasksByName, Scope, criterion, pruned
from lottery_jax.pruning.mask_actions import (
    MOST_ROUNDS,
    Mask0Action,
    Mask1Action,
    MaskKind,
    changed_mask,
    frozen_mask,
    mask_1_weights,
)
from lottery_jax.pruning.retraining import ByName, InitialState, Retraining, RunResult, dense_runs
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.parallel_runs import OnEpochs


@dataclasses.dataclass(frozen=True, eq=False)
class _Run(TrainedRun):
    """A run between two rounds.

    last: what training made of each weight the last time that it was trained. found: of the last training.
    """

    learner: "Magnitude"
    keep: float
    masks: MasksByName
    frozen: MasksByName
    last: ByName
    dense: RunResult
    found: RunResult


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
    kept_weights: Mask1Action = "rewind"
    """Where kept weights begin: rewound, drawn anew, shuffled in their layer, or one size (the layer's deviation)."""
    same_sign: bool = False
    """Give weights that are not rewound the signs of those that would be."""
    pruned_weights: Mask0Action = "zero"
    """Pruned weights: zero; freeze, at their first values; movement, frozen where they moved away from zero."""
    mask: MaskKind = "found"
    """The mask that was found, or for comparison shuffled within each tensor, or inverted."""
    retrain: bool = True
    """Train after pruning; else the ticket is a mask of random weights."""

    def _learn(self, points: Sequence["Magnitude"], target: Network, asked: SweepRequest) -> list[Ticket]:
        dataset, seeds, epochs = asked.dataset, asked.seeds, asked.epochs
        random = random_network(target, trained=self.retrain, frozen=self.pruned_weights != "zero")
        first = {seed: initial_tensors(random, seed) for seed in seeds}
        training = self.training(target, len(points) * len(seeds) * len(asked.keeps))
        total = epochs + self._retrainings * (epochs - self.rewind)
        whole = {name: np.ones(target.tensors[name], bool) for name in weight_names(random)}
        none = {name: ~mask for name, mask in whole.items()}
        begun = [TrainedRun(point, seed, None) for point, seed in itertools.product(points, seeds)]
        starts = [InitialState(run.seed, first[run.seed], whole, run.learner.numbers) for run in begun]
        told = lambda done: asked.progress(done, total)  # noqa: E731
        all_dense = dense_runs(
            training, starts, dataset, epochs, earlier=self.rewind, told=told, checkpoints=asked.checkpoints
        )
        dense = {(run.learner, run.seed): finish for run, finish in self.survivors(begun, all_dense)}
        runs = [
            _Run(point, seed, keep, whole, none, own.tensors, own, own)
            for point, seed, keep in itertools.product(points, seeds, asked.keeps)
            if (own := dense.get((point, seed))) is not None
        ]

        def train(group: Sequence[_Run], tell: OnEpochs | None) -> list[Ticket | None]:
            return self._rounds(random, training, first, group, asked, tell)

        told = lambda done: asked.progress(epochs + done, total)  # noqa: E731
        return self.in_groups(train, runs, training.parallel_runs.width, target, asked, told)

    @property
    def _retrainings(self) -> int:
        return self.rounds if self.retrain else self.rounds - 1

    def _rounds(
        self,
        random: Network,
        training: Retraining,
        first: dict[int, ByName],
        group: Sequence[_Run],
        asked: SweepRequest,
        tell: OnEpochs | None,
    ) -> list[Ticket | None]:
        """The tickets of some runs after all rounds, None of those that diverged; told of epochs after the dense."""
        dataset, epochs = asked.dataset, asked.epochs
        kept, runs = asked.checkpoints and asked.checkpoints.own(), dict(enumerate(group))
        for number in range(1, self.rounds + 1):
            runs = {at: run.learner._pruned(random, first[run.seed], run, number) for at, run in runs.items()}
            if number > self._retrainings or not runs:
                break
            starts = [run.learner._start(random, first[run.seed], run, number) for run in runs.values()]
            over = (number - 1) * (epochs - self.rewind)
            told = None if tell is None else lambda done, over=over, tell=tell: tell(over + done)
            found = training.runs(starts, dataset, epochs, told=told, checkpoints=kept)
            ends = dict(zip(runs, found, strict=True))
            runs = {at: dataclasses.replace(runs[at], found=end) for at, end in ends.items() if end is not None}
        made = {at: run.learner._ticket(random, first[run.seed], run, dataset, epochs) for at, run in runs.items()}
        return [made.get(at) for at in range(len(group))]

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
        settings["rewound_sha256"] = initial_digest(dense.earlier, run.masks)
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
            masks = {
                name: changed_mask(self.mask, mask, random.random_tensors[name], run.seed)
                for name, mask in masks.items()
            }
        frozen = {
            name: frozen_mask(self.pruned_weights, initial[name], last[name], mask) for name, mask in masks.items()
        }
        return dataclasses.replace(run, masks=masks, frozen=frozen, last=last)

    def _rates(self, masks: MasksByName) -> dict[str, float]:
        """The pruning rates of layers that have their own."""
        *hidden, output = masks
        return {name: self.convolution_rate for name in hidden if masks[name].ndim > 2} | {output: self.output_rate}

    def _start(self, random: Network, initial: ByName, run: _Run, number: int) -> InitialState:
        """What a round begins to train; tensors without masks are rewound."""
        rewound = run.dense.earlier
        begun = {
            name: mask_1_weights(
                self.kept_weights,
                rewound[name],
                mask,
                random.random_tensors[name],
                same_sign=self.same_sign,
                seed=run.seed,
                round_number=number,
            )
            for name, mask in run.masks.items()
        }
        masked_optimizer = {name: np.where(run.frozen[name], initial[name], own) for name, own in begun.items()}
        return InitialState(run.seed, {**rewound, **masked_optimizer}, run.masks, self.numbers, self.rewind)

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
            (self.kept_weights, Mask1Action, "beginning"),
            (self.pruned_weights, Mask0Action, "action on pruned weights"),
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

    kept_weights: Mask1Action = "reinit"
    """Where kept weights begin: rewound, drawn anew, shuffled in their layer, or one size (the layer's deviation)."""


@dataclasses.dataclass(frozen=True)
class MagnitudeSupermask(Magnitude):
    """Supermask of a trained network (Zhou et al. 2019): large final weights whose sign stayed, kept untrained.

    The kept weights are signed constants drawn from the seed: the ticket is seed and bits alone.
    """

    name: ClassVar[str] = "magnitude-supermask"

    criterion: str = "large_final_same_sign"
    """Which weights are kept first, of `trained.criteria`."""
    kept_weights: Mask1Action = "constant"
    """What kept weights are: rewound, or one size (the layer's deviation)."""
    same_sign: bool = True
    """Give weights that are not rewound the signs of those that would be."""
    retrain: bool = False
    """Train after pruning; else the ticket is a mask of random weights."""
