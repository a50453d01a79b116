"""`lottery-jax export`: the weights that a ticket makes, or the ticket itself in another encoding."""

from typing import TextIO

from lottery_jax.cli.settings import Export
from lottery_jax.errors import InputError
from lottery_jax.importers.state_dict import target_like
from lottery_jax.io.files import check_overwrite
from lottery_jax.tickets.export import export_into, export_masks, export_weights
from lottery_jax.tickets.ticket import load_ticket


def run_export(command: Export, results: TextIO) -> int:
    """Write the file and print its contents in words."""
    check_overwrite(command.out, force=command.force)
    if sum([command.into is not None, command.masks, command.coded, command.plain]) > 1:
        raise InputError("--into, --masks, --coded and --plain exclude each other; give at most one of them")
    ticket = load_ticket(command.ticket)
    if command.coded or command.plain:
        size = ticket.save(command.out, coded=command.coded)
        written = f"the ticket, {size:,} bytes, its masks {'coded' if command.coded else 'one bit for each weight'}"
    elif command.into is not None:
        is_model = ticket.network.input_spec is None
        model = None if is_model else target_like(ticket.network, command.into).network
        written = export_into(ticket, command.into, command.out, model)
    else:
        written = (export_masks if command.masks else export_weights)(ticket, command.out)
    print(f"{command.out}: {written}", file=results)
    return 0
