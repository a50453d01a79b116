"""Scores trained by gradient on frozen random weights: what all such learners share, one program for all their runs.

A learner says what its scores begin as, which differentiable mask they make in a step, and which bits they leave.
Kept counts, gains and keys are traced numbers, so that one compiled program trains every kept fraction and seed.

Scale: a bias-free ReLU network is positively homogeneous, so the gains of all layers act as one factor on the
logits. It decides how fast scores learn, and published samplers fix it for one kept fraction only. Here each
layer's gain is set so that its output has root mean square 1 on the first training images, under the first
masks (`normalise=True`), for any sampler and any kept fraction.
"""

import concurrent.futures
import dataclasses
import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.learned.base import Learner
from lottery_jax.learned.inits import reinitialised
from lottery_jax.learned.scores import Tensors
from lottery_jax.learned.trainer import Run, Trainer, train_runs
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.target import listed
from lottery_jax.progress import Progress, log, unseen
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training import steps_per_epoch


@dataclasses.dataclass(frozen=True)
class ScoreLearner(Learner):
    """Scores of frozen random weights, trained by SGD with momentum and a cosine learning rate."""

    batch_size: int = 64
    """Examples of a step."""
    learning_rate: float = 0.1
    """Learning rate at the start; it falls to zero along a cosine."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay of the scores."""
    normalise: bool = True
    """Give each layer's output root mean square 1 at the start, for each kept fraction."""
    init: str | None = None
    """Distribution of the random weights of a plain source: kaiming-normal, kaiming-uniform, xavier-normal,
    xavier-uniform, signed-constant; as the source has it if left out."""
    together: int | None = None
    """Runs that share a step by vmap; one on a CPU, where each core has its own, and all elsewhere if left out."""

    rescaling: ClassVar[float] = 0.0
    """What is kept of a tensor is multiplied by (size / kept) to this power, in a step and in the ticket."""

    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        """Scores before training, float32 by tensor."""
        raise NotImplementedError

    def started(self, scores: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """First scores under which what these masks keep comes first."""
        return {
            name: np.copysign(np.abs(score) + np.abs(score).max() * masks[name], score)
            for name, score in scores.items()
        }

    def masks(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        """The masks of a step, float32 by tensor; gradients reach the scores. key: for what is drawn."""
        raise NotImplementedError

    def chosen(self, scores: Tensors, run: Run, key: jax.Array) -> Tensors:
        """The bits that are left when the training is over, bool by tensor."""
        return {name: mask > 0 for name, mask in self.masks(scores, run, key).items()}

    def penalty(self, scores: Tensors, run: Run) -> jax.Array:
        """What is added to the loss."""
        return jnp.float32(0)

    def projected(self, old: Tensors, new: Tensors) -> Tensors:
        """The scores after a step, from those before it."""
        return new

    def between(self, scores: Tensors, run: Run, epoch: jax.Array, epochs: int) -> Tensors:
        """The scores after an epoch, `epoch` counted from 0."""
        return scores

    def first_counts(self, network: Network, counts: Tensors) -> dict[str, Any]:
        """The kept counts under which gains are measured."""
        return counts

    renews: ClassVar[bool] = False
    """Whether pruned weights are drawn again in a training."""

    def renewed(
        self, network: Network, seed: int, epoch: int, masks: Mapping[str, np.ndarray], redraws: Redraws
    ) -> Redraws:
        """Which blocks are of which draw before an epoch, from those of the epoch before and its masks."""
        return redraws

    def optimizer(self, epochs: int, examples: int) -> optax.GradientTransformation:
        """The optimiser of a whole training on this many examples."""
        if not 0 < self.learning_rate < np.inf:
            raise InputError(f"the learning rate is {self.learning_rate}; it must be positive and finite")
        if epochs < 1:
            raise InputError(f"the number of epochs is {epochs}; it must be at least 1")
        steps = epochs * steps_per_epoch(examples, self.batch_size)
        rate = optax.cosine_decay_schedule(self.learning_rate, steps)
        decay = optax.add_decayed_weights(self.weight_decay)
        return optax.chain(decay, optax.sgd(rate, momentum=self.momentum))

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
        start: Mapping[int, Ticket] | None = None,
    ) -> list[Ticket]:
        """As in `Learner`; raises `InputError` where source and data do not fit, or every training diverges.

        start: for each seed a ticket on this source, with whose masks the scores begin; its redraws are taken over.
        """
        runs = self._runs(seeds, keeps)
        for seed in seeds if start else ():
            assert start is not None
            if seed not in start or start[seed].network.drawn != source.drawn or self.init is not None:
                raise InputError(
                    f"there is no ticket on this source for the seed {seed} to start from; give one for each seed, and"
                    " no init"
                )
        check_source(source, dataset, stored or {})
        source = source if self.init is None else reinitialised(source, self.init)
        width = self.together or (1 if jax.default_backend() == "cpu" else len(runs))
        learner = dataclasses.replace(self, batch_size=min(self.batch_size, len(dataset.train)))
        trainer = Trainer(source, learner, epochs, len(dataset.train), width)
        groups = [runs[at : at + width] for at in range(0, len(runs), width)]
        done, told, turn = [0] * len(groups), 0, threading.Lock()

        def train(group: int) -> list[Ticket | None]:
            def seen(epoch: int, _: int) -> None:
                nonlocal told
                with turn:
                    done[group] = epoch
                    if (mean := sum(done) // len(done)) > told:
                        told = mean
                        progress(told, epochs)

            told_to = unseen if progress is unseen else seen
            return train_runs(trainer, dataset, groups[group], stored or {}, start or {}, told_to)

        # The first one compiles for all. A step of one run leaves most of a CPU idle, so the others share it.
        tickets = train(0)
        with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) if width == 1 else 1) as pool:
            tickets += itertools.chain.from_iterable(pool.map(train, range(1, len(groups))))
        found = []
        for (seed, keep), ticket in zip(runs, tickets, strict=True):
            if ticket is not None:
                found.append(ticket)
                continue
            kept = "" if keep is None else f", keep {keep:g}"
            log.warning("%s, seed %d%s diverged: no ticket; lower the learning rate", self.name, seed, kept)
        if not found:
            raise InputError(f"training of {self.name} diverged in every run; lower the learning rate")
        return found

    def _runs(self, seeds: Sequence[int], keeps: Sequence[float]) -> list[tuple[int, float | None]]:
        if not self.sweeps and len(keeps):
            raise InputError(f"{self.name} finds its kept fraction by itself; leave out the keeps {tuple(keeps)}")
        wanted = list(keeps) if self.sweeps else [None]
        if not (len(seeds) and len(wanted)) or (self.together is not None and self.together < 1):
            raise InputError(
                f"{len(seeds)} seeds, {len(wanted)} keeps, together={self.together}; give at least 1 of each"
            )
        return list(itertools.product(seeds, wanted))


def check_source(source: Network, dataset: Dataset, stored: Mapping[str, np.ndarray]) -> None:
    """Refuse a source that does not fit the data, or what is stored beside it; raises `InputError`."""
    given, output = source.given, source.output
    if given is None or output is None or (given.shape, output.shape) != (dataset.shape, (dataset.classes,)):
        raise InputError(
            f"the source maps {given and list(given.shape)} to {output and list(output.shape)} but {dataset.name}"
            f" has examples of {list(dataset.shape)} and {dataset.classes} classes; choose one that fits"
        )
    if not source.drawn:
        raise InputError("the source has no random weights to learn masks of; make one of `learned.sources`")
    held = {name: np.shape(value) for name, value in stored.items()}
    if held != source.tensors:
        raise InputError(
            f"the source's tensors that are not random are {listed(source.tensors)}, and `stored` holds"
            f" {listed(held)}; give those of the target"
        )
