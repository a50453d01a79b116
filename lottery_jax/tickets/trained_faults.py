"""What must hold of a ticket whose weights were trained: pruned is zero, or as drawn, and all else is as it says.

Published comparisons got these wrong: momentum or weight decay revived pruned weights, a threshold kept a few more or
fewer than was reported, weights were not rewound, and dense and pruned networks saw other batches.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.networks.summary import clipped
from lottery_jax.storage.sealed import digest
from lottery_jax.storage.store import read_array
from lottery_jax.tickets.ticket import Ticket


def trained_faults(ticket: Ticket, kept: Mapping[str, int]) -> list[str]:
    """Why a ticket of trained weights is not what it says it is, in sentences; none for a sound one.

    kept: set bits of each mask. What its settings do not speak of is not asked; what they say is not believed.
    """
    return [*_weight_faults(ticket), *_count_faults(ticket, kept), *_training_faults(ticket)]


def _weight_faults(ticket: Ticket) -> Iterator[str]:
    """What is wrong with the weights and masks themselves."""
    for name, own in ticket.network.trained.items():
        weights, mask = read_array(ticket.content, f"stored.{own}"), ticket.mask(name)
        revived = np.count_nonzero(weights[~mask])  # NaN is not zero
        if revived:
            yield f"{revived:,} pruned weights of {clipped(name)} are not zero"
        bad = np.count_nonzero(~np.isfinite(weights[mask]))
        if bad:
            yield f"{bad:,} kept weights of {clipped(name)} are not finite"
        frozen = ticket.network.frozen.get(name)
        both = 0 if frozen is None else np.count_nonzero(mask & ticket.mask(frozen))
        if both:
            yield f"{both:,} weights of {clipped(name)} are both trained and frozen"
        if any(len(ticket.redraws(part)) for part in (name, frozen) if part is not None):
            yield f"weights of {clipped(name)} were drawn again, which training never does"


def _count_faults(ticket: Ticket, kept: Mapping[str, int]) -> Iterator[str]:
    """Where it keeps another number of weights than its settings say, or than they asked for."""
    settings, drawn = ticket.header.settings, ticket.network.drawn
    said, keep = settings.get("kept"), settings.get("keep")
    if said is not None:
        if not isinstance(said, Mapping):
            yield "what its settings say is kept are not numbers by name"
        elif wrong := [name for name, count in kept.items() if type(said.get(name)) is not int or said[name] != count]:
            yield f"its mask of {clipped(wrong[0])} keeps {kept[wrong[0]]:,}, which is not what its settings say"
    if keep is not None:
        if type(keep) not in (int, float) or not 0 <= keep <= 1:
            yield "the kept fraction of its settings is no number from 0 to 1"
            return
        size = sum(drawn[name].size for name in ticket.network.trained)
        found = sum(kept[name] for name in ticket.network.trained)
        asked = round(keep * size)
        if settings.get("mask") == "inverted":
            asked = size - asked
        if found != asked:
            yield f"it keeps {found:,} of {size:,} weights, and its settings ask for {asked:,}"


def _training_faults(ticket: Ticket) -> Iterator[str]:
    """Where its training was not what it says: pruned weights that moved, other beginnings, other batches."""
    settings, network = ticket.header.settings, ticket.network
    revived = settings.get("revived_steps", 0)
    if type(revived) is not int or revived != 0:
        yield f"pruned weights had moved after {clipped(str(revived))} steps of its training"
    if "rewound_sha256" in settings and settings.get("rewound_to") == 0:
        began = {name: network.drawn[name].draw_all(ticket.seed, NO_REDRAWS) for name in network.trained}
        if settings["rewound_sha256"] != digest("", began):
            yield "the weights that it was rewound to are not those of its seed"
    if "dense_batches_sha256" in settings and settings["dense_batches_sha256"] != settings.get("batches_sha256"):
        yield "the dense and the pruned network were trained on other batches"
