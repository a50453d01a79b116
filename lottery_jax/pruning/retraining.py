"""Training under masks: what is pruned keeps its value in every step, whatever momentum or weight decay make of it.

One compiled program trains the dense networks, every round, every kept fraction, seed and learning rate: an epoch of
runs [R], whose masks, weights, keys and numbers are its arguments. Runs of one seed see the examples in one order.

Dense trainings that this process has done: methods that begin with the same one, and grids of them, share it.
"""

import collections
import dataclasses
import functools
import hashlib
import threading
import weakref
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.data.augment import augment
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import digest
from lottery_jax.networks.network import Network
from lottery_jax.training.checkpoints import Checkpoint, Checkpoints, name_of
from lottery_jax.training.loop import History, State, advance, begin, cross_entropy, drive, on_split, steps_per_epoch
from lottery_jax.training.optimizers import Schedule, masked_optimizer
from lottery_jax.training.parallel_runs import OnEpochs, ParallelRuns, Shared, in_groups, padded_group, stacked

ByName = dict[str, Any]
"""Tensors of a network, or masks of some of them, by name."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How steps are made: Adam, or SGD with momentum; its numbers are each run's own. augment: of the images."""

    optimizer: Literal["adam", "sgd"]
    batch_size: int
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    augment: str = "none"

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise InputError(f"the optimizer {self.optimizer!r} is unknown; use adam or sgd")
        augment(self.augment)

    def made(self, numbers: "Hyperparameters") -> optax.GradientTransformation:
        """The optimiser at the whole learning rate; weight decay is of matrices and kernels alone."""
        adam = self.optimizer == "adam"
        steps = optax.adam(numbers.rate) if adam else optax.sgd(numbers.rate, momentum=numbers.momentum)
        matrices = optax.add_decayed_weights(numbers.decay, mask=lambda t: jax.tree.map(lambda x: x.ndim > 1, t))
        return optax.chain(matrices, steps)


class Hyperparameters(NamedTuple):
    """Learning rate, momentum and weight decay of a run; traced."""

    rate: Any
    momentum: Any
    decay: Any

    def check(self) -> None:
        """Refuse what no optimiser can use; raises `InputError`."""
        if not 0 < self.rate < np.inf:
            raise InputError(f"the learning rate is {self.rate}; it must be positive and finite")
        if not (0 <= self.momentum < 1 and 0 <= self.decay < np.inf):
            raise InputError(
                f"momentum {self.momentum} and weight decay {self.decay} are not possible; momentum is in [0, 1)"
                " and weight decay from 0 up"
            )


class InitialState(NamedTuple):
    """What a run begins with: a seed for the order of the examples, tensors and masks by name, epochs that are over.

    Where a tensor has a mask, what is pruned has its value already, and keeps it.
    """

    seed: int
    tensors: ByName
    masks: ByName
    numbers: Hyperparameters
    epoch: int = 0


class RunResult(NamedTuple):
    """What a run ends with: tensors, those after an earlier epoch, and what was measured of each epoch [E] by name.

    revived: the number of steps after which a pruned weight had moved. batches: for each epoch a digest of all that the
    order of its examples depends on, as the program was given it: key, epoch, sizes and data.
    """

    tensors: ByName
    earlier: ByName
    by_epoch: dict[str, np.ndarray]
    revived: int
    batches: tuple[str, ...]

    @property
    def loss(self) -> float:
        """The mean loss of the last epoch."""
        return float(self.by_epoch["loss"][-1])


@dataclasses.dataclass(frozen=True)
class Retraining:
    """The compiled training of a network; equal ones share their programs."""

    network: Network
    descent: OptimizerConfig
    parallel_runs: ParallelRuns

    def runs(
        self,
        starts: Sequence[InitialState],
        dataset: Dataset,
        epochs: int,
        *,
        earlier: int = 0,
        told: OnEpochs | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> list[RunResult | None]:
        """Train each run up to the end of epoch `epochs`, None where it diverged; told: of the epochs all have done.

        earlier: the epoch after which tensors are kept, too. checkpoints: where unfinished trainings are kept; what
        there is for a crew, each of its shares needs.
        """
        train, validation = self.parallel_runs.common((dataset.train, dataset.validation))
        sizes = f"{dataset.fingerprint} {len(train)} {self.size(train)}"

        def configuration(rows: Sequence[InitialState]) -> dict[str, Any]:
            return self._configuration(padded_group(rows, self.parallel_runs.width), sizes, epochs, earlier)

        def group(rows: Sequence[InitialState], tell: OnEpochs | None) -> list[RunResult | None]:
            kept = checkpoints and checkpoints.of(configuration(rows))
            whole = padded_group(rows, self.parallel_runs.width)
            found = self._group(whole, train, validation, sizes, epochs, earlier, tell or (lambda count: None), kept)
            return found[: len(rows)]

        shared = checkpoints and Shared(checkpoints, lambda rows: name_of(configuration(rows)), for_all=True)
        return in_groups(group, starts, self.parallel_runs.width, told, shared)

    def size(self, train: Split) -> int:
        """Examples of a step."""
        return min(self.descent.batch_size, len(train))

    def _group(
        self,
        starts: Sequence[InitialState],
        train: Split,
        validation: Split,
        sizes: str,
        epochs: int,
        earlier: int,
        seen: OnEpochs,
        checkpoint: Checkpoint | None,
    ) -> list[RunResult | None]:
        fields = "tensors", "masks", "numbers"
        tensors, masks, numbers = (stacked(_floats(getattr(start, field)) for start in starts) for field in fields)
        keys = jnp.stack([jax.random.key(start.seed % 2**32) for start in starts])
        values, kept = {name: tensors[name] for name in masks}, {}
        first, steps, total = starts[0].epoch, steps_per_epoch(len(train), self.size(train)), jnp.int32(epochs)

        def advance_by(state: State, _: int) -> tuple[State, History]:
            if first < earlier == int(state.epoch[0]):
                kept.update(jax.tree.map(np.array, state.parameters))  # copies: the state's own are used up
            return self._epoch(state, (masks, values, numbers), total, train, validation)

        state, history = drive(
            advance_by,
            self._begin(tensors, keys, jnp.full(len(starts), first, jnp.int32), steps),
            epochs=epochs - first,
            progress=lambda done, _: seen(done),
            part=1,
            checkpoint=checkpoint,
            more=kept,
        )
        counted: Any = state.optimizer
        ended, revived = jax.tree.map(np.asarray, (state.parameters, counted.revived))
        orders = np.asarray(jax.random.key_data(state.key))
        found: list[RunResult | None] = []
        for at, start in enumerate(starts):
            last = {name: value[at] for name, value in ended.items()}
            if not all(np.isfinite(value).all() for value in last.values()):
                found.append(None)
                continue
            moved = any((last[name] != start.tensors[name])[~mask].any() for name, mask in start.masks.items())
            finish = RunResult(
                last,
                {name: value[at] for name, value in kept.items()} or start.tensors,
                {name: values[at] for name, values in history.items()},
                int(revived[at]) + moved,
                tuple(_digest(sizes, orders[at], epoch) for epoch in range(first, int(state.epoch[at]))),
            )
            found.append(finish)
        return found

    def _configuration(self, starts: Sequence[InitialState], sizes: str, epochs: int, earlier: int) -> dict[str, Any]:
        """Everything that a training of these runs depends on."""
        return {
            "network": self.network.to_json(),
            "descent": dataclasses.asdict(self.descent),
            "data": sizes,
            "epochs": [epochs, earlier],
            "runs": [
                [
                    *(start.seed, start.epoch, [float(number) for number in start.numbers], digest("", start.tensors)),
                    digest("", {name: mask.view(np.uint8) for name, mask in start.masks.items()}),
                ]
                for start in starts
            ],
        }

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _begin(self, tensors: ByName, keys: jax.Array, epochs: jax.Array, steps: int) -> State:
        """The state of each run before its first epoch; of schedules, the steps before it are over."""
        optimizer = masked_optimizer(self.descent.made(Hyperparameters(0.0, 0.0, 0.0)), {}, {})
        states = jax.vmap(lambda own, key: begin(own, key=key, optimizer=optimizer))(tensors, keys)
        over: Any = states.optimizer
        return states._replace(epoch=epochs, optimizer=over._replace(step=epochs * steps))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def _epoch(
        self,
        state: State,
        given: tuple[ByName, ByName, Hyperparameters],
        total: jax.Array,
        train: Split,
        validation: Split,
    ) -> tuple[State, History]:
        """One epoch of all runs, of `total` ones, and what the validation split says after it.

        given: masks, what pruned weights are, and numbers.
        """
        size = self.size(train)
        steps, schedule = steps_per_epoch(len(train), size), self.descent.schedule

        def one(own: tuple, common: tuple) -> tuple[State, History]:
            (state, (masks, values, numbers)), (train, validation, total) = own, common

            def validated(tensors: ByName) -> History:
                found = on_split(self.network.module(tensors), validation)  # type: ignore[arg-type]
                return {f"validation_{name}": value for name, value in found.items()}

            part = (lambda step: schedule.part(step, steps, total)) if schedule.changes else None
            return advance(
                cross_entropy(self.network),
                state,
                train,
                optimizer=masked_optimizer(self.descent.made(numbers), masks, values, part),
                epochs=1,
                batch_size=size,
                measure=validated if len(validation) else None,
                augment=augment(self.descent.augment),
            )

        return self.parallel_runs.over(one, (state, given), (train, validation, total))


def _floats(tree: Any) -> Any:
    """Hyperparameters as arrays."""
    return jax.tree.map(lambda leaf: np.float32(leaf) if isinstance(leaf, float) else leaf, tree)


def _digest(sizes: str, key: np.ndarray, epoch: int) -> str:
    return hashlib.sha256(f"{sizes} {key.tolist()} {epoch}".encode()).hexdigest()


_MOST_BYTES = 1 << 28


@dataclasses.dataclass
class _Shelf:
    """What is remembered, the latest last, and for which data; the oldest go where it takes too much memory."""

    found: collections.OrderedDict[Hashable, tuple[weakref.ref[Dataset], RunResult]]
    turn: threading.Lock

    def take(self, key: Hashable, dataset: Dataset) -> RunResult | None:
        with self.turn:
            data, finish = self.found.get(key, (None, None))
            return finish if data is not None and data() is dataset else None

    def put(self, key: Hashable, dataset: Dataset, finish: RunResult) -> None:
        with self.turn:
            self.found[key] = weakref.ref(dataset), finish
            while sum(_size(kept) for _, kept in self.found.values()) > _MOST_BYTES:
                self.found.popitem(last=False)


_SHELF = _Shelf(collections.OrderedDict(), threading.Lock())


def dense_runs(
    training: Retraining,
    starts: Sequence[InitialState],
    dataset: Dataset,
    epochs: int,
    *,
    earlier: int,
    told: OnEpochs,
    checkpoints: Checkpoints | None,
) -> list[RunResult | None]:
    """As `Retraining.runs`, but what was trained before, from the same weights in the same way, is not trained again.

    Equal are network, optimiser and its numbers, runs that share a step, seed, first weights, data (the same object),
    epochs and precision: all that the result depends on.
    """
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    same = training, epochs, earlier, id(dataset), jax.default_backend(), precision
    keys = [(*same, start.seed, start.numbers, digest("", start.tensors)) for start in starts]
    found = {key: _SHELF.take(key, dataset) for key in keys}
    missing = {key: start for key, start in zip(keys, starts, strict=True) if found[key] is None}
    if missing:
        kept = checkpoints and (checkpoints.beside("dense") if checkpoints.shared else checkpoints)
        new = training.runs(list(missing.values()), dataset, epochs, earlier=earlier, told=told, checkpoints=kept)
        for key, finish in zip(missing, new, strict=True):
            found[key] = finish
            if finish is not None:
                _SHELF.put(key, dataset, finish)
    else:
        told(epochs)
    return [found[key] for key in keys]


def _size(finish: RunResult) -> int:
    return sum(np.asarray(value).nbytes for part in (finish.tensors, finish.earlier) for value in part.values())
