"""Losses and metrics: those of each kind of labels, and functions of the user."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset
from lottery_jax.errors import InputError

LossFunction = Callable[[Any, Any], Any]
"""From outputs [B, K] and labels, int32 [B] or float32 [B, K], to losses whose mean is minimised, or to a metric."""


def cross_entropy(outputs: Any, labels: Any) -> jax.Array:
    """Softmax cross-entropy [B] of the classes int32 [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def squared_error(outputs: Any, labels: Any) -> jax.Array:
    """Squared errors [B, K] of a regression."""
    return (outputs - labels) ** 2


def sigmoid_cross_entropy(outputs: Any, labels: Any) -> jax.Array:
    """Binary cross-entropies [B, K] of labels that are 0 or 1."""
    return optax.sigmoid_binary_cross_entropy(outputs, labels)


def predictions(logits: Any) -> Any:
    """The class of the largest logit [N]; -1 for rows with a NaN.

    >>> predictions(np.array([[0.0, 2.0], [np.nan, 1.0]])).tolist()
    [1, -1]
    """
    array = logits.__array_namespace__()
    return array.where(array.isnan(logits).any(1), -1, array.argmax(logits, 1))


def top1_accuracy(outputs: Any, labels: Any) -> Any:
    """The fraction of examples that are classified correctly."""
    correct = predictions(outputs) == labels
    return correct.astype(outputs.dtype).mean()


def r_squared(outputs: Any, labels: Any) -> Any:
    """The coefficient of determination, mean over the outputs; 1 or 0 for an output whose labels are all equal.

    >>> r_squared(np.array([[1.0], [2.0]]), np.array([[1.0], [3.0]])).tolist()
    0.5
    """
    array = outputs.__array_namespace__()
    left, total = ((outputs - labels) ** 2).sum(0), ((labels - labels.mean(0)) ** 2).sum(0)
    varied = total > 0
    return array.where(varied, 1 - left / array.where(varied, total, 1), array.where(left > 0, 0.0, 1.0)).mean()


def label_accuracy(outputs: Any, labels: Any) -> Any:
    """The fraction of correct labels, mean over the labels; positive outputs predict 1."""
    correct = (outputs > 0) == (labels > 0.5)
    return (correct & (outputs == outputs)).astype(outputs.dtype).mean()  # NaN is wrong


_NAMES: dict[Any, str] = {
    cross_entropy: "cross-entropy",
    squared_error: "squared error",
    sigmoid_cross_entropy: "sigmoid cross-entropy",
    top1_accuracy: "accuracy",
    r_squared: "R^2",
    label_accuracy: "label accuracy",
}


@dataclasses.dataclass(frozen=True)
class TaskLoss:
    """The loss that is trained and the metric that is measured; each defaults to that of the kind of labels.

    Labels are int32 [B] of a classification, float32 [B, K] otherwise. JAX traces both functions.

    Args:
        loss: ``loss(outputs [B, K], labels)`` -> losses whose mean is minimised, such as the losses of optax.
        metric: ``metric(outputs [N, K], labels)`` -> a number, the larger the better.

    >>> TaskLoss(lambda outputs, labels: abs(outputs - labels)).mean(np.float32([[1.0]]), np.float32([[3.0]])).item()
    2.0
    """

    loss: LossFunction | None = None
    metric: LossFunction | None = None

    def mean(self, outputs: Any, labels: Any) -> jax.Array:
        """The mean loss, a scalar."""
        assert self.loss is not None
        return jnp.mean(self.loss(outputs, labels))

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric is the accuracy of a classification."""
        return self.metric is top1_accuracy

    @property
    def metric_name(self) -> str:
        """The name of the metric in a table."""
        return _NAMES.get(self.metric) or getattr(self.metric, "__name__", "metric").replace("<lambda>", "metric")

    def resolved(self, dataset: Dataset) -> "TaskLoss":
        """The loss and metric for a data set, checked; raises `InputError`."""
        default = KIND_LOSSES[dataset.kind]
        found = TaskLoss(self.loss or default.loss, self.metric or default.metric)
        for name in ("loss", "metric"):
            function, shapes = getattr(found, name), _shapes(dataset)
            try:
                hash(function)  # programs are cached by it
                shape = jax.eval_shape(function, *shapes).shape
            except Exception as error:  # a function of the user raises anything
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"`{name}` must be a JAX function of outputs {list(shapes[0].shape)} and labels"
                    f" {list(shapes[1].shape)}, got {type(error).__name__} ({reason}). Use jax.numpy in it."
                ) from None
            if shape and (name == "metric" or shape[0] != _EXAMPLES):
                allowed = "a number" + (f", or losses of each of {_EXAMPLES} examples" if name == "loss" else "")
                raise InputError(f"`{name}` must return {allowed}, got the shape {list(shape)}. Take the mean.")
        return found

    def recorded(self, dataset: Dataset) -> dict[str, str]:
        """The names of loss and metric, with a digest of each function of the user; empty for a plain classification.

        Two functions with the same digest compute the same for the labels of the data set.
        """
        found = self.resolved(dataset)
        if found == KIND_LOSSES["classification"]:
            return {}
        return {name: self._words(getattr(found, name), dataset) for name in ("loss", "metric")}

    @staticmethod
    def _words(function: LossFunction, dataset: Dataset) -> str:
        if function in _NAMES:
            return _NAMES[function]

        def total(outputs: jax.Array, labels: jax.Array) -> jax.Array:
            return jnp.mean(function(outputs, labels))

        # Its derivative is part of the loss: a function may define its own.
        return f"{qualified_name(function)} {program_digest(jax.value_and_grad(total), *_shapes(dataset))}"


_EXAMPLES = 5  # of the shapes with which functions of the user are traced

DEFAULT_LOSS = TaskLoss()
"""The loss and the metric of the labels' kind."""

KIND_LOSSES = {
    "classification": TaskLoss(cross_entropy, top1_accuracy),
    "regression": TaskLoss(squared_error, r_squared),
    "multilabel": TaskLoss(sigmoid_cross_entropy, label_accuracy),
}
"""Loss and metric of each kind of labels."""


def _shapes(dataset: Dataset) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The shapes of outputs and labels of a few examples."""
    labels = dataset.train.labels
    own = jax.ShapeDtypeStruct((_EXAMPLES, *np.shape(labels)[1:]), labels.dtype)
    return jax.ShapeDtypeStruct((_EXAMPLES, dataset.classes), np.float32), own


def qualified_name(function: Any) -> str:
    """The module and the qualified name of a function.

    >>> qualified_name(optax.squared_error)
    'optax.losses._regression.squared_error'
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def program_digest(function: Callable, *shapes: Any) -> str:
    """A digest of what a JAX function computes for arguments of these shapes, constants included."""
    return hashlib.sha256(jax.jit(function).lower(*shapes).as_text().encode()).hexdigest()[:16]
