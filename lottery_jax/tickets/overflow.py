"""Which tickets may hold although their values have no bound in float32 on the box of the promise.

Intervals overestimate, so that in networks of many layers neither the ticket nor its target has a bound. That excuses
a ticket only if the user gave the whole target: a ticket that chooses its own may choose one that overflows.
"""

from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer
from lottery_jax.tickets.box_bounds import Box, BoxBound, bound_box
from lottery_jax.tickets.linear_terms import TargetTensor, Terms, target_terms

HEADROOM = 2.0**20
"""Most times that the absolute terms of a layer may add up to those of its target, if neither network has a bound."""


def overflow_doubts(
    network: Network, values: BoxBound, terms: Terms, tensor: TargetTensor, box: Box, *, given: bool, copied: bool
) -> list[str]:
    """Why a promise for the box is no guarantee, in sentences; empty if values are bounded, or excused.

    Args:
        network: The target's network; `tensor` gives its tensors, `terms` the weights of the ticket.
        values: What ``bound_box`` found for the ticket.
        given: Whether the user gave the target and its network.
        copied: Whether neurons have copies.
    """
    if values.bounded:
        return []
    low, high = box
    reason = (
        f"behind the layer {values.layer!r} its values have no bound in float32 for inputs from {low:g} to {high:g}"
    )
    nearest = min(max(0.0, low), high)
    point = nearest, nearest
    if bound_box(network, terms, tensor, point, copied=copied).bounded:
        return [f"{reason}; give a smaller box"]
    if not given:
        return [f"{reason}, and the network is the ticket's choice; give the target and its network"]
    target = target_terms(tensor)
    if copied or bound_box(network, target, tensor, point).bounded:
        return [reason]
    for path, node in network.nodes():
        if isinstance(node, LinearLayer):
            times = terms(path, node).largest_sum / target(path, node).largest_sum
            if not times <= HEADROOM:
                return [
                    f"{reason}; the sums of {path!r} are {times:.3g} times the target's, {HEADROOM:.3g} are allowed"
                ]
    return []
