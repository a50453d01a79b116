"""Pruning at initialisation: the mask is found before any training, then the network is trained once under it.

Random pruning at initialisation: only how many weights each layer keeps is chosen, which ones is chance.

Su et al. 2020 (arXiv 2009.11094) give layer l of L a kept fraction in proportion to (L - l + 1)**2 + (L - l + 1), and
the last one 0.3 of itself. That is the rule for residual networks, used for all here; for VGG they divide by l**2.
What a weight is worth before any training: scores of pruning at initialisation, larger ones kept.

Each differentiates the loss, or the outputs, of the network with the weights that are still there.
SNIP, GraSP and SynFlow: weights are scored before training, and the highest scores of all tensors are kept.
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import kept_count
from lottery_jax.pruning.base import (
    SweepRequest,
    TrainedLearner,
    TrainedRun,
    after_training,
    initial_digest,
    initial_tensors,
    random_network,
    trained_ticket,
    weight_names,
)
from lottery_jax.pruning.criteria import MasksByName, Scope, counts_of, highest, pruned
from lottery_jax.pruning.mask_actions import chance
from lottery_jax.pruning.retraining import ByName, InitialState, RunResult
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.loop import cross_entropy
from lottery_jax.training.parallel_runs import OnEpochs


@dataclasses.dataclass(frozen=True)
class _Run(TrainedRun):
    learner: "PruningAtInitialisation"
    keep: float


@dataclasses.dataclass(frozen=True)
class PruningAtInitialisation(TrainedLearner):
    """The target's architecture pruned before training, and trained once."""

    @abc.abstractmethod
    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """The masks of one run, by tensor in the order of the tree: round(keep * weights) in all.

        random: the network with its random leaves; tensors: its target's before any training.
        """

    def _learn(self, points: Sequence["PruningAtInitialisation"], target: Network, asked: SweepRequest) -> list[Ticket]:
        dataset, epochs = asked.dataset, asked.epochs
        random = random_network(target, trained=True)
        first = {seed: initial_tensors(random, seed) for seed in asked.seeds}
        runs = [_Run(*each) for each in itertools.product(points, asked.seeds, asked.keeps)]
        training = self.training(target, len(runs))
        kept = asked.checkpoints and asked.checkpoints.own()

        def train(group: Sequence[_Run], tell: OnEpochs | None) -> list[Ticket | None]:
            masks = [run.learner.masks(random, dataset, first[run.seed], run.seed, run.keep) for run in group]
            starts = [
                InitialState(run.seed, _masked(first[run.seed], mask), mask, run.learner.numbers)
                for run, mask in zip(group, masks, strict=True)
            ]
            found = training.runs(starts, dataset, epochs, told=tell, checkpoints=kept)
            return [
                None if last is None else self._ticket(random, first[run.seed], run, mask, last, asked)
                for run, mask, last in zip(group, masks, found, strict=True)
            ]

        told = lambda done: asked.progress(done, epochs)  # noqa: E731
        return self.in_groups(train, runs, training.parallel_runs.width, target, asked, told)

    def _ticket(
        self, random: Network, first: ByName, run: _Run, mask: MasksByName, last: RunResult, asked: SweepRequest
    ) -> Ticket:
        settings = run.learner.settings(asked.dataset, asked.epochs, run.keep, mask) | after_training(last, 0)
        settings["rewound_sha256"] = initial_digest(first, mask)
        return trained_ticket(random, run.seed, mask, last.tensors, settings, method=self.name)


def _masked(tensors: ByName, masks: MasksByName) -> ByName:
    return {**tensors, **{name: tensors[name] * mask for name, mask in masks.items()}}


@dataclasses.dataclass(frozen=True)
class RandomPruning(PruningAtInitialisation):
    """Weights at random places are kept, before any training: what every other way is to be better than."""

    name: ClassVar[str] = "random-at-start"

    scope: Scope = "layer"
    """Whether each layer is pruned at one rate, all weights are drawn together, or densities are Erdos-Renyi's."""
    output_rate: float = 0.5
    """Pruning rate of the output layer as a part of that of the others, where the scope is layer."""

    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """As in `PruningAtInitialisation`; of the data nothing is used."""
        names = weight_names(random)
        scores = {name: chance(random.random_tensors[name], seed) for name in names}
        whole = {name: np.ones_like(scores[name], bool) for name in names}
        return pruned(scores, whole, keep, scope=self.scope, rates={names[-1]: self.output_rate})


@dataclasses.dataclass(frozen=True)
class SmartRatio(PruningAtInitialisation):
    """SmartRatio (Su et al. 2020): weights at random places are kept, fewer in later layers, before any training."""

    name: ClassVar[str] = "smart-ratio"

    output_keep: float = 0.3
    """Kept fraction of the last layer; at most its even share of all that is kept."""

    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """As in `PruningAtInitialisation`; of the data nothing is used."""
        if not 0 <= self.output_keep <= 1:
            raise InputError(f"output_keep is {self.output_keep}; give the last layer's kept fraction, in [0, 1]")
        sizes = {name: random.random_tensors[name].size for name in weight_names(random)}
        counts = smart_counts(sizes, int(kept_count(keep, sum(sizes.values()))), self.output_keep)
        whole = {name: np.ones(random.random_tensors[name].shape, bool) for name in sizes}
        return {name: highest(chance(random.random_tensors[name], seed), counts[name], whole[name]) for name in sizes}


def smart_counts(sizes: dict[str, int], total: int, output_keep: float) -> dict[str, int]:
    """Kept weights of each tensor, in the order of the tree, that sum to the total.

    No tensor keeps more than all: what it cannot is kept by the others, in proportion, and last of all by the output.

    >>> smart_counts({"a": 600, "b": 600, "c": 100}, 270, 0.3)
    {'a': 160, 'b': 80, 'c': 30}
    """
    *hidden, output = sizes
    last = min(round(output_keep * sizes[output]), total // len(sizes)) if hidden else total
    last = max(last, total - sum(sizes[name] for name in hidden))
    if not hidden:
        return {output: last}
    left = range(len(sizes), 1, -1)  # L - l + 1
    shares = {name: float(k * k + k) for name, k in zip(hidden, left, strict=True)}
    least = min(shares.values())

    def densities(rate: float) -> dict[str, float]:
        # 1 at the least share for a rate of 0, so that all is kept.
        return {name: min(1.0, (1 - rate) * share / least) for name, share in shares.items()}

    return counts_of(densities, {name: sizes[name] for name in hidden}, total - last) | {output: last}


Saliency = Callable[[Network, ByName, jax.Array, jax.Array], ByName]
"""Scores of all tensors {name: array} from a network, its tensors, images [B, ...] and labels [B]."""


def _gradient(network: Network, images: jax.Array, labels: jax.Array) -> Callable[[ByName], ByName]:
    loss = cross_entropy(network)
    return jax.grad(lambda tensors: loss(tensors, images, labels, None)[0])


def snip(network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """|w dL/dw|: how much the loss minds that the weight is taken away (Lee et al. 2019, arXiv 1810.02340)."""
    gradient = _gradient(network, images, labels)(tensors)
    return {name: jnp.abs(tensors[name] * gradient[name]) for name in tensors}


def grasp(network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """w (H g): how much the flow of the gradient g is kept up by the weight (Wang et al. 2020, arXiv 2002.07376)."""
    descend = _gradient(network, images, labels)
    _, product = jax.jvp(descend, (tensors,), (descend(tensors),))
    return {name: tensors[name] * product[name] for name in tensors}


def synflow(network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """|w| dR/d|w| with R the summed outputs of |weights| for ones: no data (Tanaka et al. 2020, arXiv 2006.05467)."""
    sizes = {name: jnp.abs(value) for name, value in tensors.items()}

    def flow(sizes: ByName) -> jax.Array:
        return network.module(sizes)(jnp.ones((1, *images.shape[1:]), jnp.float32)).sum()  # type: ignore[operator]

    gradient = jax.grad(flow)(sizes)
    return {name: sizes[name] * gradient[name] for name in sizes}


SALIENCIES: dict[str, tuple[Saliency, int]] = {"snip": (snip, 1), "grasp": (grasp, 1), "synflow": (synflow, 100)}
"""Scores by name, and in how many rounds they prune, as published."""


def saliency(name: str) -> tuple[Saliency, int]:
    """The scores of a name and their rounds; raises `InputError`."""
    if name not in SALIENCIES:
        raise InputError(f"saliency {name!r} is unknown; {suggest(name, SALIENCIES)}")
    return SALIENCIES[name]


@dataclasses.dataclass(frozen=True)
class Salient(PruningAtInitialisation):
    """Keeps the weights of the highest scores, in rounds whose kept fractions fall geometrically."""

    examples: int = 1000
    """Training examples that scores are taken from."""

    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """As in `PruningAtInitialisation`; the seed has said what the tensors are."""
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
