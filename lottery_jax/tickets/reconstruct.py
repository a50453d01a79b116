"""Effective weights: what a ticket's kept random weights sum to, from seed and masks alone, in float64 NumPy.

It shares no code with the search. The collapsed network, the target's network with these weights, computes what the
masked random network computes, at the target's cost (copies of replicated neurons stay, because their weights differ).
"""

import collections
import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.environment import cores
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec, Weights, child_path
from lottery_jax.networks.sources.base import Source
from lottery_jax.rng.random_tensor import RandomTensor, block_attempts
from lottery_jax.tickets.ticket import Ticket

_SLICE = 1 << 18  # random weights in a slice


@dataclasses.dataclass(frozen=True, eq=False)
class ApproximatedTensor:
    """One approximated tensor of a ticket and the random weights that make it.

    Attributes:
        path: Of its layer in the network.
        parameter: Name in its layer `source`, ``weight`` or ``bias``.
        signs: Signs of inputs for which effective weights can differ.
        edges: Kept weights of the layer's ``edges``.
        trained: Stored tensor whose weights replace the random ones, if any.
        frozen: Random tensor whose kept weights are added, if any.
    """

    name: str
    path: str
    source: Source
    parameter: str
    random_tensor: RandomTensor
    signs: tuple[int, ...]
    edges: dict[str, np.ndarray]
    redraws: np.ndarray
    trained: str | None
    frozen: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class EffectiveSlice:
    """Effective weights first ... first + count - 1 of a tensor, float64 [signs * copies, count], signs first.

    Attributes:
        sizes: Sums of the absolute values of the terms of each effective weight, in the shape of `values`.
        kept: Number of kept weights of each, [copies, count].
    """

    name: str
    first: int
    values: np.ndarray
    sizes: np.ndarray
    kept: np.ndarray


def approximated_tensors(ticket: Ticket) -> Iterator[ApproximatedTensor]:
    """The approximated tensors of a ticket that have masks, in the order of its network."""
    network = ticket.network
    for path, source in network.sources.items():
        edges = {name: ticket.masked_weights(child_path(path, name)) for name in source.hidden_tensors}
        for parameter in source.layer.tensors():
            if parameter not in source.random_tensors():
                continue  # stored as it is: the bias of trained weights
            name = child_path(path, parameter)
            yield ApproximatedTensor(
                name=name,
                path=path,
                source=source,
                parameter=parameter,
                random_tensor=network.random_tensors[name],
                signs=source.input_signs(parameter, network.input_spec_of(path)),
                edges=edges,
                redraws=ticket.redraws(name),
                trained=network.trained_tensors.get(name),
                frozen=network.frozen_tensors.get(name),
            )


def effective_slices(
    ticket: Ticket, tensor: ApproximatedTensor, transform: Callable[[EffectiveSlice], Any] = lambda part: part
) -> Iterator[Any]:
    """All of one tensor in slices, in order, each through `transform` in the thread that made it.

    At most one slice more than there are cores is in memory.
    """
    weights = tensor.random_tensor.rows // tensor.source.rows_per_weight
    per_weight = tensor.random_tensor.width * tensor.source.rows_per_weight
    step = max(_SLICE // per_weight // 8, 1) * 8  # whole bytes of the mask
    workers = cores()

    def make(first: int) -> Any:
        return transform(_effective_slice(ticket, tensor, first, min(step, weights - first)))

    waiting = collections.deque[concurrent.futures.Future[Any]]()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for first in range(0, weights, step):
            waiting.append(pool.submit(make, first))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _effective_slice(ticket: Ticket, tensor: ApproximatedTensor, first: int, count: int) -> EffectiveSlice:
    """The weights at flat positions first ... first + count - 1 of one tensor; `first` is a multiple of 8."""
    source, random_tensor = tensor.source, tensor.random_tensor
    copies, width = source.rows_per_weight, random_tensor.width
    begin, rows = first * copies, count * copies
    row, column = kept_entries(ticket, tensor.name, width, begin, rows)
    if tensor.trained is None:
        weights = _draw(ticket, random_tensor, tensor.redraws, begin, rows, (row, column))
    else:
        weights = ticket.content.read(f"stored.{tensor.trained}", first, count)[row].astype(np.float64)
    if tensor.frozen is not None:
        entries = kept_entries(ticket, tensor.frozen, width, first, count)
        frozen = _draw(ticket, random_tensor, ticket.redraws(tensor.frozen), first, count, entries)
        row, column = np.concatenate([row, entries[0]]), np.concatenate([column, entries[1]])
        weights = np.concatenate([weights, frozen])
    values, sizes = (np.empty((len(tensor.signs), copies, count)) for _ in range(2))
    for index, sign in enumerate(tensor.signs):
        arguments = tensor.parameter, begin + row, column, sign, tensor.edges
        terms, factors = weights * source.coefficients(*arguments), source.term_sizes(*arguments)
        values[index] = np.bincount(row, terms, rows).reshape(count, copies).T
        absolute = np.abs(terms if factors is None else weights * factors)
        sizes[index] = np.bincount(row, absolute, rows).reshape(count, copies).T
    kept = np.bincount(row, minlength=rows).reshape(count, copies).T
    return EffectiveSlice(tensor.name, first, values.reshape(-1, count), sizes.reshape(-1, count), kept)


def kept_entries(ticket: Ticket, name: str, width: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, relative to `first`, and columns of the kept weights in rows first ... first + count - 1 of a mask."""
    bits = count * width
    packed = ticket.content.read(f"mask.{name}", first * width // 8, (bits + 7) // 8)
    return np.divmod(np.flatnonzero(np.unpackbits(packed, count=bits, bitorder="little")), width)


def _draw(
    ticket: Ticket, tensor: RandomTensor, redraws: np.ndarray, first: int, count: int, entries: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Random weights at entries (rows relative to `first`, columns), from the seed, float64."""
    row, column = entries
    begin, end = first // tensor.rows_per_block, (first + count - 1) // tensor.rows_per_block + 1
    block = (first + row) // tensor.rows_per_block
    attempts = block_attempts(redraws, begin, end)
    return tensor.draw_columns(ticket.seed, block, column, attempts[block - begin]).astype(np.float64)


def effective_weights(ticket: Ticket) -> dict[str, np.ndarray]:
    """All effective weights by tensor, float64 [signs * copies, *shape], ordered as in `EffectiveSlice`."""
    found = {}
    for tensor in approximated_tensors(ticket):
        values = np.concatenate([part.values for part in effective_slices(ticket, tensor)], 1)
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
