"""Tickets: the file format, the verifier, effective weights and exports."""

from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.export import export_into, export_masks, export_weights
from lottery_jax.tickets.given_target import TargetFile
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.size.description_length import description_bits
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket
from lottery_jax.tickets.verify import Verification, verify, verify_with_weights

__all__ = [
    "Certificate",
    "TargetFile",
    "Ticket",
    "Verification",
    "description_bits",
    "effective_weights",
    "export_into",
    "export_masks",
    "export_weights",
    "load_ticket",
    "make_ticket",
    "verify",
    "verify_with_weights",
]
