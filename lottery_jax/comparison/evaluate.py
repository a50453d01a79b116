"""Evaluation on a split: accuracy with its interval or another metric, the difference from the target, and the
measurement of a ticket file.

The masked random network itself is evaluated. If all test images would take longer than a minute, its collapsed form
(the target's network with the weights of the ticket) is evaluated on all of them, the random network on as many as a
minute allows, and both are compared on those.
"""

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from lottery_jax.bounds import bound_output
from lottery_jax.data import Split
from lottery_jax.errors import InputError
from lottery_jax.networks.forward import Forward, batch_size, forward, outputs
from lottery_jax.networks.network import Network
from lottery_jax.progress import Stages, no_stages
from lottery_jax.statistics import wilson_interval
from lottery_jax.tasks import Task
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.reconstruct import collapse, effective_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify_with_weights
from lottery_jax.training.losses import KIND_LOSSES, TaskLoss, predictions


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Fractions in [0, 1], or another metric than the accuracy, and the differences |f - g| over examples and outputs.

    Differences are NaN if an output is NaN.
    """

    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    target_accuracy: float | None
    agreement: float | None
    max_deviation: float
    metric: str | None = None
    """Name of the metric that replaces the accuracy."""
    metric_value: float | None = None
    target_metric_value: float | None = None
    rms_deviation: float | None = None
    """Root mean square of |f - g|, with another metric."""


def evaluate(
    function: Forward,
    target_function: Forward,
    split: Split,
    *,
    loss: TaskLoss = KIND_LOSSES["classification"],
    batch_size: int = 500,
) -> Metrics:
    """Compare a network, a function from images to outputs [N, C], with its target on a split.

    Memory is bounded by the batch. A prediction with a NaN logit counts as wrong and as disagreeing.

    >>> split = Split(np.eye(2, dtype=np.float32), np.array([0, 0], np.int32))
    >>> metrics = evaluate(lambda x: x, lambda x: 2 * x, split)
    >>> metrics.accuracy, metrics.agreement, metrics.max_deviation
    (0.5, 1.0, 1.0)
    """
    found, of_target = (outputs(f, split.images, batch_size=batch_size) for f in (function, target_function))
    return compare_outputs(found, of_target, split.labels, loss)


def compare_outputs(
    found: np.ndarray, of_target: np.ndarray, labels: np.ndarray | jax.Array, loss: TaskLoss
) -> Metrics:
    """Metrics of outputs [N, C] against the outputs of the target [N, C] and labels [N], or [N, C] of numbers."""
    labels = np.asarray(labels)
    if found.shape != of_target.shape or labels.shape not in (found.shape[:1], found.shape):
        raise InputError(
            f"outputs, target outputs and labels must have shapes [N, C], [N, C] and [N] or [N, C], got {found.shape},"
            f" {of_target.shape} and {labels.shape}. Evaluate a network against its own target, with all labels."
        )
    with np.errstate(invalid="ignore"):  # NaN for NaN outputs and for two equal infinities
        differences = np.abs(found.astype(np.float64) - of_target.astype(np.float64))
    deviation = float(np.max(differences))
    if not loss.is_accuracy:
        value, of = (metric_value(each, labels, loss) for each in (found, of_target))
        rms = float(np.sqrt(np.mean(differences**2)))
        return Metrics(None, None, None, None, None, deviation, loss.metric_name, value, of, rms)
    predicted, target_predicted = predictions(found), predictions(of_target)
    correct = int(np.count_nonzero(predicted == labels))
    low, high = wilson_interval(correct, len(labels))
    return Metrics(
        accuracy=correct / len(labels),
        accuracy_low=low,
        accuracy_high=high,
        target_accuracy=float(np.mean(target_predicted == labels)),
        agreement=float(np.mean((predicted == target_predicted) & (predicted >= 0))),
        max_deviation=deviation,
    )


def metric_value(found: np.ndarray, labels: np.ndarray | jax.Array, loss: TaskLoss) -> float:
    """The metric of outputs [N, C], in float64 if its function is of NumPy's arrays."""
    labels = np.asarray(labels)
    assert loss.metric is not None
    with np.errstate(invalid="ignore", over="ignore"):
        exact = labels.astype(np.float64) if labels.dtype.kind == "f" else labels
        return float(loss.metric(found.astype(np.float64), exact))


def accuracy(
    function: Forward,
    split: Split,
    *,
    loss: TaskLoss = KIND_LOSSES["classification"],
    batch_size: int = 500,
) -> float:
    """The accuracy, or the metric of a loss, on a split; use the validation split to select anything."""
    return metric_value(outputs(function, split.images, batch_size=batch_size), split.labels, loss)


_MAX_SECONDS = 60.0

_MAX_BOUNDED_WEIGHTS, _MAX_ACTIVATIONS, _MAX_LAYERS = 1_000_000, 8192, 8
"""Target weights, activations between two layers, and layers, up to which an output bound takes less than 5 s.

On two cores it takes 3.5 s for LeNet-5 on 28 x 28 pixels, 0.9 s for LeNet-300-100, and 13 s for ResNet-20 on 8 x 8."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measurement of a ticket file, with metrics on the test split."""

    ticket: Ticket
    certificate: Certificate
    metrics: Metrics
    ticket_bytes: int
    evaluated: str
    """The evaluated network and its number of images."""
    weights: Mapping[str, np.ndarray] | None
    """The reconstructed weights, float64 by tensor; None for a model without a graph."""


def measure(
    path: Path, task: Task, tolerance: float | None = None, *, limit: float = math.inf, stages: Stages = no_stages
) -> Measured:
    """Read a ticket file, verify it, rebuild its network and evaluate it on the test split.

    ``tolerance`` is the largest error of a weight. Default: the tolerance of the ticket. ``limit`` is that of
    ``load_ticket``. Default: none, because the file was written by this program.
    """
    progress = stages("verifying")
    ticket = load_ticket(path, limit=limit)
    guaranteed = ticket.header.tolerance is not None
    checked = tolerance if guaranteed and ticket.header.kept_budget is None else None
    network = ticket.forward()  # keeps its arrays alive, so that the verifier runs the same ones
    target = task.target if guaranteed else None
    verification = verify_with_weights(ticket, target=target, tolerance=checked, progress=progress)
    stages("running the test images")
    test = task.dataset.test
    found, evaluated = ticket_outputs(ticket, np.asarray(test.images), weights=verification.weights)
    del network
    metrics = compare_outputs(found, task.test_outputs, test.labels, task.loss.resolved(task.dataset))
    size = path.stat().st_size
    return Measured(ticket, verification.certificate, metrics, size, evaluated, verification.weights)


def output_bound(measured: Measured, task: Task) -> float | None:
    """Bound of |f - g| on all inputs in [0, 1].

    None if the ticket is broken or promises nothing, the data are not in [0, 1], or the bound takes long or does not
    exist.
    """
    ticket, images = measured.ticket, task.dataset.test.images
    network = ticket.network
    certificate = measured.certificate
    if certificate.outcome == "broken" or certificate.worst_residual is None or network.input_spec is None:
        return None
    if task.target.weights > _MAX_BOUNDED_WEIGHTS:
        return None
    if network.target.largest_activation > _MAX_ACTIVATIONS or len(network.sources) > _MAX_LAYERS:
        return None
    try:
        in_box = images.min() >= 0 and images.max() <= 1
        bound = bound_output(ticket, task.target, weights=measured.weights).largest if in_box else math.inf
    except InputError:  # attention, copies of neurons, ...
        return None
    return bound if math.isfinite(bound) else None


def ticket_outputs(
    ticket: Ticket,
    images: np.ndarray,
    max_seconds: float = _MAX_SECONDS,
    weights: Mapping[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, str]:
    """Outputs [N, C] of the network of a ticket for images [N, ...], and a description of the evaluated network."""
    random, count = ticket.forward(), len(images)
    size = batch_size(ticket.network)

    def run(first: int, stop: int) -> np.ndarray:
        return outputs(random, images[first:stop], batch_size=size)

    parts = [run(0, size)]  # compiles
    start = time.perf_counter()
    if count > size:
        parts.append(run(size, 2 * size))
    affordable = int(max_seconds / (time.perf_counter() - start)) * size
    shown = min(max(affordable, 2 * size), count)
    if shown > 2 * size:
        parts.append(run(2 * size, shown))
    found = np.concatenate(parts)
    which = "trained" if ticket.network.trained_tensors else "random"
    if shown == count:
        return found, f"the {which} network on all {count:,} images"
    network, tensors = collapse(ticket, effective_weights(ticket) if weights is None else weights)
    fast = forward(network, {name: np.asarray(value, np.float32) for name, value in tensors.items()})
    whole = outputs(fast, images, batch_size=batch_size(network))
    difference = float(np.abs(found - whole[:shown]).max())
    return whole, (
        f"its collapsed form on all {count:,} images, the {which} network on {shown:,} of them; their outputs differ by"
        f" at most {difference:.2g}"
    )


def describe(network: Network) -> str:
    """Description of a source network: kinds and shapes of its random layers.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> from lottery_jax.mask_learning.learner_sources import redundant_source
    >>> describe(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10)))
    '2 gadget leaves: fc1 [500, 784, 5], fc2 [10, 500, 5]'
    """
    kinds, shapes = set(), []
    for path, source in network.sources.items():
        kinds.add(source.kind)
        if "weight" in source.layer.tensors():
            shape = network.random_tensors[f"{path}.weight" if path else "weight"].shape
            shapes.append(f"{path} {list(shape)}")
    more = f" and {len(shapes) - 8} more" if len(shapes) > 8 else ""
    return f"{len(network.sources)} {' and '.join(sorted(kinds))} leaves: {', '.join(shapes[:8])}{more}"
