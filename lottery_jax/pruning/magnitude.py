"""Magnitude pruning: train, prune, rewind, train again (Frankle and Carbin 2019, arXiv 1803.03635).

The dense network of a seed is trained once for all kept fractions.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.progress import Progress
from lottery_jax.pruning.base import (
    PruningLearner,
    batches_digest,
    initial_digest,
    initial_tensors,
    random_network,
    ticket_settings,
    trained_ticket,
    weight_names,
)
from lottery_jax.pruning.criteria import MasksByName, Scope, criterion, pruned
from lottery_jax.pruning.mask_actions import (
    MAX_ROUNDS,
    Mask0Action,
    Mask1Action,
    MaskKind,
    changed_mask,
    frozen_mask,
    mask_1_weights,
)
from lottery_jax.pruning.retraining import ByName, InitialState, RunResult, dense_runs
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.learner import RunSpec, TrainingRequest, check_fits
from lottery_jax.training.parallel_runs import SweepProgram, shifted, train_sweep


def prune_by_magnitude(
    learner: "Magnitude",
    source: Network,
    request: TrainingRequest,
    grid: Mapping[str, Sequence[Any]] | None = None,
) -> list[Ticket]:
    """Train, prune, rewind and retrain; arguments, result and errors are those of `Learner.sweep`."""
    target, dataset, epochs = source.target, request.dataset, request.epochs
    points = learner.points(grid or {})
    check_fits(target, dataset, "target")
    for point in points:
        if point.rewind >= epochs:
            raise InputError(f"`rewind` must be an epoch from 0 to {epochs - 1}, got {point.rewind}. Lower it.")

    def program_for(specs: Sequence[RunSpec], progress: Progress) -> SweepProgram:
        options = specs[0].learner
        random = random_network(target, trained=options.retrain, frozen=options.mask_0_action != "zero")
        training = options.training(target, len(specs), request.task_loss)
        initial = {seed: initial_tensors(random, seed) for seed in request.seeds}
        whole = {name: np.ones(target.tensors[name], bool) for name in weight_names(random)}
        retrainings = options.rounds if options.retrain else options.rounds - 1
        total = epochs + retrainings * (epochs - options.rewind)
        pairs = list(dict.fromkeys((spec.learner, spec.seed) for spec in specs))
        results = dense_runs(
            training,
            [InitialState(seed, initial[seed], whole, point.hyperparameters) for point, seed in pairs],
            dataset,
            epochs,
            earlier=options.rewind,
            progress=shifted(progress, 0, total),
            checkpoints=request.checkpoints,
        )
        dense = dict(zip(pairs, results, strict=True))

        def train(group: Sequence[RunSpec], progress: Progress) -> list[Ticket | None]:
            runs = {
                index: _Run(spec, initial[spec.seed], result, result, whole, result.tensors)
                for index, spec in enumerate(group)
                if (result := dense[spec.learner, spec.seed]) is not None
            }
            for number in range(1, options.rounds + 1):
                runs = {index: run.pruned(random, number) for index, run in runs.items()}
                if number > retrainings or not runs:
                    break
                results = training.runs(
                    [run.initial_state(random, number) for run in runs.values()],
                    dataset,
                    epochs,
                    progress=shifted(progress, (number - 1) * (epochs - options.rewind), total),
                    checkpoints=request.checkpoints and request.checkpoints.unshared(),
                )
                ended = zip(runs.items(), results, strict=True)
                runs = {index: dataclasses.replace(run, result=own) for (index, run), own in ended if own is not None}
            return [runs[index].ticket(random, request) if index in runs else None for index in range(len(group))]

        return SweepProgram(
            train, lambda group: request.configuration(target, group), training.layout.width, total, epochs
        )

    return train_sweep(points, request, program_for)


@dataclasses.dataclass(frozen=True)
class Magnitude(PruningLearner):
    """Magnitude pruning (Frankle and Carbin 2019): the target's architecture trained, pruned, rewound and retrained.

    Its weights are trained, so that its tickets are not strong ones, unless `retrain` is off. Biases and other tensors
    are trained and not pruned.
    """

    name: ClassVar[str] = "magnitude"

    learn = sweep = prune_by_magnitude

    criterion: str = "large_final"
    """Criterion that ranks weights, a name in `lottery_jax.pruning.CRITERIA`."""
    scope: Scope = "layer"
    """Scope of pruning: layer, one rate for each layer; global, all weights together; erk, Erdos-Renyi densities."""
    output_rate: float = 0.5
    """Pruning rate of the output layer relative to dense layers (scope layer)."""
    convolution_rate: float = 1.0
    """Pruning rate of convolutions relative to dense layers (scope layer)."""
    rounds: int = 1
    """Rounds of pruning, over which the kept fraction falls geometrically."""
    rewind: int = 0
    """Epoch whose weights are restored by rewinding; 0 is before training."""
    mask_1_action: Mask1Action = "rewind"
    """Action on kept weights: rewind, reinit (redrawn), reshuffle (within the layer) or constant (the deviation)."""
    same_sign: bool = False
    """Give kept weights that are not rewound the signs of the rewound ones."""
    mask_0_action: Mask0Action = "zero"
    """Action on pruned weights: zero; freeze, at their first values; movement, frozen if training increased them."""
    mask: MaskKind = "found"
    """Mask of the ticket: the found one, or for comparison shuffled within each tensor, or inverted."""
    retrain: bool = True
    """Train after the last pruning. If not, the ticket is a mask on random weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        criterion(self.criterion)
        choices = {"scope": Scope, "mask_1_action": Mask1Action, "mask_0_action": Mask0Action, "mask": MaskKind}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in get_args(allowed):
                raise InputError(f"`{name}` must be one of {', '.join(get_args(allowed))}, got {value!r}. Choose one.")
        for name in ("output_rate", "convolution_rate"):
            if not 0 < (rate := getattr(self, name)) <= 1:
                raise InputError(f"`{name}` must be in (0, 1], got {rate}. Give a part of the rate of dense layers.")
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise InputError(f"`rounds` must be from 1 to {MAX_ROUNDS}, got {self.rounds}. Change it.")
        if self.rewind < 0:
            raise InputError(f"`rewind` must be at least 0, got {self.rewind}. Give an epoch.")
        constant = self.mask_1_action == "constant" and self.same_sign
        if not self.retrain and (self.rewind or not (constant or self.mask_1_action == "rewind")):
            raise InputError(
                "without `retrain`, `rewind` must be 0 and `mask_1_action` rewind, or constant with `same_sign`, got"
                f" {self.rewind} and {self.mask_1_action}. Change them, because weights are those of the seed."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A run between two rounds."""

    spec: RunSpec
    initial: ByName
    """Tensors before training."""
    dense: RunResult
    result: RunResult
    """Result of the last training."""
    masks: MasksByName
    last: ByName
    """Each weight after the last training in which it was not pruned."""
    frozen: MasksByName = dataclasses.field(default_factory=dict)
    """Pruned weights that keep their first values."""

    def pruned(self, random: Network, number: int) -> "_Run":
        """The run with the masks after round `number`."""
        options, score = self.spec.learner, criterion(self.spec.learner.criterion)
        final = self.result.tensors
        *hidden, output = self.masks
        rates = {name: options.convolution_rate for name in hidden if self.masks[name].ndim > 2}
        masks = pruned(
            {name: score(self.initial[name], final[name]) for name in self.masks},
            self.masks,
            float(self.spec.keep) ** (number / options.rounds),  # type: ignore[arg-type]
            scope=options.scope,
            rates=rates | {output: options.output_rate},
        )
        if number == options.rounds:
            for name, mask in masks.items():
                masks[name] = changed_mask(options.mask, mask, random.random_tensors[name], self.spec.seed)
        last = {name: np.where(mask, final[name], self.last[name]) for name, mask in self.masks.items()}
        frozen = {
            name: frozen_mask(options.mask_0_action, self.initial[name], last[name], mask)
            for name, mask in masks.items()
        }
        return dataclasses.replace(self, masks=masks, frozen=frozen, last=last)

    def initial_state(self, random: Network, number: int) -> InitialState:
        """The state before the training of round `number`; tensors without masks are rewound."""
        options, tensors = self.spec.learner, dict(self.dense.earlier)
        for name, mask in self.masks.items():
            weights = mask_1_weights(
                options.mask_1_action,
                tensors[name],
                mask,
                random.random_tensors[name],
                same_sign=options.same_sign,
                seed=self.spec.seed,
                round_number=number,
            )
            tensors[name] = np.where(self.frozen[name], self.initial[name], weights)
        return InitialState(self.spec.seed, tensors, self.masks, options.hyperparameters, options.rewind)

    def ticket(self, random: Network, request: TrainingRequest) -> Ticket:
        """The ticket after the last round."""
        options, dense = self.spec.learner, self.dense
        if not options.retrain:
            # Kept and frozen weights have their first values, so that one mask has both.
            masks = {name: mask | self.frozen[name] for name, mask in self.masks.items()}
            settings = ticket_settings(self.spec, request, masks, None) | {"dense_loss": dense.loss}
            return self._untrained_ticket(random, masks, settings)
        masks = self.masks | {own: self.frozen[name] for name, own in random.frozen_tensors.items()}
        settings = ticket_settings(self.spec, request, masks, self.result, options.rewind) | {
            "dense_loss": dense.loss,
            "rewound_sha256": initial_digest(dense.earlier, self.masks),
            "dense_batches_sha256": batches_digest(dense.batches[options.rewind :]),
        }
        return trained_ticket(random, self.spec.seed, masks, self.result.tensors, settings, method=options.name)

    def _untrained_ticket(self, random: Network, masks: MasksByName, settings: Mapping[str, Any]) -> Ticket:
        """The ticket of a mask on untrained weights, from seed and bits alone; biases are pruned."""

        def signed_constant(path: str, node: Node) -> Node:
            # The sign of a drawn weight is one bit, the same under both samplers.
            if isinstance(node, RandomLayer):
                return dataclasses.replace(node, sampler=Sampler.signed_constant(node.sampler.scale))
            return node

        constant = self.spec.learner.mask_1_action == "constant"
        return make_ticket(
            random.map_layers(signed_constant) if constant else random,
            seed=self.spec.seed,
            masks={name: masks.get(name, np.zeros(drawn.shape, bool)) for name, drawn in random.random_tensors.items()},
            method=self.spec.learner.name,
            stored={name: self.initial[name] for name in random.tensors},
            settings=settings,
        )


@dataclasses.dataclass(frozen=True)
class IterativeMagnitude(Magnitude):
    """Iterative magnitude pruning (Frankle and Carbin 2019): as magnitude, pruned and rewound round by round."""

    name: ClassVar[str] = "iterative-magnitude"

    rounds: int = 5


@dataclasses.dataclass(frozen=True)
class MagnitudeReinit(Magnitude):
    """The mask of magnitude, trained from redrawn weights: shows what the first weights add to the mask."""

    name: ClassVar[str] = "magnitude-reinit"

    mask_1_action: Mask1Action = "reinit"


@dataclasses.dataclass(frozen=True)
class MagnitudeSupermask(Magnitude):
    """Supermask of a trained network (Zhou et al. 2019): large final weights of unchanged sign, kept untrained.

    The kept weights are signed constants drawn from the seed: the ticket is seed and bits alone.
    """

    name: ClassVar[str] = "magnitude-supermask"

    criterion: str = "large_final_same_sign"
    mask_1_action: Mask1Action = "constant"
    """Action on kept weights: rewind, or constant (the deviation of the layer)."""
    same_sign: bool = True
    retrain: bool = False
