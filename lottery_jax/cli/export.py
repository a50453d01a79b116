"""`lottery-jax export`: the weights that a ticket makes, for other programs; or the ticket itself, stored otherwise."""

from typing import TextIO

from lottery_jax.cli.settings import Export
from lottery_jax.errors import InputError
from lottery_jax.storage.files import check_replaceable
from lottery_jax.tasks.imports import target_like
from lottery_jax.tickets.export import export_into, export_masks, export_weights
from lottery_jax.tickets.ticket import load_ticket


def run_export(command: Export, results: TextIO) -> int:
    """Write the file and say what is in it."""
    check_replaceable(command.out, force=command.force)
    chosen = [command.into is not None, command.masks, command.coded, command.plain]
    if sum(chosen) > 1:
        raise InputError("--into, --masks, --coded and --plain each say what is written; give one of them at most")
    ticket = load_ticket(command.ticket)
    if command.coded or command.plain:
        size = ticket.save(command.out, coded=command.coded)
        written = f"the ticket, {size:,} bytes, its masks {'coded' if command.coded else 'one bit for each weight'}"
    elif command.into is not None:
        bag = ticket.network.given is None
        model = None if bag else target_like(ticket.network, command.into).network
        written = export_into(ticket, command.into, command.out, model)
    else:
        written = (export_masks if command.masks else export_weights)(ticket, command.out)
    print(f"{command.out}: {written}", file=results)
    return 0
