"""How many bits it takes to describe a ticket's network: everything that was free to choose, and nothing else.

The tree with its gains and samplers, the seed, which blocks were drawn again, the masks, and tensors that are stored
as they are: of weights that were trained, those that are kept. The target is not part of it, nor is what the reader is
told about how the ticket was made.
"""

import json
import math

from lottery_jax.networks.sources.drawn import MOST_ATTEMPTS
from lottery_jax.tickets.effective import decided_bits
from lottery_jax.tickets.ticket import Ticket, kept_bits


def description_bits(ticket: Ticket) -> dict[str, int]:
    """Bits by part. A mask counts as the enumerative code has it: its size of kept weights, and which of all such it
    is.

    >>> subset_bits(4, 2), subset_bits(4, 0)
    (4.90..., 2.32...)
    """
    network, content = ticket.network, ticket.content
    tree = json.dumps(network.to_json(), separators=(",", ":"), sort_keys=True)
    redraws = sum(
        rows.shape[0] * math.log2(drawn.blocks * MOST_ATTEMPTS)
        for name, drawn in network.drawn.items()
        if (rows := content.tensors.get(f"redraws.{name}")) is not None
    )
    kept = {name: kept_bits(content, name) for name in network.drawn}
    decided = {name: decided_bits(ticket, name) for name in network.drawn}  # what the seed decides is no choice
    # What is frozen is some of what its mate's mask does not keep.
    room = {own: max(network.drawn[own].size - kept[name], kept[own]) for name, own in network.frozen.items()}
    masks = sum(subset_bits(room.get(name, own.free), own.free_kept) for name, own in decided.items())
    # Weights that were trained are stored where the mask keeps them, and known to be zero elsewhere.
    stored = {name: math.prod(shape) for name, shape in network.tensors.items()}
    stored |= {own: kept[name] for name, own in network.trained.items()}
    return {
        "header": 8 * len(tree) + 64,
        "redraws": math.ceil(redraws),
        "masks": math.ceil(masks),
        "stored": 32 * sum(stored.values()),
    }


def subset_bits(size: int, kept: int) -> float:
    """Bits that say which `kept` of `size` weights a mask keeps, and how many these are."""
    ways = math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    return max(ways / math.log(2), 0.0) + math.log2(size + 1)
