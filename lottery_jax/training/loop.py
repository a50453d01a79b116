"""The training loop: a pure function of key and hyperparameters, so that both can be a vmap axis."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Split
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.progress import Progress, no_progress
from lottery_jax.training.checkpoints import Checkpoint, ExtraArrays, Snapshot
from lottery_jax.training.losses import KIND_LOSSES, TaskLoss

Parameters = Any  # a pytree of arrays: weights by name, or the scores of a mask

Updates = dict[str, jax.Array]  # parameters that a step sets without a gradient (running means), by name

Loss = Callable[[Parameters, jax.Array, jax.Array, jax.Array | None], tuple[jax.Array, Updates]]

History = dict[str, Any]

_EXAMPLES = 500  # per batch when a split is measured


class State(NamedTuple):
    """Everything that changes while training; `epoch` counts the finished ones."""

    parameters: Parameters
    optimizer: optax.OptState
    key: jax.Array
    epoch: jax.Array


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Whole batches in one pass; the few examples left over differ from epoch to epoch.

    >>> steps_per_epoch(1257, 64)
    19
    """
    if not 1 <= batch_size <= examples:
        raise InputError(f"a batch size of {batch_size} does not fit {examples} examples; choose 1 to {examples}")
    return examples // batch_size


def begin(parameters: Parameters, *, key: jax.Array, optimizer: optax.GradientTransformation) -> State:
    """The state before the first epoch."""
    return State(parameters, optimizer.init(parameters), key, jnp.zeros((), jnp.int32))


def advance(
    loss: Loss,
    state: State,
    split: Split,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    measure: Callable[[Parameters], History] | None = None,
    project: Callable[[Parameters, Parameters], Parameters] | None = None,
    on_epoch_end: Callable[[Parameters, jax.Array], Parameters] | None = None,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> tuple[State, History]:
    """Train for `epochs` more epochs.

    The order of the examples depends on the key and the epoch alone, so that a training in several calls equals one in
    a single call.

    Args:
        loss: `loss(parameters, images [B, ...], labels [B], key)` -> scalar, and parameters that the step sets by name.
        state: The state so far.
        split: Training examples.
        optimizer: Any optax transformation.
        epochs: Epochs of this call.
        batch_size: Examples of a step.
        measure: From the parameters after an epoch to further columns of the history.
        project: From the parameters before a step and after the optimiser to those after the step.
        on_epoch_end: From the parameters after an epoch and its number, counted from 0, to those of the next one.
        augment: From the images [B, H, W, C] of a step and a key to augmented images.

    Returns:
        The new state, and the history: the mean `loss` of each epoch [epochs], and the columns of `measure`.
    """
    images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
    steps = steps_per_epoch(images.shape[0], batch_size)
    _check_epochs(epochs)
    descend = jax.value_and_grad(loss, has_aux=True)

    def step(carry, batch):
        parameters, optimizer_state = carry
        rows, key = batch
        batch_images = images[rows] if augment is None else augment(images[rows], jax.random.fold_in(key, 0))
        (value, direct), gradient = descend(parameters, batch_images, labels[rows], key)
        with jax.numpy_dtype_promotion("standard"):  # optax counts in int32 and divides in float32
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, parameters)
            new = optax.apply_updates(parameters, updates)
        parameters = new if project is None else project(parameters, new)
        if direct:
            parameters = {**parameters, **direct}  # type: ignore[dict-item]
        return (parameters, optimizer_state), value

    def one_epoch(state: State, _):
        order_key, loss_key = jax.random.split(jax.random.fold_in(state.key, state.epoch))
        rows = jax.random.permutation(order_key, images.shape[0])[: steps * batch_size]
        batches = (rows.reshape(steps, batch_size), jax.random.split(loss_key, steps))
        (parameters, optimizer_state), losses = jax.lax.scan(step, (state.parameters, state.optimizer), batches)
        if on_epoch_end is not None:
            parameters = on_epoch_end(parameters, state.epoch)
        history = {"loss": jnp.mean(losses)}
        if measure is not None:
            history |= measure(parameters)
        return State(parameters, optimizer_state, state.key, state.epoch + 1), history

    return jax.lax.scan(one_epoch, state, length=epochs)


def network_loss(network: Network, task_loss: TaskLoss) -> Loss:
    """The mean loss of a network's outputs, as a loss of its tensors for `advance`."""

    def loss(
        tensors: Parameters, images: jax.Array, labels: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, Updates]:
        outputs, updates = network.train(tensors, images)
        return task_loss.mean(outputs, labels), updates

    return loss


def on_split(
    outputs: Callable[[jax.Array], jax.Array],
    split: Split,
    task_loss: TaskLoss = KIND_LOSSES["classification"],
    *,
    prefix: str = "",
) -> History:
    """The mean `loss`, and the `accuracy` or other `metric`, of outputs [B, K] for the images [B, ...] of a split.

    The prefix is that of the names.

    >>> split = Split(np.eye(3, dtype=np.float32), np.array([0, 1, 1], np.int32))
    >>> {name: round(float(value), 3) for name, value in on_split(lambda images: images, split).items()}
    {'loss': 0.885, 'accuracy': 0.667}
    """
    images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
    found = jax.lax.map(lambda image: outputs(image[None])[0], images, batch_size=_EXAMPLES)
    assert task_loss.metric is not None
    name = "accuracy" if task_loss.is_accuracy else "metric"
    metric = jnp.asarray(task_loss.metric(found, labels), jnp.float32)
    return {f"{prefix}loss": task_loss.mean(found, labels), f"{prefix}{name}": metric}


def drive(
    advance_by: Callable[[State, int], tuple[State, History]],
    state: State,
    *,
    epochs: int,
    progress: Progress = no_progress,
    epochs_per_call: int | None = None,
    checkpoint: Checkpoint | None = None,
    extra: ExtraArrays | None = None,
) -> tuple[State, History]:
    """Call a compiled `advance_by(state, epochs)` until all epochs are done.

    All calls have the same number of epochs, so that one program serves them all.

    Args:
        advance_by: From a state and a number of epochs to a new state and the history of these epochs.
        state: The first state; it may have a leading vmap axis.
        epochs: Epochs in all.
        progress: Called with (epochs done, epochs) after each call.
        epochs_per_call: Default: about a twentieth of all epochs, or all if there is no progress and no checkpoint.
        checkpoint: File of an unfinished training, which is resumed and updated.
        extra: Arrays that `advance_by` changes in place, saved in the checkpoint.

    Returns:
        The last state, and the histories of all calls, joined along their last axis.
    """
    _check_epochs(epochs)
    if epochs_per_call is None:
        whole = progress is no_progress and checkpoint is None
        epochs_per_call = epochs if whole else max(1, epochs // 20)
        while epochs % epochs_per_call:  # the largest divisor that leaves at least twenty calls, or one epoch
            epochs_per_call -= 1
    extra = {} if extra is None else extra
    snapshot = None if checkpoint is None else checkpoint.load(state)
    before, histories = 0, []
    if snapshot is not None:
        state, histories = snapshot.state, [snapshot.history]
        extra.update(snapshot.extra)
        before = jax.tree.leaves(snapshot.history)[0].shape[-1]
        progress(before, epochs)
    for done in range(before + epochs_per_call, epochs + 1, epochs_per_call):
        state, history = advance_by(state, epochs_per_call)
        histories.append(history)
        if checkpoint is not None:
            checkpoint.save(Snapshot(state, _joined(histories), extra), now=done == epochs)
        progress(done, epochs)
    return state, _joined(histories)


def _joined(histories: list[History]) -> History:
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=-1), *histories)


def check_finite(parameters: Parameters, what: str) -> None:
    """Refuse the parameters of a training that diverged; raises `InputError`.

    >>> check_finite({"kernel": np.array([1.0, np.nan])}, "the target")
    Traceback (most recent call last):
    lottery_jax.errors.InputError: training of the target diverged: 1 of 2 parameters ...
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(parameters)]
    bad = sum(int(np.count_nonzero(~np.isfinite(leaf))) for leaf in leaves)
    total = sum(leaf.size for leaf in leaves)
    if bad:
        raise InputError(
            f"training of {what} diverged: {bad} of {total} parameters are not finite; lower the learning rate"
        )


def _check_epochs(epochs: int) -> None:
    """Refuse a training of no epochs."""
    if epochs < 1:
        raise InputError(f"the number of epochs is {epochs}; it must be at least 1")
