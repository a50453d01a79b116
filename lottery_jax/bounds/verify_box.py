"""``verify`` with bounds of the outputs on a box: an upper bound, and the largest difference that an attack finds."""

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.bounds.output import MAX_TIGHTENED_UNITS, OutputBound, bound_output
from lottery_jax.errors import InputError
from lottery_jax.networks.forward import batch_size
from lottery_jax.networks.network import Network
from lottery_jax.networks.rewrites import match_rewrites
from lottery_jax.networks.target import Target
from lottery_jax.progress import Stages, no_stages
from lottery_jax.tickets.box_bounds import Box
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.given_target import FileName, TargetFile
from lottery_jax.tickets.reconstruct import collapse, effective_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify_with_weights
from lottery_jax.tickets.work_limit import Work, WorkLimit

_STARTS, _STEPS = 64, 100


@dataclasses.dataclass(frozen=True, eq=False)
class BoxVerification:
    """A certificate and, if residuals are as promised, upper bounds of |g - f| and the largest that ``attack`` found.

    `not_bounded` says why outputs have no bound.
    """

    certificate: Certificate
    output_bound: OutputBound | None = None
    largest_found: float | None = None
    not_bounded: str | None = None


def verify_box(
    ticket: Ticket | FileName,
    *,
    target: Target | TargetFile | FileName | None = None,
    expect: Network | FileName | None = None,
    tolerance: float | None = None,
    box: Box = (0.0, 1.0),
    limit: float = 1.0,
    stages: Stages = no_stages,
) -> BoxVerification:
    """Verify a ticket, then bound the difference between its outputs and the target's on a box of inputs.

    Args:
        box: The smallest and the largest input of the promise; the other arguments are those of ``verify``.
        limit: Also limits the work of the bounds and of the search.
        stages: Called with the name of each part.

    Raises:
        TicketError: The file is not a valid ticket.
        InputError: An argument is wrong.

    >>> import numpy as np
    >>> from lottery_jax.approximation import approximate
    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
    >>> found = verify_box(approximate(target, seed=0, candidates=8, tolerance=0.1), target=target)
    >>> found.largest_found <= found.output_bound.largest
    True
    """
    ticket = ticket if isinstance(ticket, Ticket) else load_ticket(ticket, limit=limit)
    WorkLimit("--box", ticket.file_bytes, limit).check(_work(ticket.network.target))
    options = {"target": target, "expect": expect, "tolerance": tolerance, "box": box}
    found = verify_with_weights(ticket, **options, progress=stages("verifying"))
    certificate = found.certificate
    if certificate.outcome == "broken" or certificate.worst_residual is None or found.target is None:
        return BoxVerification(certificate)
    stages("bounding the output")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            bound = bound_output(
                found.ticket, found.target, box=box, tolerance=certificate.tolerance, weights=found.weights
            )
    except InputError as error:  # attention, copies of neurons, ...
        return BoxVerification(certificate, not_bounded=str(error))
    if not math.isfinite(bound.largest):
        return BoxVerification(certificate, not_bounded="they may overflow float64 on this box")
    largest_found = attack(found.ticket, found.target, box=box, weights=found.weights)
    return BoxVerification(certificate, bound, largest_found)


def _work(target: Network) -> Work:
    """The work of the linear bounds, which go back through the network for each output, and of the search."""
    rows = 0 if target.output_spec is None else math.prod(target.output_spec.shape)
    for path, node in target.weight_nodes.items():
        if (given := target.input_spec_of(path)) is not None:
            units = math.prod(node.output_spec(given).shape)
            rows += units if units <= MAX_TIGHTENED_UNITS else 0
    searches = 2 * 3 * _STARTS * _STEPS  # both networks, and three passes for a gradient
    return Work(target.cost.operations * (8 * rows + searches), 0)


def attack(
    ticket: Ticket,
    target: Target,
    *,
    box: Box = (0.0, 1.0),
    starts: int = _STARTS,
    steps: int = _STEPS,
    seed: int = 0,
    images: np.ndarray | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> float:
    """Search a box of inputs for the largest |g - f| of any output, in float64: a lower bound of the supremum.

    Signed gradient steps of decreasing size (Madry et al. 2018, arXiv 1706.06083).

    Args:
        box: The smallest and the largest input.
        starts: Number of random starts; half of them are corners of the box.
        images: More starts [N, ...], clipped to the box; at most `starts` of them are used.
        weights: ``effective_weights(ticket)`` if they are known already.

    Raises:
        InputError: The ticket has no graph, or `starts` or `steps` is less than 1.
    """
    network = ticket.network
    if network.input_spec is None or starts < 1 or steps < 1:
        raise InputError(f"starts and steps must be at least 1, got {starts} and {steps}; give a ticket of a network")
    collapsed, tensors = collapse(ticket, effective_weights(ticket) if weights is None else weights)
    target = match_rewrites(target, network)
    (low, high), shape, random = box, network.input_spec.shape, np.random.default_rng(seed)
    corners = (np.arange(starts) % 2 == 0).reshape(-1, *[1] * len(shape))
    x = np.where(corners, random.choice([low, high], (starts, *shape)), random.uniform(low, high, (starts, *shape)))
    if images is not None:
        x = np.concatenate([x, np.clip(np.asarray(images, np.float64)[:starts], low, high)])
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        own = {name: jnp.asarray(value, jnp.float64) for name, value in tensors.items()}
        other = {name: jnp.asarray(target.array(name), jnp.float64) for name in target.network.tensors}
        ends, size = (jnp.float64(low), jnp.float64(high)), batch_size(target.network)
        parts = [jnp.asarray(x[first : first + size]) for first in range(0, len(x), size)]
        return max(float(_ascend(collapsed, target.network, own, other, part, *ends, steps)) for part in parts)


@functools.partial(jax.jit, static_argnums=(0, 1, 7))
def _ascend(
    collapsed: Network,
    target: Network,
    own: dict,
    other: dict,
    x: jax.Array,
    low: jax.Array,
    high: jax.Array,
    steps: int,
) -> jax.Array:
    """The largest difference on all paths."""

    def difference(x: jax.Array) -> jax.Array:
        outputs = collapsed.module(own)(x) - target.module(other)(x)  # type: ignore[operator]
        return jnp.abs(outputs).reshape(len(x), -1).max(1)

    def step(carry: tuple[jax.Array, jax.Array], index: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, best = carry
        gradient = jax.grad(lambda x: difference(x).sum())(x)
        size = (high - low) / 2 * (1 - index / steps)
        x = jnp.clip(x + size * jnp.sign(gradient), low, high)
        return (x, jnp.maximum(best, difference(x).max())), None

    (_, best), _ = jax.lax.scan(step, (x, difference(x).max()), jnp.arange(steps, dtype=x.dtype))
    return best
