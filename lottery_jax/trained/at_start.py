"""Pruning at initialisation: the mask is found before any training, then the network is trained once under it."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.data import Dataset
from lottery_jax.learned.base import Learner
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress, unseen
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.trained.leaves import initial_tensors, random_network, trained_ticket, weight_names
from lottery_jax.trained.magnitude import check_target, history
from lottery_jax.trained.retraining import ByName, Descent, Retraining, Start
from lottery_jax.trained.saliency import largest, saliency


@dataclasses.dataclass(frozen=True)
class PrunedAtStart(Learner):
    """The target's architecture pruned before training, and trained once."""

    sources: ClassVar[tuple[str, ...]] = ("gadget",)  # its target is the task's own

    examples: int = 1000
    """Training examples that scores are taken from."""
    batch_size: int = 60
    """Examples of a step."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with momentum."""
    learning_rate: float = 1.2e-3
    """Learning rate, constant."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """Weight decay of the weights."""
    together: int | None = None
    """Runs that share a step by vmap; one on a CPU, where each core has its own, and all elsewhere if left out."""

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
        check_target(target, dataset, seeds, keeps, epochs, self.together)
        random = random_network(target, trained=True)
        first = {seed: initial_tensors(random, seed) for seed in seeds}
        runs = list(itertools.product(seeds, keeps))
        masks = [self._masks(target, dataset, first[seed], weight_names(random), keep) for seed, keep in runs]
        starts = [
            Start(seed, {**first[seed], **{name: first[seed][name] * own[name] for name in own}}, own)
            for (seed, _), own in zip(runs, masks, strict=True)
        ]
        descent = Descent(self.optimizer, self.learning_rate, self.momentum, self.weight_decay, self.batch_size)
        together = self.together or (1 if jax.default_backend() == "cpu" else len(runs))
        training = Retraining(target, descent, together)
        found = training.runs(starts, dataset, epochs, told=lambda done: progress(done, epochs))
        common = {**dataclasses.asdict(self), "epochs": epochs, "data": dataset.name, "rewound_to": 0}
        tickets = []
        for (seed, keep), mask, last in zip(runs, masks, found, strict=True):
            kept = {name: int(np.count_nonzero(own)) for name, own in mask.items()}
            settings = common | {"keep": float(keep), "kept": kept, **history(last, 0)}
            tickets.append(trained_ticket(random, seed, mask, last.tensors, settings, method=self.name))
        return tickets

    def _masks(
        self, target: Network, dataset: Dataset, tensors: ByName, names: Sequence[str], keep: float
    ) -> dict[str, np.ndarray]:
        """The masks of one run, in rounds whose kept fractions fall geometrically."""
        images = jnp.asarray(dataset.train.images)[: self.examples]
        labels = jnp.asarray(dataset.train.labels)[: self.examples]
        rounds = saliency(self.name)[1]
        masks = {name: np.ones(np.shape(tensors[name]), bool) for name in names}
        for number in range(1, rounds + 1):
            left = {**tensors, **{name: tensors[name] * mask for name, mask in masks.items()}}
            scores = jax.device_get(_scores(self.name, target, left, images, labels))
            masks = largest(scores, masks, float(kept_count(keep, 1 << 40) / (1 << 40)) ** (number / rounds))
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
