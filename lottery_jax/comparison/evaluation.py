"""What a network is worth on a split: accuracy with its interval, and how near it is to its target."""

import dataclasses

import jax
import numpy as np

from lottery_jax.data import Split
from lottery_jax.errors import InputError
from lottery_jax.intervals import wilson_interval
from lottery_jax.networks.running import Forward, outputs


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Fractions in [0, 1], and the largest |f - g| over examples and logits (NaN if one of them is)."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    target_accuracy: float
    agreement: float
    max_deviation: float


def evaluate(function: Forward, target_function: Forward, split: Split, *, batch_size: int = 500) -> Metrics:
    """Compare a network with its target on a split; memory is bounded by the batch.

    A prediction with a NaN among its logits counts as wrong, and as disagreeing.

    >>> split = Split(np.eye(2, dtype=np.float32), np.array([0, 0], np.int32))
    >>> metrics = evaluate(lambda x: x, lambda x: 2 * x, split)
    >>> metrics.accuracy, metrics.agreement, metrics.max_deviation
    (0.5, 1.0, 1.0)
    """
    logits, target_logits = (outputs(f, split.images, batch_size=batch_size) for f in (function, target_function))
    return compared(logits, target_logits, split.labels)


def compared(logits: np.ndarray, target_logits: np.ndarray, labels: np.ndarray | jax.Array) -> Metrics:
    """What logits [N, C] are worth beside their target's, and the labels [N]."""
    labels = np.asarray(labels)
    if logits.shape != target_logits.shape or labels.shape != logits.shape[:1]:
        raise InputError(
            f"logits of shape {logits.shape}, a target's of {target_logits.shape} and {labels.shape} labels do not"
            " match; evaluate a network against the target that it was made for, with a label for each example"
        )
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


def accuracy(function: Forward, split: Split, *, batch_size: int = 500) -> float:
    """The fraction of a split that is classified correctly; for choices, use it on the validation split."""
    predicted = predictions(outputs(function, split.images, batch_size=batch_size))
    return float(np.mean(predicted == np.asarray(split.labels)))


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
