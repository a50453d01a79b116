"""Running a network on many examples: one compiled program for a tree, batches of one shape, memory bounded by them.

Leaving out hidden units that nothing reaches: the pruned network is run with half as many where half are dead.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.gates import FixedGate
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import child_path

Forward = Callable[[jax.Array], jax.Array]
"""x [B, ...] -> outputs [B, C]."""

_MOST_NUMBERS = 1 << 25  # float32 numbers that a batch may have between two layers


def forward(network: Network, tensors: Mapping[str, Any]) -> Forward:
    """A network with its tensors, stored and random ones by name, as a function; its arrays are placed once.

    Random tensors are pruned already: masks in the program would take a fifth of its time, batch by batch. All networks
    of one tree share their compiled programs, whatever their gains.
    """
    gains = {name: np.float32(gain) for name, gain in network.gains.items()}
    placed = {name: jnp.asarray(value) for name, value in {**tensors, **gains}.items()}
    return functools.partial(_run, network.with_gains(dict.fromkeys(gains, 1.0)), placed)


@functools.partial(jax.jit, static_argnums=0)
def _run(network: Network, tensors: Mapping[str, Any], x: Any) -> jax.Array:
    return network.module(tensors, lambda name: FixedGate(jnp.array(True)))(x)  # type: ignore[operator]


def outputs(function: Forward, images: np.ndarray | jax.Array, *, batch_size: int = 500) -> np.ndarray:
    """Outputs [N, C] for images [N, ...], on the host; the last batch is padded, so that all have one shape."""
    examples = np.asarray(images)
    if len(examples) == 0:
        raise InputError("the split has no examples; evaluate on at least one")
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1")
    parts = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        padded = np.pad(batch, ((0, batch_size - len(batch)), *[(0, 0)] * (batch.ndim - 1)))
        parts.append(np.asarray(function(jnp.asarray(padded)))[: len(batch)])
    return np.concatenate(parts)


def batch_size(network: Network) -> int:
    """Examples at a time: 500, or fewer where the numbers between two layers would take much memory."""
    return int(min(max(_MOST_NUMBERS // network.largest_activation, 1), 500))


def without_dead_units(network: Network, pruned: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, np.ndarray]]:
    """A source and its random tensors, zero where pruned, that compute the same with fewer hidden units.

    For inputs that are never negative, half of a gadget's units are never kept.
    """
    leaves, found = {}, dict(pruned)
    for path, source in network.sources.items():
        own = {name: pruned[child_path(path, name)] for name in source.random_tensors()}
        leaves[path], alive = source.without_dead_units(own)
        found |= {child_path(path, name): value for name, value in alive.items()}
    return network.map_layers(lambda path, node: leaves.get(path, node)), found
