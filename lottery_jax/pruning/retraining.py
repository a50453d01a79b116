"""Training under masks: pruned weights keep their values in every step, whatever momentum or weight decay do.

One compiled program trains the dense networks, every round, every kept fraction, seed and learning rate. Dense
trainings are cached, because several methods and points of a sweep begin with the same one.
"""

import dataclasses
import functools
import hashlib
import threading
import weakref
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.data import Dataset, Split
from lottery_jax.data.augment import augment
from lottery_jax.io.checksummed_file import digest
from lottery_jax.networks.network import Network
from lottery_jax.progress import Progress, no_progress
from lottery_jax.training.checkpoints import Checkpoint, Checkpoints
from lottery_jax.training.loop import History, State, advance, begin, drive, network_loss, on_split, steps_per_epoch
from lottery_jax.training.losses import DEFAULT_LOSS, TaskLoss
from lottery_jax.training.optimizers import Hyperparameters, OptimizerConfig, masked_optimizer
from lottery_jax.training.parallel_runs import ParallelRuns, Shared, in_groups, padded_group, stacked

ByName = dict[str, Any]
"""Tensors of a network, or masks of some of them, by name."""


class InitialState(NamedTuple):
    """The state of a run before its training."""

    seed: int
    """Seed of the order of the examples."""
    tensors: ByName
    """All tensors, float32, with the values that pruned weights keep."""
    masks: ByName
    """Kept weights, bool, of the tensors that are pruned."""
    hyperparameters: Hyperparameters
    epoch: int = 0
    """Epochs of the schedule and of the order of the examples that are over."""


class RunResult(NamedTuple):
    """The result of a run."""

    tensors: ByName
    """Tensors after the last epoch."""
    earlier: ByName
    """Tensors after an earlier epoch."""
    by_epoch: dict[str, np.ndarray]
    """History, [E] by name."""
    revived: int
    """Steps after which a pruned weight had moved."""
    batches: tuple[str, ...]
    """For each epoch a digest of all that the order of its examples depends on: key, epoch, sizes and data."""

    @property
    def loss(self) -> float:
        """The mean loss of the last epoch."""
        return float(self.by_epoch["loss"][-1])

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(value.nbytes for value in (*self.tensors.values(), *self.earlier.values()))


@dataclasses.dataclass(frozen=True)
class Retraining:
    """The compiled training of a network; equal ones share their programs."""

    network: Network
    config: OptimizerConfig
    layout: ParallelRuns
    loss: TaskLoss = DEFAULT_LOSS

    def runs(
        self,
        starts: Sequence[InitialState],
        dataset: Dataset,
        epochs: int,
        *,
        earlier: int = 0,
        progress: Progress = no_progress,
        checkpoints: Checkpoints | None = None,
    ) -> list[RunResult | None]:
        """Train each run up to the end of epoch `epochs`; the result is None for each run that diverged.

        Args:
            starts: Runs, all from the same epoch.
            dataset: Training and validation examples.
            epochs: Number of the last epoch.
            earlier: Epoch whose tensors are returned, too.
            progress: Called with (mean epochs done of all runs, epochs to do).
            checkpoints: Folder of unfinished trainings; each share of a job needs all of them (see `Shared.for_all`).
        """
        data = self.layout.replicate((dataset.train, dataset.validation))
        examples = len(dataset.train)
        sizes = f"{dataset.fingerprint} {examples} {min(self.config.batch_size, examples)}"
        resolved, recorded = self.loss.resolved(dataset), self.loss.recorded(dataset)
        training = dataclasses.replace(self, loss=resolved)

        def configuration(group: Sequence[InitialState]) -> dict[str, Any]:
            """Everything that a training of these runs depends on, as JSON."""
            runs = []
            for start in padded_group(group, self.layout.width):
                masks = digest("", {name: mask.view(np.uint8) for name, mask in start.masks.items()})
                numbers = [start.seed, start.epoch, *map(float, start.hyperparameters)]
                runs.append([numbers, digest("", start.tensors), masks])
            return {
                "network": self.network.to_json(),
                "optimizer": dataclasses.asdict(self.config),
                "data": sizes,
                "epochs": [epochs, earlier],
                "runs": runs,
                **({"trained_for": recorded} if recorded else {}),
            }

        def train(group: Sequence[InitialState], progress: Progress) -> list[RunResult | None]:
            padded = padded_group(group, self.layout.width)
            checkpoint = checkpoints and checkpoints.of(configuration(group))
            return training._train_group(padded, data, sizes, epochs, earlier, progress, checkpoint)[: len(group)]

        shared = checkpoints and Shared(checkpoints, configuration, for_all=True)
        return in_groups(train, starts, self.layout.width, progress=progress, shared=shared)

    def _train_group(
        self,
        starts: Sequence[InitialState],
        data: tuple[Split, Split],
        sizes: str,
        epochs: int,
        earlier: int,
        progress: Progress,
        checkpoint: Checkpoint | None,
    ) -> list[RunResult | None]:
        tensors, masks = stacked(start.tensors for start in starts), stacked(start.masks for start in starts)
        hyperparameters = stacked(jax.tree.map(np.float32, start.hyperparameters) for start in starts)
        keys = jnp.stack([jax.random.key(start.seed % 2**32) for start in starts])
        inputs = masks, {name: tensors[name] for name in masks}, hyperparameters
        first, saved = starts[0].epoch, {}

        def advance_by(state: State, _: int) -> tuple[State, History]:
            if first < earlier == int(state.epoch[0]):
                saved.update(jax.tree.map(np.array, state.parameters))  # copies, because the state is donated
            return self._epoch(state, inputs, data, jnp.int32(epochs))

        state, history = drive(
            advance_by,
            self._begin(tensors, keys, jnp.full(len(starts), first, jnp.int32), self._steps(data[0])),
            epochs=epochs - first,
            progress=progress,
            epochs_per_call=1,
            checkpoint=checkpoint,
            extra=saved,
        )
        optimizer_state: Any = state.optimizer
        final, revived = jax.tree.map(np.asarray, (state.parameters, optimizer_state.revived))
        order_keys = np.asarray(jax.random.key_data(state.key))
        results: list[RunResult | None] = []
        for index, start in enumerate(starts):
            last = {name: value[index] for name, value in final.items()}
            if not all(np.isfinite(value).all() for value in last.values()):
                results.append(None)
                continue
            moved = any((last[name] != start.tensors[name])[~mask].any() for name, mask in start.masks.items())
            batches = (
                f"{sizes} {order_keys[index].tolist()} {epoch}" for epoch in range(first, int(state.epoch[index]))
            )
            result = RunResult(
                last,
                {name: value[index] for name, value in saved.items()} or start.tensors,
                {name: values[index] for name, values in history.items()},
                int(revived[index]) + moved,
                tuple(hashlib.sha256(words.encode()).hexdigest() for words in batches),
            )
            results.append(result)
        return results

    def _steps(self, train: Split) -> int:
        return steps_per_epoch(len(train), min(self.config.batch_size, len(train)))

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _begin(self, tensors: ByName, keys: jax.Array, epochs: jax.Array, steps: int) -> State:
        """The state of each run after `epochs` epochs [R] of `steps` steps of its schedule."""
        optimizer = masked_optimizer(self.config.build(Hyperparameters(0.0, 0.0, 0.0)), {}, {})
        states = jax.vmap(functools.partial(begin, optimizer=optimizer))(tensors, key=keys)
        optimizer_states: Any = states.optimizer
        return states._replace(epoch=epochs, optimizer=optimizer_states._replace(step=epochs * steps))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def _epoch(
        self,
        state: State,
        inputs: tuple[ByName, ByName, Hyperparameters],
        data: tuple[Split, Split],
        epochs: jax.Array,
    ) -> tuple[State, History]:
        """One of `epochs` epochs of all runs; inputs are masks, values of pruned weights, and hyperparameters."""
        schedule, steps = self.config.schedule, self._steps(data[0])

        def one(own: tuple, shared: tuple) -> tuple[State, History]:
            (state, (masks, values, hyperparameters)), ((train, validation), epochs) = own, shared

            def validate(tensors: ByName) -> History:
                own = self.network.module(tensors)
                return on_split(own, validation, self.loss, prefix="validation_")  # type: ignore[arg-type]

            factor = (lambda step: schedule.factor(step, steps, epochs)) if schedule.changes else None
            return advance(
                network_loss(self.network, self.loss),
                state,
                train,
                optimizer=masked_optimizer(self.config.build(hyperparameters), masks, values, factor),
                epochs=1,
                batch_size=min(self.config.batch_size, len(train)),
                measure=validate if len(validation) else None,
                augment=augment(self.config.augment),
            )

        return self.layout.map(one, (state, inputs), (data, epochs))


_MAX_BYTES = 1 << 28  # of the cached dense trainings

_CACHE: dict[Hashable, tuple[weakref.ref[Dataset], RunResult]] = {}  # the oldest first

_LOCK = threading.Lock()  # of the cache


def dense_runs(
    training: Retraining,
    starts: Sequence[InitialState],
    dataset: Dataset,
    epochs: int,
    *,
    earlier: int,
    progress: Progress,
    checkpoints: Checkpoints | None,
) -> list[RunResult | None]:
    """As `Retraining.runs`, with the results of equal trainings of this process from a cache.

    Equal trainings have the same network, optimiser, layout, seed, first weights, data object, epochs and precision.
    """
    run = functools.partial(training.runs, dataset=dataset, epochs=epochs, earlier=earlier, progress=progress)
    if checkpoints is not None and checkpoints.groups is not None:
        return run(starts, checkpoints=checkpoints.sibling("dense"))  # the files of the job are its cache
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    same = training, epochs, earlier, id(dataset), jax.default_backend(), precision
    keys = [(*same, start.seed, start.hyperparameters, digest("", start.tensors)) for start in starts]
    results: dict[Hashable, RunResult | None] = {}
    with _LOCK:
        for key in keys:
            data, result = _CACHE.get(key, (None, None))
            results[key] = result if data is not None and data() is dataset else None
    missing = {key: start for key, start in zip(keys, starts, strict=True) if results[key] is None}
    if missing:
        new = run(list(missing.values()), checkpoints=checkpoints)
        results |= zip(missing, new, strict=True)
        with _LOCK:
            _CACHE.update((key, (weakref.ref(dataset), own)) for key in missing if (own := results[key]) is not None)
            while sum(own.nbytes for _, own in _CACHE.values()) > _MAX_BYTES:
                del _CACHE[next(iter(_CACHE))]
    else:
        progress(epochs, epochs)
    return [results[key] for key in keys]
