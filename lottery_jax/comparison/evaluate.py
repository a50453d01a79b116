"""What a network is worth on a split: accuracy with its interval, and how near it is to its target.

Measuring a ticket's file: verified against the task's target, rebuilt, and run on the test images.

The network that is evaluated is the masked random network itself. Where that would take longer than a minute for all
test images, its collapsed form (the target's network with the weights that the ticket makes) is evaluated on all of
them, the random network on as many as a minute allows, and both are compared on those; what was done is said.
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


MOST_SECONDS = 60.0

MOST_BOUNDED, MOST_BETWEEN, MOST_LAYERS = 1_000_000, 8192, 8
"""Target weights, numbers between two layers, and layers, up to which a bound of the output takes less than 5 seconds:
3.5 s for LeNet-5 on 28 x 28 pixels, 0.9 s for LeNet-300-100 on two cores, but 13 s for ResNet-20 on 8 x 8."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A ticket file and what the verifier and the test set say of it.

    Attributes:
        ticket: The ticket.
        certificate: The result of the verifier.
        metrics: The results on the test set.
        ticket_bytes: Size of the file.
        evaluated: Which network was run on which images, in words.
        weights: The ticket's effective weights, if the verifier reconstructed them.
    """

    ticket: Ticket
    certificate: Certificate
    metrics: Metrics
    ticket_bytes: int
    evaluated: str
    weights: Mapping[str, np.ndarray] | None


def measure(path: Path, task: Task, tolerance: float | None = None, *, stages: Stages = no_stages) -> Measured:
    """Read a ticket file, verify it, rebuild its network and evaluate it on the test set.

    tolerance: asked of each weight of a ticket that promises one, if not what it promises.
    """
    progress = stages("verifying")
    ticket = load_ticket(path)
    promised = ticket.header.tolerance is not None
    asked = tolerance if promised and ticket.header.kept_budget is None else None
    real = ticket.forward()  # held, so that the verifier runs the same arrays
    target = task.target if promised else None
    verification = verify_with_weights(ticket, target=target, tolerance=asked, progress=progress)
    stages("running the test images")
    test = task.dataset.test
    found, evaluated = ticket_outputs(ticket, np.asarray(test.images), weights=verification.weights)
    del real
    metrics = compared(found, task.test_outputs, test.labels)
    size = path.stat().st_size
    return Measured(ticket, verification.certificate, metrics, size, evaluated, verification.weights)


def output_bound(measured: Measured, task: Task) -> float | None:
    """How far a ticket's outputs may be from the target's on any pixels.

    None for a ticket that does not hold, for data that are not all in [0, 1], and where it takes long or there is none.
    """
    ticket, images = measured.ticket, task.dataset.test.images
    network = ticket.network
    small = (
        network.input_spec is not None
        and network.target.largest_activation <= MOST_BETWEEN
        and len(network.sources) <= MOST_LAYERS
    )
    if not (measured.certificate.holds and small and task.target.weights <= MOST_BOUNDED):
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
    most_seconds: float = MOST_SECONDS,
    weights: Mapping[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, str]:
    """Outputs [N, C] of a ticket's network for images [N, ...], and in words what was run."""
    real, count = ticket.forward(), len(images)
    size = batch_size(ticket.network)

    def run(first: int, stop: int) -> np.ndarray:
        return outputs(real, images[first:stop], batch_size=size)

    parts = [run(0, size)]  # compiles
    start = time.perf_counter()
    if count > size:
        parts.append(run(size, 2 * size))
    affordable = int(most_seconds / (time.perf_counter() - start)) * size
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
    """A source network in words.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> from lottery_jax.mask_learning.learner_sources import redundant_source
    >>> describe(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10)))
    '2 gadget leaves: fc1 [500, 784, 5], fc2 [10, 500, 5]'
    """
    kinds = sorted({source.kind for source in network.sources.values()})
    shapes = [
        f"{path} {list(network.random_tensors[f'{path}.weight' if path else 'weight'].shape)}"
        for path, source in network.sources.items()
        if "weight" in source.layer.tensors()
    ]
    more = f" and {len(shapes) - 8} more" if len(shapes) > 8 else ""
    return f"{len(network.sources)} {' and '.join(kinds)} leaves: {', '.join(shapes[:8])}{more}"
