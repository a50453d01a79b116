"""What must hold of a ticket whose weights were trained: pruned is zero, and as much is kept as it says.

Published comparisons got both wrong: momentum or weight decay revived pruned weights, and a threshold kept a few more
or fewer than was reported.
"""

from collections.abc import Mapping

import numpy as np

from lottery_jax.networks.summary import clipped
from lottery_jax.storage.store import read_array
from lottery_jax.tickets.ticket import Ticket


def trained_faults(ticket: Ticket, kept: Mapping[str, int]) -> list[str]:
    """Why a ticket of trained weights is not what it says it is, in sentences; none for a sound one.

    kept: set bits of each mask. The settings may say as much under `kept`; others are not asked to.
    """
    found: list[str] = []
    for name, own in ticket.network.trained.items():
        weights, mask = read_array(ticket.content, f"stored.{own}"), ticket.mask(name)
        revived = np.count_nonzero(weights[~mask])  # NaN is not zero
        if revived:
            found.append(f"{revived:,} pruned weights of {clipped(name)} are not zero")
        bad = np.count_nonzero(~np.isfinite(weights[mask]))
        if bad:
            found.append(f"{bad:,} kept weights of {clipped(name)} are not finite")
    said = ticket.header.settings.get("kept")
    if said is not None:
        if not isinstance(said, Mapping):
            found.append("what its settings say is kept are not numbers by name")
        elif wrong := [name for name, count in kept.items() if type(said.get(name)) is not int or said[name] != count]:
            found.append(
                f"its mask of {clipped(wrong[0])} keeps {kept[wrong[0]]:,}, which is not what its settings say"
            )
    return found
