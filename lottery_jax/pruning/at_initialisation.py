"""Pruning at initialisation: a mask is found before any training, and the network is trained once under it.

Random pruning and SmartRatio (Su et al. 2020, arXiv 2009.11094) choose only how many weights each layer keeps. SNIP,
GraSP and SynFlow keep the weights of the highest saliencies: derivatives of the loss or of the outputs. Pruning from
scratch trains gates on the units.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress
from lottery_jax.pruning.base import (
    PruningLearner,
    initial_digest,
    initial_tensors,
    random_network,
    ticket_settings,
    trained_ticket,
    weight_names,
)
from lottery_jax.pruning.criteria import MasksByName, Scope, counts_of, highest, proportional, pruned
from lottery_jax.pruning.mask_actions import random_scores
from lottery_jax.pruning.retraining import ByName, InitialState
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.learner import RunSpec, TrainingRequest, check_fits
from lottery_jax.training.loop import Loss, Updates, advance, begin, network_loss
from lottery_jax.training.losses import TaskLoss
from lottery_jax.training.parallel_runs import SweepProgram, train_sweep


def prune_at_initialisation(
    learner: "PruningAtInitialisation",
    source: Network,
    request: TrainingRequest,
    grid: Mapping[str, Sequence[Any]] | None = None,
) -> list[Ticket]:
    """Find masks before training, and train once under them; arguments and result are those of `Learner.sweep`."""
    target, dataset = source.target, request.dataset
    check_fits(target, dataset, "target")
    random = random_network(target, trained=True)
    initial = {seed: initial_tensors(random, seed) for seed in request.seeds}

    def program_for(specs: Sequence[RunSpec], progress: Progress) -> SweepProgram:
        training = specs[0].learner.training(target, len(specs), request.task_loss)

        def train(group: Sequence[RunSpec], progress: Progress) -> list[Ticket | None]:
            masks = []
            for spec in group:
                data = random, dataset, initial[spec.seed]
                masks.append(spec.learner.masks(*data, spec.seed, spec.keep, request.task_loss))
            starts = [
                InitialState(spec.seed, _masked(initial[spec.seed], mask), mask, spec.learner.hyperparameters)
                for spec, mask in zip(group, masks, strict=True)
            ]
            checkpoints = request.checkpoints and request.checkpoints.unshared()
            results = training.runs(starts, dataset, request.epochs, progress=progress, checkpoints=checkpoints)
            tickets: list[Ticket | None] = []
            for spec, mask, result in zip(group, masks, results, strict=True):
                if result is None:
                    tickets.append(None)
                    continue
                settings = ticket_settings(spec, request, mask, result)
                settings["rewound_sha256"] = initial_digest(initial[spec.seed], mask)
                ticket = trained_ticket(random, spec.seed, mask, result.tensors, settings, method=spec.learner.name)
                tickets.append(ticket)
            return tickets

        return SweepProgram(
            train, lambda group: request.configuration(target, group), training.layout.width, request.epochs
        )

    return train_sweep(learner.points(grid or {}), request, program_for)


def _masked(tensors: ByName, masks: MasksByName) -> ByName:
    return {**tensors, **{name: tensors[name] * mask for name, mask in masks.items()}}


@dataclasses.dataclass(frozen=True)
class PruningAtInitialisation(PruningLearner):
    """The target's architecture, pruned before training and trained once."""

    learn = sweep = prune_at_initialisation

    @abc.abstractmethod
    def masks(
        self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float, loss: TaskLoss
    ) -> MasksByName:
        """The masks of one run, bool by tensor in the order of the network, with round(keep * weights) kept in all.

        Args:
            random: The target's architecture with random layers.
            dataset: Training examples.
            tensors: The target's tensors before training.
            seed: Seed of random scores; that of `tensors`.
            keep: Kept fraction of all weights.
            loss: The loss that is trained.
        """


@dataclasses.dataclass(frozen=True)
class RandomPruning(PruningAtInitialisation):
    """Random pruning: random weights of each layer are kept before training; the baseline of all other methods."""

    name: ClassVar[str] = "random-pruning"

    scope: Scope = "layer"
    """Scope of pruning: layer, one rate for each layer; global, all weights together; erk, Erdos-Renyi densities."""
    output_rate: float = 0.5
    """Pruning rate of the output layer relative to the others (scope layer)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope not in get_args(Scope):
            raise InputError(f"`scope` must be one of {', '.join(get_args(Scope))}, got {self.scope!r}. Choose one.")

    def masks(
        self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float, loss: TaskLoss
    ) -> MasksByName:
        names = weight_names(random)
        scores = {name: random_scores(random.random_tensors[name], seed) for name in names}
        whole = {name: np.ones_like(scores[name], bool) for name in names}
        return pruned(scores, whole, keep, scope=self.scope, rates={names[-1]: self.output_rate})


@dataclasses.dataclass(frozen=True)
class SmartRatio(PruningAtInitialisation):
    """SmartRatio (Su et al. 2020): random weights are kept before training, a smaller fraction in later layers.

    Layer l of L has a kept fraction proportional to (L - l + 1)**2 + (L - l + 1), as published for residual networks.
    """

    name: ClassVar[str] = "smart-ratio"

    output_keep: float = 0.3
    """Kept fraction of the last layer, at most an equal share of all kept weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.output_keep <= 1:
            raise InputError(f"`output_keep` must be in [0, 1], got {self.output_keep}. Give a kept fraction.")

    def masks(
        self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float, loss: TaskLoss
    ) -> MasksByName:
        sizes = {name: random.random_tensors[name].size for name in weight_names(random)}
        counts = smart_counts(sizes, int(kept_count(keep, sum(sizes.values()))), self.output_keep)
        masks = {}
        for name, count in counts.items():
            scores = random_scores(random.random_tensors[name], seed)
            masks[name] = highest(scores, count, np.ones_like(scores, bool))
        return masks


def smart_counts(sizes: dict[str, int], total: int, output_keep: float) -> dict[str, int]:
    """Kept weights of each tensor, in the order of the network, that sum to the total.

    The other tensors keep, in proportion, what a full tensor cannot; the output keeps the rest.

    >>> smart_counts({"a": 600, "b": 600, "c": 100}, 270, 0.3)
    {'a': 160, 'b': 80, 'c': 30}
    """
    *hidden, output = sizes
    last = min(round(output_keep * sizes[output]), total // len(sizes)) if hidden else total
    last = max(last, total - sum(sizes[name] for name in hidden))
    if not hidden:
        return {output: last}
    left = range(len(sizes), 1, -1)  # L - l + 1
    densities = proportional({name: float(k * k + k) for name, k in zip(hidden, left, strict=True)})
    return counts_of(densities, {name: sizes[name] for name in hidden}, total - last) | {output: last}


Saliency = Callable[[Network, Loss, ByName, jax.Array, jax.Array], ByName]
"""From a network, the loss of its tensors, these, images [B, ...] and labels [B] to scores by tensor."""


def _gradient(loss: Loss, images: jax.Array, labels: jax.Array) -> Callable[[ByName], ByName]:
    return jax.grad(lambda tensors: loss(tensors, images, labels, None)[0])


def snip(network: Network, loss: Loss, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """|w dL/dw|: the change of the loss without the weight, to first order (Lee et al. 2019, arXiv 1810.02340)."""
    gradient = _gradient(loss, images, labels)(tensors)
    return {name: jnp.abs(tensors[name] * gradient[name]) for name in tensors}


def grasp(network: Network, loss: Loss, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """w (H g): the effect of the weight on the flow of the gradient g (Wang et al. 2020, arXiv 2002.07376)."""
    descend = _gradient(loss, images, labels)
    _, product = jax.jvp(descend, (tensors,), (descend(tensors),))
    return {name: tensors[name] * product[name] for name in tensors}


def synflow(network: Network, loss: Loss, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """|w| dR/d|w| for the summed outputs R of |weights| on inputs of ones (Tanaka et al. 2020, arXiv 2006.05467)."""
    absolute = {name: jnp.abs(value) for name, value in tensors.items()}

    def flow(absolute: ByName) -> jax.Array:
        return network.module(absolute)(jnp.ones((1, *images.shape[1:]), jnp.float32)).sum()  # type: ignore[operator]

    gradient = jax.grad(flow)(absolute)
    return {name: absolute[name] * gradient[name] for name in absolute}


SALIENCIES: dict[str, tuple[Saliency, int]] = {"snip": (snip, 1), "grasp": (grasp, 1), "synflow": (synflow, 100)}
"""Saliencies and their published numbers of pruning rounds, by name."""


@dataclasses.dataclass(frozen=True)
class SaliencyPruning(PruningAtInitialisation):
    """Keeps the weights of the highest saliencies, in rounds over which the kept fraction falls geometrically."""

    examples: int = 1000
    """Training examples that saliencies are computed on."""

    def masks(
        self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float, loss: TaskLoss
    ) -> MasksByName:
        rounds = SALIENCIES[self.name][1]
        images = jnp.asarray(dataset.train.images)[: self.examples]
        labels = jnp.asarray(dataset.train.labels)[: self.examples]
        masks = {name: np.ones(np.shape(tensors[name]), bool) for name in weight_names(random)}
        for number in range(1, rounds + 1):
            scores = _saliencies(self.name, random.target, loss, _masked(tensors, masks), images, labels)
            scores = jax.device_get(scores)
            masks = pruned(scores, masks, float(keep) ** (number / rounds), scope="global")
        return masks


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _saliencies(
    name: str, network: Network, task_loss: TaskLoss, tensors: ByName, images: jax.Array, labels: jax.Array
) -> ByName:
    return dict(SALIENCIES[name][0](network, network_loss(network, task_loss), tensors, images, labels))


@dataclasses.dataclass(frozen=True)
class Snip(SaliencyPruning):
    """SNIP (Lee et al. 2019): the weights whose removal changes the loss most are kept before training."""

    name: ClassVar[str] = "snip"


@dataclasses.dataclass(frozen=True)
class Grasp(SaliencyPruning):
    """GraSP (Wang et al. 2020): the weights that increase the gradient's flow are kept before training."""

    name: ClassVar[str] = "grasp"


@dataclasses.dataclass(frozen=True)
class Synflow(SaliencyPruning):
    """SynFlow (Tanaka et al. 2020): the weights on the strongest paths are kept before training, without data."""

    name: ClassVar[str] = "synflow"


@dataclasses.dataclass(frozen=True)
class PruningFromScratch(PruningAtInitialisation):
    """Pruning from scratch (Wang et al. 2020): the units with the highest gates on random weights are kept and trained.

    Each unit has a gate in [0, 1] that multiplies its weights, which stay at their first values. Gates lower the loss,
    and a penalty pulls the mean gate of each layer to the kept fraction. Weights are ranked by their unit's gate. One
    unit may be kept in part, so that kept counts are exact. The gates of the output layer belong to its inputs, because
    every class is needed (arXiv 1909.12579).
    """

    name: ClassVar[str] = "pruning-from-scratch"

    gate_epochs: int = 10
    """Epochs of the training of gates."""
    gate_rate: float = 0.01
    """Learning rate of the gates, trained by Adam."""
    balance: float = 0.5
    """Factor of the penalty, the squared difference of a layer's mean gate and the kept fraction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate_epochs < 1 or not 0 < self.gate_rate < np.inf or not 0 <= self.balance < np.inf:
            raise InputError(
                "`gate_epochs` must be at least 1, `gate_rate` positive and `balance` at least 0, got"
                f" {self.gate_epochs}, {self.gate_rate} and {self.balance}. Change the wrong one."
            )

    def masks(
        self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float, loss: TaskLoss
    ) -> MasksByName:
        names, train = weight_names(random), jax.tree.map(jnp.asarray, dataset.train)
        key = jax.random.key(seed % 2**32)
        gates = _gates(self, random.target, tuple(names), loss, tensors, key, jnp.float32(keep), train)
        whole = {name: np.ones(np.shape(tensors[name]), bool) for name in names}
        scores = {name: np.asarray(gates[name], np.float64) * mask for name, mask in whole.items()}
        return pruned(scores, whole, keep, scope="global")


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _gates(
    learner: PruningFromScratch,
    network: Network,
    names: tuple[str, ...],
    task_loss: TaskLoss,
    tensors: ByName,
    key: jax.Array,
    keep: jax.Array,
    train: Split,
) -> ByName:
    """The trained gates of the named tensors, [O, 1, ...], and [1, I, 1, ...] of the last one."""

    def loss(gates: ByName, images: jax.Array, labels: jax.Array, _: jax.Array | None) -> tuple[jax.Array, Updates]:
        gated = {**tensors, **{name: gates[name] * tensors[name] for name in names}}
        # Not in training mode, because batch statistics would cancel the gates.
        outputs = network.module(gated)(images)  # type: ignore[operator]
        sparsity = sum(((gate.mean() - keep) ** 2 for gate in gates.values()), jnp.float32(0))
        return task_loss.mean(outputs, labels) + learner.balance * sparsity, {}

    gates = {}
    for name in names:
        shape, side = [1] * tensors[name].ndim, 1 if name == names[-1] else 0
        shape[side] = tensors[name].shape[side]
        gates[name] = jnp.full(shape, 0.5)
    optimizer = optax.adam(learner.gate_rate)
    state, _ = advance(
        loss,
        begin(gates, key=key, optimizer=optimizer),
        train,
        optimizer=optimizer,
        epochs=learner.gate_epochs,
        batch_size=min(learner.batch_size, len(train)),
        project=lambda old, new: jax.tree.map(lambda gate: jnp.clip(gate, 0.0, 1.0), new),
    )
    return state.parameters
