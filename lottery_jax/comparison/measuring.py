"""Measuring a ticket's file: verified against the task's target, rebuilt, and run on the test images.

The network that is evaluated is the masked random network itself. Where that would take longer than a minute for all
test images, its collapsed form (the target's network with the weights that the ticket makes) is evaluated on all of
them, the random network on as many as a minute allows, and both are compared on those; what was done is said.
"""

import dataclasses
import math
import time
from pathlib import Path

import numpy as np

from lottery_jax.bounds import bound_output
from lottery_jax.comparison.evaluation import Metrics, compared
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.running import batch_size, forward, outputs
from lottery_jax.progress import Stages, unnamed
from lottery_jax.tasks import Task
from lottery_jax.tickets.certificate import Certificate, certify
from lottery_jax.tickets.collapse import collapsed
from lottery_jax.tickets.effective import effective_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket

MOST_SECONDS = 60.0
MOST_BOUNDED, MOST_BETWEEN, MOST_LAYERS = 1_000_000, 8192, 8
"""Target weights, numbers between two layers, and layers, up to which a bound of the output takes less than 5 seconds:
3.5 s for LeNet-5 on 28 x 28 pixels, 0.9 s for LeNet-300-100 on two cores, but 13 s for ResNet-20 on 8 x 8."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A ticket file and what the verifier and the test set say of it; `evaluated`: which network was run on what."""

    ticket: Ticket
    certificate: Certificate
    metrics: Metrics
    ticket_bytes: int
    evaluated: str


def measure(path: Path, task: Task, tolerance: float | None = None, *, stages: Stages = unnamed) -> Measured:
    """Read a ticket file, verify it, rebuild its network and evaluate it on the test set.

    tolerance: asked of each weight of a ticket that promises one, if not what it promises.
    """
    progress = stages("verifying")
    ticket = load_ticket(path)
    promised = ticket.header.tolerance is not None
    asked = tolerance if promised and ticket.header.kept_budget is None else None
    real = ticket.forward()  # held, so that the verifier runs the same arrays
    certificate = certify(ticket, target=task.target if promised else None, tolerance=asked, progress=progress)
    stages("running the test images")
    test = task.dataset.test
    found, evaluated = ticket_outputs(ticket, np.asarray(test.images))
    del real
    metrics = compared(found, task.test_outputs, test.labels)
    return Measured(ticket, certificate, metrics, path.stat().st_size, evaluated)


def output_bound(measured: Measured, task: Task) -> float | None:
    """How far a ticket's outputs may be from the target's on any pixels.

    None for a ticket that does not hold, for data that are not all in [0, 1], and where it takes long or there is none.
    """
    ticket, images = measured.ticket, task.dataset.test.images
    network = ticket.network
    small = network.given is not None and network.target.widest <= MOST_BETWEEN and len(network.sources) <= MOST_LAYERS
    if not (measured.certificate.holds and small and task.target.weights <= MOST_BOUNDED):
        return None
    try:
        bound = bound_output(ticket, task.target).largest if images.min() >= 0 and images.max() <= 1 else math.inf
    except InputError:  # attention, copies of neurons, ...
        return None
    return bound if math.isfinite(bound) else None


def ticket_outputs(ticket: Ticket, images: np.ndarray, most_seconds: float = MOST_SECONDS) -> tuple[np.ndarray, str]:
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
    which = "trained" if ticket.network.trained else "random"
    if shown == count:
        return found, f"the {which} network on all {count:,} images"
    network, weights = collapsed(ticket, effective_weights(ticket))
    fast = forward(network, {name: np.asarray(value, np.float32) for name, value in weights.items()})
    whole = outputs(fast, images, batch_size=batch_size(network))
    difference = float(np.abs(found - whole[:shown]).max())
    return whole, (
        f"its collapsed form on all {count:,} images, the {which} network on {shown:,} of them; their outputs differ by"
        f" at most {difference:.2g}"
    )


def describe(network: Network) -> str:
    """A source network in words.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.zoo.registry import architecture
    >>> from lottery_jax.learned.sources import redundant_source
    >>> describe(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10)))
    '2 gadget leaves: fc1 [500, 784, 5], fc2 [10, 500, 5]'
    """
    kinds = sorted({source.kind for source in network.sources.values()})
    shapes = [
        f"{path} {list(network.drawn[f'{path}.weight' if path else 'weight'].shape)}"
        for path, source in network.sources.items()
        if "weight" in source.of.tensors()
    ]
    more = f" and {len(shapes) - 8} more" if len(shapes) > 8 else ""
    return f"{len(network.sources)} {' and '.join(kinds)} leaves: {', '.join(shapes[:8])}{more}"
