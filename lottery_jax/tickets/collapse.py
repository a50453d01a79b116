"""The collapsed form of a ticket: the target's own network with the weights that the ticket makes.

It computes what the masked random network computes, at the target's cost: a fast path that is tested equal to it.
Copies of a neuron differ by the errors of their weights, so that a network with copies keeps them here, and its cost.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Operation, Spec, Weights, child_path
from lottery_jax.networks.sources.source import Source
from lottery_jax.tickets.ticket import Ticket


@dataclasses.dataclass(frozen=True)
class Branches(Node):
    """An operation with other weights for negative inputs: its tensors have an axis of two signs in front."""

    of: Operation
    kind: ClassVar[str] = "branches"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {name: (1 if name == "bias" else 2, *shape) for name, shape in self.of.tensors().items()}

    def output(self, given: Spec) -> Spec:
        return self.of.output(given)

    def module(self, weights: Weights) -> nnx.Module:
        plus = {name: weights[name][0] for name in self.tensors()}
        minus = {name: jnp.zeros_like(plus[name]) if name == "bias" else weights[name][1] for name in self.tensors()}
        return TwoSigns(self.of.module(Weights(plus)), self.of.module(Weights(minus)))


class TwoSigns(nnx.Module):
    """One module for what is positive in x, another for what is negative."""

    def __init__(self, plus: nnx.Module, minus: nnx.Module) -> None:
        self.plus, self.minus = plus, minus

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.plus(jnp.maximum(x, 0)) + self.minus(jnp.minimum(x, 0))  # type: ignore[operator]


def collapsed(ticket: Ticket, made: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, Any]]:
    """A network and its tensors, float64, to be given to `networks.running.forward` or to `Network.module`.

    made: the weights that the ticket makes, as `effective_weights` gives them.
    """
    network, plain = ticket.network, plain_form(ticket.network)
    tensors: dict[str, Any] = {name: value.astype(np.float64) for name, value in ticket.kept_stored.items()}
    tensors = {name: value for name, value in tensors.items() if name in plain.tensors}  # not trained ones: in `made`
    sources = {child_path(path, own): (one, own) for path, one in network.sources.items() for own in one.of.tensors()}
    for name, (source, own) in sources.items():
        if name in made:
            value = source.computed(own, made[name], functools.partial(ticket.kept, name))
            tensors[name] = value if plain.tensors[name] == value.shape else value[0]
    return plain, tensors


def plain_form(network: Network) -> Network:
    """A source with each random leaf's operation in its place, with weights for either sign where they may differ."""
    twofold = {
        path
        for path, source in network.sources.items()
        if any(len(signs) > 1 for signs in _signs(network, path, source))
    }

    def leaf(path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        return Branches(node.wide) if path in twofold and isinstance(node.wide, Operation) else node.wide

    return network.replaced(leaf)


def _signs(network: Network, path: str, source: Source) -> list[tuple[int, ...]]:
    return [source.signs(name, network.given_to(path)) for name in source.of.tensors()]
