"""Initialisers of random weights by their names in PyTorch and Flax, and the fan-in and fan-out of a layer."""

import dataclasses
import math
from collections.abc import Callable

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler


def _uniform(deviation: float) -> Sampler:
    return Sampler.uniform(-deviation * 3**0.5, deviation * 3**0.5)


INITS: dict[str, Callable[[int, int], Sampler]] = {
    "kaiming-normal": lambda inputs, outputs: Sampler.normal((2 / inputs) ** 0.5),
    "kaiming-uniform": lambda inputs, outputs: _uniform((2 / inputs) ** 0.5),
    "xavier-normal": lambda inputs, outputs: Sampler.normal((2 / (inputs + outputs)) ** 0.5),
    "xavier-uniform": lambda inputs, outputs: _uniform((2 / (inputs + outputs)) ** 0.5),
    "signed-constant": lambda inputs, outputs: Sampler.signed_constant((2 / inputs) ** 0.5),
}
"""From fan-in and fan-out of a layer to a sampler (He et al. 2015; Glorot and Bengio 2010; Ramanujan et al. 2020)."""


def fan_in(operation: LinearLayer) -> int:
    """Weights of one output unit."""
    return operation.inputs // operation.groups * math.prod(operation.kernel_shape)


def fan_out(operation: LinearLayer) -> int:
    """Weights of one input unit."""
    return operation.outputs // operation.groups * math.prod(operation.kernel_shape)


def reinitialised(source: Network, init: str) -> Network:
    """A plain source with the weights of another initialiser; raises `InputError`.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.layers.containers import Chain
    >>> source = Network(Chain((("fc1", RandomLayer(Dense(8, 2), Sampler.uniform(-1, 1))),)), Spec((8,)))
    >>> reinitialised(source, "signed-constant").random_tensors["fc1.weight"].sampler.in_words()
    '+-0.5'
    """
    if init not in INITS:
        raise InputError(f"init {init!r} is unknown; {suggest(init, INITS)}")

    def leaf(path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        if not isinstance(node, RandomLayer):
            raise InputError(
                f"`init` must be omitted for sources that are not plain, got {init!r}, and {path!r} is a {node.kind}."
                " Omit it, or learn on the wide source."
            )
        sampler = INITS[init](fan_in(node.layer), fan_out(node.layer))
        own = node.sampler
        return dataclasses.replace(node, sampler=dataclasses.replace(sampler, density=own.density, locked=own.locked))

    return source.map_layers(leaf)
