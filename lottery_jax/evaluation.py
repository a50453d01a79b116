"""What a network is worth on a split: accuracy with its interval, and how near it is to its target."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.data import Split
from lottery_jax.errors import InputError

Network = Callable[[jax.Array], jax.Array]  # x [B, D] -> logits [B, C]
QUANTILE_95 = 1.959963984540054  # of the standard normal, two-sided


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Fractions in [0, 1], and the largest |f - g| over examples and logits (NaN if one of them is)."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    target_accuracy: float
    agreement: float
    max_deviation: float


def evaluate(network: Network, target_network: Network, split: Split, *, batch_size: int = 500) -> Metrics:
    """Compare a network with its target on a split; memory is bounded by the batch.

    An `nnx.Module` is compiled once per architecture; another callable is called as it is, on equal batches.
    A prediction with a NaN among its logits counts as wrong, and as disagreeing.

    >>> split = Split(np.eye(2, dtype=np.float32), np.array([0, 0], np.int32))
    >>> metrics = evaluate(lambda x: x, lambda x: 2 * x, split)
    >>> metrics.accuracy, metrics.agreement, metrics.max_deviation
    (0.5, 1.0, 1.0)
    """
    logits = logits_in_batches(network, split, batch_size=batch_size)
    target_logits = logits_in_batches(target_network, split, batch_size=batch_size)
    if logits.shape != target_logits.shape:
        raise InputError(
            f"the network has {logits.shape[1]} outputs and its target {target_logits.shape[1]};"
            " evaluate it against the target that it was made for"
        )
    labels = np.asarray(split.labels)
    predicted, wanted = predictions(logits), predictions(target_logits)
    correct = int(np.count_nonzero(predicted == labels))
    low, high = wilson_interval(correct, len(labels))
    return Metrics(
        accuracy=correct / len(labels),
        accuracy_low=low,
        accuracy_high=high,
        target_accuracy=float(np.mean(wanted == labels)),
        agreement=float(np.mean((predicted == wanted) & (predicted >= 0))),
        max_deviation=largest_deviation(logits, target_logits),
    )


def accuracy(network: Network, split: Split, *, batch_size: int = 500) -> float:
    """The fraction of a split that is classified correctly; for choices, use it on the validation split."""
    predicted = predictions(logits_in_batches(network, split, batch_size=batch_size))
    return float(np.mean(predicted == np.asarray(split.labels)))


def logits_in_batches(network: Network, split: Split, *, batch_size: int = 500) -> np.ndarray:
    """Logits float32 [N, C] on the host; the last batch is padded, so that all have one shape."""
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    if len(images) == 0:
        raise InputError("the split has no examples; evaluate on at least one")
    if images.ndim != 2 or labels.shape != (len(images),):
        raise InputError(
            f"images of shape {images.shape} and labels of shape {labels.shape} do not match;"
            " give images [N, D] and labels [N]"
        )
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1")
    batch_size = min(batch_size, len(images))
    forward = network
    if isinstance(network, nnx.Module):
        graph, state = nnx.split(network)
        forward = functools.partial(_forward, graph, state)
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padded = np.pad(batch, ((0, batch_size - len(batch)), (0, 0)))
        parts.append(np.asarray(forward(jnp.asarray(padded)))[: len(batch)])
    return np.concatenate(parts)


def predictions(logits: np.ndarray) -> np.ndarray:
    """The class of the largest logit [N]; -1 where one of them is NaN.

    >>> predictions(np.array([[0.0, 2.0], [np.nan, 1.0]])).tolist()
    [1, -1]
    """
    return np.where(np.isnan(logits).any(axis=1), -1, np.argmax(logits, axis=1))


def largest_deviation(logits: np.ndarray, target_logits: np.ndarray) -> float:
    """max |f - g|, taken in float64; NaN where a logit is NaN or both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(logits.astype(np.float64) - target_logits.astype(np.float64))))


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a fraction (Wilson 1927), inside [0, 1] also at its ends.

    >>> [round(bound, 4) for bound in wilson_interval(95, 100)]
    [0.8882, 0.9785]
    """
    fraction, squared = correct / total, QUANTILE_95**2
    centre = fraction + squared / (2 * total)
    margin = QUANTILE_95 * math.sqrt(fraction * (1 - fraction) / total + squared / (4 * total**2))
    low, high = ((centre + sign * margin) / (1 + squared / total) for sign in (-1, 1))
    # At the ends the bounds are 0 and 1 by algebra; rounding must not move them past the fraction.
    return (0.0 if correct == 0 else low), (1.0 if correct == total else high)


@functools.partial(jax.jit, static_argnums=0)
def _forward(graph: nnx.GraphDef, state: nnx.State, batch: jax.Array) -> jax.Array:
    """One compiled program for all networks of one architecture: their weights are arguments."""
    return nnx.merge(graph, state)(batch)
