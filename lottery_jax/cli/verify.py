"""`lottery-jax verify`: check a ticket file with nothing but its seed and its bits."""

from typing import TextIO

from lottery_jax.cli.bars import bars
from lottery_jax.cli.findings import certified, show
from lottery_jax.cli.settings import Verify
from lottery_jax.tasks.imports import target_like
from lottery_jax.tickets.certificate import certify
from lottery_jax.tickets.ticket import load_ticket


def run_verify(command: Verify, results: TextIO) -> int:
    """Say what the verifier finds; the exit code is its outcome."""
    ticket = load_ticket(command.ticket)
    target = None
    if command.target is not None:
        target = target_like(ticket.network, command.target, name=command.architecture, width=command.width)
    with bars(quiet=command.quiet) as shown:
        certificate = certify(ticket, target=target, tolerance=command.tolerance, progress=shown.part("verifying"))
    found = certified(certificate, command.ticket.stat().st_size) | {"ticket": str(command.ticket)}
    return show(found, results, as_json=command.json)
