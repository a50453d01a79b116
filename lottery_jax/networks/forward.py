"""Forward passes over many examples in batches: one compiled program for each tree of nodes."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate, Node, child_path
from lottery_jax.networks.sources.base import Source

Forward = Callable[[jax.Array], jax.Array]
"""x [B, ...] -> outputs [B, C]."""

_MAX_BATCH_ACTIVATION = 1 << 25  # float32 numbers of a batch between two layers


def forward(network: Network, tensors: Mapping[str, Any]) -> Forward:
    """A network as a function x [B, ...] -> outputs [B, C] that holds its tensors on the device.

    All networks of one tree share their compiled programs, whatever their gains.

    Args:
        network: A target or a source.
        tensors: Stored and random tensors by name. Random ones are zero where pruned: applying masks in the program
            would take a fifth of its time.
    """
    placed = {}
    for name, value in tensors.items():
        placed[name] = jnp.asarray(value)
    for name, gain in network.gains.items():
        placed[name] = jnp.asarray(np.float32(gain))
    return functools.partial(_run, network.with_gains(dict.fromkeys(network.gains, 1.0)), placed)


@functools.partial(jax.jit, static_argnums=0)
def _run(network: Network, tensors: Mapping[str, Any], x: Any) -> jax.Array:
    return network.module(tensors, lambda name: FixedGate(jnp.array(True)))(x)  # type: ignore[operator]


def outputs(function: Forward, images: np.ndarray | jax.Array, *, batch_size: int = 500) -> np.ndarray:
    """Outputs [N, C] for images [N, ...], on the host.

    Args:
        images: At least one example.
        batch_size: Examples per call; the last batch is padded to this size.
    """
    examples = np.asarray(images)
    if len(examples) == 0:
        raise InputError("images must hold at least one example, got none")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    parts = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        padded = np.pad(batch, ((0, batch_size - len(batch)), *[(0, 0)] * (batch.ndim - 1)))
        parts.append(np.asarray(function(jnp.asarray(padded)))[: len(batch)])
    return np.concatenate(parts)


def batch_size(network: Network) -> int:
    """Examples per batch: 500, or fewer if the activations would take much memory."""
    return int(min(max(_MAX_BATCH_ACTIVATION // max(network.largest_activation, network.cost.numbers), 1), 500))


def without_dead_units(network: Network, pruned: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, np.ndarray]]:
    """An equal source with fewer hidden units: for nonnegative inputs half of a gadget's units are never kept.

    Args:
        pruned: Its random tensors by name, zero where pruned.

    Returns:
        The smaller source and its random tensors.
    """
    tensors = dict(pruned)

    def smaller(path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        own = {}
        for name in node.random_tensors():
            own[name] = pruned[child_path(path, name)]
        source, alive = node.without_dead_units(own)
        for name, value in alive.items():
            tensors[child_path(path, name)] = value
        return source

    return network.map_layers(smaller), tensors
