"""Scores trained by gradient on frozen random weights: what all such learners share, one program for all their runs.

A learner says what its scores begin as, which differentiable mask they make in a step, and which bits they leave.
Kept counts, gains, keys and the learner's own numbers (options that are floats: the learning rate, ...) are traced, so
that one compiled program trains every kept fraction, seed and point of a sweep.

Scale: a bias-free ReLU network is positively homogeneous, so the gains of all layers act as one factor on the
logits. It decides how fast scores learn, and published samplers fix it for one kept fraction only. Here each
layer's gain is set so that its output has root mean square 1 on the first training images, under the first
masks (`scale="unit"`), for any sampler and any kept fraction.
"""

import abc
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset
from lottery_jax.data.augment import augment
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.scores import Tensors, forced_scores, kept_factors
from lottery_jax.mask_learning.train_scores import RunInputs, RunSpec, Trainer, run_configuration, train_runs
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.target import listed
from lottery_jax.networks.top_k import kept_count
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.checkpoints import Checkpoints, name_of
from lottery_jax.training.initialisers import reinitialised
from lottery_jax.training.learner import Learner, check_fits, check_runs, part_of, without_numbers
from lottery_jax.training.loop import steps_per_epoch
from lottery_jax.training.parallel_runs import OnEpochs, Shared, in_groups, padded_group, parallel_runs


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
    scale: Literal["unit", "keep", "drawn"] = "unit"
    """Size of the weights: unit gives each layer's output root mean square 1 at the start, keep multiplies what is
    drawn by sqrt(1 / kept fraction) (Ramanujan et al. 2020), drawn leaves it as it is."""
    init: str | None = None
    """Distribution of the random weights of a plain source: kaiming-normal, kaiming-uniform, xavier-normal,
    xavier-uniform, signed-constant; as the source has it if left out."""
    augment: str = "none"
    """What is made of training images: none, or crop-flip (shifted by up to four pixels, and mirrored)."""
    runs_per_step: int | None = None
    """Runs that share a step by vmap; one on a CPU, where each core has its own, and all elsewhere if left out."""

    shares: ClassVar[bool] = True
    rescaling: ClassVar[float] = 0.0
    """What is kept of a tensor is multiplied by (size / kept) to this power, in a step and in the ticket."""
    least_score: ClassVar[float] = 0.0
    """The score of a weight that is not to be kept."""
    most_score: ClassVar[float] = 1e30
    """The score of a weight that is to be kept, whatever the others' are."""
    resamples: ClassVar[bool] = False
    """Whether pruned weights are drawn again in a training: what `resample` says before each epoch but the first."""

    def prepared(self, source: Network) -> Network:
        """The source that masks are learned on, from the one that is given: with the weights that `init` asks for."""
        return source if self.init is None else reinitialised(source, self.init)

    @abc.abstractmethod
    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        """Scores before training, float32 by tensor."""

    def warm_start_scores(
        self, scores: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """First scores under which what these masks keep comes first."""
        return {
            name: np.copysign(np.abs(score) + np.abs(score).max() * masks[name], score)
            for name, score in scores.items()
        }

    def force_scores(self, scores: Tensors, forced: Tensors) -> Tensors:
        """The scores, those of absent weights the least there are, and of locked ones the highest."""
        return forced_scores(scores, forced, self.least_score, self.most_score)

    @abc.abstractmethod
    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        """The masks of a step, float32 by tensor; gradients reach the scores. key: for what is drawn."""

    def final_masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        """The bits that are left when the training is over, bool by tensor."""
        return {name: mask > 0 for name, mask in self.masks(scores, run, key).items()}

    def penalty(self, scores: Tensors, run: RunInputs) -> jax.Array:
        """What is added to the loss."""
        return jnp.float32(0)

    def project_scores(self, old: Tensors, new: Tensors) -> Tensors:
        """The scores after a step, from those before it."""
        return new

    def on_epoch_end(self, scores: Tensors, run: RunInputs, epoch: jax.Array, epochs: int) -> Tensors:
        """The scores after an epoch, `epoch` counted from 0."""
        return scores

    def first_counts(self, network: Network, counts: Tensors) -> dict[str, Any]:
        """The kept counts under which gains are measured."""
        return counts

    def resample(
        self, network: Network, seed: int, epoch: int, masks: Mapping[str, np.ndarray], redraws: Redraws
    ) -> Redraws:
        """Which blocks are of which draw before an epoch, from those of the epoch before and its masks."""
        return redraws

    def gain_factors(self, network: Network, seed: int, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
        """What the gain of each leaf is multiplied by in the ticket of these masks, by its name."""
        return kept_factors(network, masks, self.rescaling)

    def optimizer(self, epochs: int, examples: int) -> optax.GradientTransformation:
        """The optimiser of a whole training on this many examples."""
        steps = epochs * steps_per_epoch(examples, self.batch_size)
        rate = optax.cosine_decay_schedule(self.learning_rate, steps)
        decay = optax.add_decayed_weights(self.weight_decay)
        return optax.chain(decay, optax.sgd(rate, momentum=self.momentum))

    def check(self) -> None:
        """Refuse options that make no training; raises `InputError`."""
        if not 0 < self.learning_rate < np.inf:
            raise InputError(f"the learning rate is {self.learning_rate}; it must be positive and finite")
        if self.scale not in get_args(get_type_hints(ScoreLearner)["scale"]):
            raise InputError(f"the scale {self.scale!r} is unknown; use unit, keep or drawn")
        augment(self.augment)

    def learn(
        self,
        source: Network,
        dataset: Dataset,
        *,
        start: Mapping[int, Ticket] | None = None,
        **given: Any,
    ) -> list[Ticket]:
        """As in `Learner`; raises `InputError` where source and data do not fit, or every training diverges.

        start: for each seed a ticket on this source, with whose masks the scores begin; its redraws are taken over.
        """
        return self._learn([self], source, dataset, start=start or {}, **given)

    def sweep(
        self,
        source: Network,
        dataset: Dataset,
        grid: Mapping[str, Sequence[Any]],
        *,
        start: Mapping[int, Ticket] | None = None,
        **given: Any,
    ) -> list[Ticket]:
        """As in `Learner`; all points that differ in numbers alone are trained by one program. start: as in `learn`."""
        return self._learn(self.points(grid), source, dataset, start=start or {}, **given)

    def _learn(
        self,
        points: Sequence["ScoreLearner"],
        source: Network,
        dataset: Dataset,
        *,
        start: Mapping[int, Ticket],
        seeds: Sequence[int],
        keeps: Sequence[float],
        epochs: int,
        stored: Mapping[str, np.ndarray] | None = None,
        progress: Progress = no_progress,
        checkpoints: Checkpoints | None = None,
    ) -> list[Ticket]:
        """The tickets of all points, seeds and kept fractions."""
        if not self.sweeps and len(keeps):
            raise InputError(f"{self.name} finds its kept fraction by itself; leave out the keeps {tuple(keeps)}")
        wanted = list(keeps) if self.sweeps else [None]
        check_runs(seeds, wanted, epochs, self.runs_per_step)
        check_source(source, dataset, stored or {})
        for keep in keeps:
            kept_count(keep, 1)  # its refusal, before anything is trained
        for seed in seeds if start else ():
            if (
                seed not in start
                or start[seed].network.random_tensors != source.random_tensors
                or self.init is not None
            ):
                raise InputError(
                    f"there is no ticket on this source for the seed {seed} to start from; give one for each seed, and"
                    " no init"
                )
        found: list[Ticket] = []
        done = 0
        sized = [dataclasses.replace(point, batch_size=min(point.batch_size, len(dataset.train))) for point in points]
        for point in sized:
            point.check()
        for program, same in itertools.groupby(sized, key=without_numbers):
            own = list(same)
            runs = [RunSpec(point, seed, keep) for point in own for seed in seeds for keep in wanted]
            network = program.prepared(source)
            width = parallel_runs(self.runs_per_step, len(runs), source.source_weights)
            trainer = Trainer(network, program, epochs, len(dataset.train), width)

            def train(group: Sequence, tell: OnEpochs | None, trainer: Trainer = trainer) -> list[Ticket | None]:
                seen = no_progress if tell is None else lambda epoch, _: tell(epoch)
                whole = padded_group(group, trainer.parallel_runs.width)
                return train_runs(trainer, dataset, whole, stored or {}, start, seen, checkpoints)[: len(group)]

            def name(group: Sequence, trainer: Trainer = trainer) -> str:
                return name_of(run_configuration(trainer, dataset, group, stored or {}, start))

            seen = part_of(progress, done, len(points), len(own))
            told = None if progress is no_progress else lambda epoch, seen=seen: seen(epoch, epochs)
            shared = checkpoints and Shared(checkpoints, name)
            for run, ticket in zip(runs, in_groups(train, runs, width.width, told, shared), strict=True):
                if ticket is not None:
                    found.append(ticket)
                    continue
                kept = "" if run.keep is None else f", keep {run.keep:g}"
                rate = f", learning rate {run.learner.learning_rate:g}" if len(points) > 1 else ""
                what = f"{self.name}, seed {run.seed}{kept}{rate}"
                log.warning("%s diverged: no ticket; lower the learning rate", what)
            done += len(own)
        if not found:
            raise InputError(f"training of {self.name} diverged in every run; lower the learning rate")
        return found


def check_source(source: Network, dataset: Dataset, stored: Mapping[str, np.ndarray]) -> None:
    """Refuse a source that does not fit the data, or what is stored beside it; raises `InputError`."""
    check_fits(source, dataset, "source")
    if not source.random_tensors:
        raise InputError("the source has no random weights to learn masks of; make one of `learned.sources`")
    held = {name: np.shape(value) for name, value in stored.items()}
    if held != source.tensors:
        raise InputError(
            f"the source's tensors that are not random are {listed(source.tensors)}, and `stored` holds"
            f" {listed(held)}; give those of the target"
        )
