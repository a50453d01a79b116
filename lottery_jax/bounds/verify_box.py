"""``verify`` with bounds of the outputs: effective weights are reconstructed once for all of it."""

import dataclasses
import os

from lottery_jax.bounds.attack import attack
from lottery_jax.bounds.output import Box, OutputBound, bound_output
from lottery_jax.networks.target import Target
from lottery_jax.progress import Stages, no_stages
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify_with_weights


@dataclasses.dataclass(frozen=True, eq=False)
class BoxVerification:
    """A certificate, and bounds of the outputs on a box if the ticket holds.

    Attributes:
        certificate: As from ``verify``.
        output_bound: Upper bounds of |g - f|, or None.
        largest_found: The largest |g - f| that ``attack`` found, a lower bound, or None.
    """

    certificate: Certificate
    output_bound: OutputBound | None = None
    largest_found: float | None = None


def verify_box(
    ticket: Ticket | str | os.PathLike[str],
    *,
    target: Target | str | os.PathLike[str] | None = None,
    tolerance: float | None = None,
    box: Box = (0.0, 1.0),
    stages: Stages = no_stages,
) -> BoxVerification:
    """Verify a ticket, then bound the difference between its outputs and the target's on a box of inputs.

    Args:
        ticket: A ticket or its file.
        target: As in ``verify``.
        tolerance: As in ``verify``.
        box: The smallest and the largest input.
        stages: Called with the name of each part.

    Raises:
        TicketError: The file is not a valid ticket.
        InputError: An argument is wrong, or the outputs of this network cannot be bounded.

    Example:
        >>> import numpy as np
        >>> from lottery_jax.approximation import approximate
        >>> from lottery_jax.importers.mlp_weights import mlp_target
        >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
        >>> found = verify_box(approximate(target, seed=0, candidates=8, tolerance=0.1), target=target)
        >>> found.largest_found <= found.output_bound.largest
        True
    """
    found = verify_with_weights(ticket, target=target, tolerance=tolerance, progress=stages("verifying"))
    certificate = found.certificate
    if not certificate.holds or found.target is None:
        return BoxVerification(certificate)
    stages("bounding the output")
    bound = bound_output(found.ticket, found.target, box=box, tolerance=certificate.tolerance, weights=found.weights)
    largest_found = attack(found.ticket, found.target, box=box, weights=found.weights)
    return BoxVerification(certificate, bound, largest_found)
