"""The collapsed network of a ticket: the target's network with its effective weights.

It computes what the masked random network computes, at the target's cost. Copies of replicated neurons stay, because
their weights differ.
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
from lottery_jax.networks.node import LinearLayer, Node, Spec, Weights, child_path
from lottery_jax.networks.sources.base import Source
from lottery_jax.tickets.effective_slices import approximated_tensors, effective_slices
from lottery_jax.tickets.ticket import Ticket


def effective_weights(ticket: Ticket) -> dict[str, np.ndarray]:
    """All effective weights by tensor, float64 [signs * copies, *shape], ordered as in `EffectiveSlice`."""
    found = {}
    for tensor in approximated_tensors(ticket.network, ticket.seed, ticket.content):
        values = np.concatenate([part.values for part in effective_slices(tensor)], 1)
        found[tensor.name] = values.reshape(-1, *ticket.network.approximated[tensor.name])
    return found


@dataclasses.dataclass(frozen=True)
class SignSplitLayer(Node):
    """A linear layer with other weights for negative inputs: its tensors have a leading axis of two signs."""

    layer: LinearLayer
    kind: ClassVar[str] = "branches"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {name: (1 if name == "bias" else 2, *shape) for name, shape in self.layer.tensors().items()}

    def output_spec(self, given: Spec) -> Spec:
        return self.layer.output_spec(given)

    def module(self, weights: Weights) -> nnx.Module:
        positive = {name: weights[name][0] for name in self.tensors()}
        negative = {n: jnp.zeros_like(positive[n]) if n == "bias" else weights[n][1] for n in self.tensors()}
        return SignSplitModule(self.layer.module(Weights(positive)), self.layer.module(Weights(negative)))


class SignSplitModule(nnx.Module):
    """One module for the positive part of x, another for the negative part."""

    def __init__(self, positive: nnx.Module, negative: nnx.Module) -> None:
        self.positive, self.negative = positive, negative

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.positive(jnp.maximum(x, 0)) + self.negative(jnp.minimum(x, 0))  # type: ignore[operator]


def collapse(ticket: Ticket, weights: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, Any]]:
    """The collapsed network of a ticket and its float64 tensors, from its `effective_weights`."""
    network, collapsed = ticket.network, collapsed_network(ticket.network)
    # Trained tensors are not in it: they are effective weights.
    stored = ticket.masked_stored.items()
    tensors: dict[str, Any] = {name: value.astype(np.float64) for name, value in stored if name in collapsed.tensors}
    for path, source in network.sources.items():
        for parameter in source.layer.tensors():
            name = child_path(path, parameter)
            if name in weights:
                masked = functools.partial(ticket.masked_weights, name)
                value = source.effective_tensor(parameter, weights[name], masked)
                tensors[name] = value if collapsed.tensors[name] == value.shape else value[0]
    return collapsed, tensors


def collapsed_network(network: Network) -> Network:
    """A source with each random layer replaced by its linear layer, split by sign if effective weights can differ."""

    def replace(path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        given = network.input_spec_of(path)
        layer = node.effective_layer
        split = any(len(node.input_signs(parameter, given)) > 1 for parameter in node.layer.tensors())
        return SignSplitLayer(layer) if split and isinstance(layer, LinearLayer) else layer

    return network.map_layers(replace)
