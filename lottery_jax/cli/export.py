"""`lottery-jax export`: the weights that a ticket makes, for other programs."""

from typing import TextIO

from lottery_jax.cli.settings import Export
from lottery_jax.storage.files import check_replaceable
from lottery_jax.tasks.imports import target_like
from lottery_jax.tickets.export import export_into, export_masks, export_weights
from lottery_jax.tickets.ticket import load_ticket


def run_export(command: Export, results: TextIO) -> int:
    """Write the file and say what is in it."""
    check_replaceable(command.out, force=command.force)
    ticket = load_ticket(command.ticket)
    if command.into is not None:
        bag = ticket.network.given is None
        model = None if bag else target_like(ticket.network, command.into).network
        written = export_into(ticket, command.into, command.out, model)
    else:
        written = (export_masks if command.masks else export_weights)(ticket, command.out)
    print(f"{command.out}: {written}", file=results)
    return 0
