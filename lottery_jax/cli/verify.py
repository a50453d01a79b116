"""`lottery-jax verify`: check a ticket file with nothing but its seed and its bits."""

import math
from typing import Any, TextIO

from lottery_jax.bounds import attack, bound_output
from lottery_jax.cli.bars import bars
from lottery_jax.cli.findings import certified, show
from lottery_jax.cli.settings import Verify
from lottery_jax.errors import InputError
from lottery_jax.networks.quantise import quantised
from lottery_jax.networks.target import Target
from lottery_jax.tasks.imports import target_like
from lottery_jax.tickets.certificate import certify
from lottery_jax.tickets.ticket import Ticket, load_ticket


def run_verify(command: Verify, results: TextIO) -> int:
    """Say what the verifier finds; the exit code is its outcome."""
    ticket = load_ticket(command.ticket)
    target = None
    if command.target is not None:
        target = target_like(ticket.network, command.target, name=command.architecture, width=command.width)
    if command.quantise_target is not None:
        if target is None:
            raise InputError("--quantise-target rounds the target that a ticket is held to; give that with --target")
        target = quantised(target, command.quantise_target)
    with bars(quiet=command.quiet) as shown:
        certificate = certify(ticket, target=target, tolerance=command.tolerance, progress=shown.part("verifying"))
        found = certified(certificate, command.ticket.stat().st_size) | {"ticket": str(command.ticket)}
        wanted = target or ticket.target
        if command.box is not None and certificate.outcome == "holds" and wanted is not None:
            shown.part("bounding the output")
            found |= _outputs(ticket, wanted, *command.box, tolerance=certificate.tolerance)
    return show(found, results, as_json=command.json)


def _outputs(ticket: Ticket, target: Target, low: float, high: float, *, tolerance: float | None) -> dict[str, Any]:
    """How far outputs can be from the target's on a box, and how far they were found to be."""
    bound = bound_output(ticket, target, low=low, high=high, tolerance=tolerance)
    promised = math.inf if bound.promised is None else float(bound.promised.max())
    return {
        "box": [low, high],
        "output_bound": bound.largest,
        "output_bound_by_intervals": float(bound.interval.max()),
        "output_bound_by_lines": float(bound.linear.max()),
        "output_promised": promised if math.isfinite(promised) else None,
        "output_searched": attack(ticket, target, low=low, high=high),
    }
