"""Leaving out hidden units that nothing reaches: the pruned network is run with half as many where half are dead."""

from collections.abc import Mapping

import numpy as np

from lottery_jax.networks.network import Network
from lottery_jax.networks.node import child_path


def without_dead_units(network: Network, pruned: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, np.ndarray]]:
    """A source and its random tensors, zero where pruned, that compute the same with fewer hidden units.

    For inputs that are never negative, half of a gadget's units are never kept.
    """
    leaves, found = {}, dict(pruned)
    for path, source in network.sources.items():
        own = {name: pruned[child_path(path, name)] for name in source.drawn()}
        leaves[path], alive = source.without_dead_units(own)
        found |= {child_path(path, name): value for name, value in alive.items()}
    return network.replaced(lambda path, node: leaves.get(path, node)), found
