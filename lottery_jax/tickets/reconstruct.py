"""The weights that a ticket makes: what its kept random weights sum to, from seed and bits alone, in float64 NumPy.

This is the verifier's side. It draws only what is kept, in slices, and shares no code with the search.

The collapsed form of a ticket: the target's own network with the weights that the ticket makes.

It computes what the masked random network computes, at the target's cost: a fast path that is tested equal to it.
Copies of a neuron differ by the errors of their weights, so that a network with copies keeps them here, and its cost.
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
from lottery_jax.rng.forced_entries import forced_blocks, has_forced_entries
from lottery_jax.rng.random_tensor import RandomTensor, attempts_of
from lottery_jax.tickets.ticket import Ticket

_SLICE = 1 << 18  # random weights looked at at once


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """One approximated tensor of a ticket: the random leaf it belongs to, and what that leaf's weights count.

    trained: the stored tensor whose weights stand in place of the random ones, if there is one. frozen: the random
    tensor whose kept weights are added to those, if there is one.
    """

    name: str
    source: Source
    own: str
    random_tensor: RandomTensor
    signs: tuple[int, ...]
    edges: dict[str, np.ndarray]
    redraws: np.ndarray
    trained: str | None = None
    frozen: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Effective:
    """Weights first ... first + count - 1 of a tensor: values float64 [signs * copies, count], kept random weights.

    values: one row for each sign of input, and within it for each copy of the output, that must agree with the target.
    """

    name: str
    first: int
    values: np.ndarray
    kept: int


def approximated_leaves(ticket: Ticket) -> Iterator[Leaf]:
    """The approximated tensors of a ticket that have masks, in the order of its tree."""
    for path, source in ticket.network.sources.items():
        edges = {name: ticket.kept(child_path(path, name)) for name in source.hidden_tensors}
        given = ticket.network.input_spec_of(path)
        for own in source.layer.tensors():
            if own not in source.random_tensors():
                continue  # stored as it is: the bias of weights that were trained
            name = child_path(path, own)
            drawn, trained = ticket.network.random_tensors[name], ticket.network.trained_tensors.get(name)
            frozen = ticket.network.frozen_tensors.get(name)
            yield Leaf(
                name, source, own, drawn, source.input_signs(own, given), edges, ticket.redraws(name), trained, frozen
            )


def effective_slices(
    ticket: Ticket, leaf: Leaf, look: Callable[[Effective], Effective] = lambda part: part
) -> Iterator[Effective]:
    """All of one tensor in slices, in order; `look` is called on each in the thread that made it.

    No more slices are under way than keep every core busy: memory stays bounded.
    """
    weights = leaf.random_tensor.rows // leaf.source.rows_per_weight
    step = (
        max(_SLICE // (leaf.random_tensor.width * leaf.source.rows_per_weight) // 8, 1) * 8
    )  # whole bytes of the mask
    workers = cores()
    waiting = collections.deque[concurrent.futures.Future[Effective]]()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for first in range(0, weights, step):
            count = min(step, weights - first)
            waiting.append(pool.submit(lambda first, count: look(effective(ticket, leaf, first, count)), first, count))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def effective(ticket: Ticket, leaf: Leaf, first: int, count: int) -> Effective:
    """The weights at flat positions first ... first + count - 1, `first` a multiple of 8, of one tensor."""
    copies = leaf.source.rows_per_weight
    begin, rows = first * copies, count * copies
    row, column = _kept(ticket, leaf.name, leaf.random_tensor.width, begin, rows)
    if leaf.trained is None:
        weights = _drawn(ticket, leaf.random_tensor, leaf.redraws, begin, rows, row, column)
    else:
        weights = ticket.content.read(f"stored.{leaf.trained}", first, count)[row].astype(np.float64)
    if leaf.frozen is not None:
        more, place = _kept(ticket, leaf.frozen, leaf.random_tensor.width, first, count)
        same = _drawn(ticket, leaf.random_tensor, ticket.redraws(leaf.frozen), first, count, more, place)
        row, column, weights = (np.concatenate(both) for both in ((row, more), (column, place), (weights, same)))
    values = np.empty((len(leaf.signs), copies, count))
    for place, sign in enumerate(leaf.signs):
        each = weights * leaf.source.coefficients(leaf.own, begin + row, column, sign, leaf.edges)
        values[place] = np.bincount(row, each, rows).reshape(count, copies).T
    return Effective(leaf.name, first, values.reshape(-1, count), len(row))


def _kept(ticket: Ticket, name: str, width: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, counted from `first`, and columns of the kept weights among `count` rows of a random tensor."""
    bits = count * width
    packed = ticket.content.read(f"mask.{name}", first * width // 8, (bits + 7) // 8)
    return np.divmod(np.flatnonzero(np.unpackbits(packed, count=bits, bitorder="little")), width)


def _drawn(
    ticket: Ticket,
    drawn: RandomTensor,
    redraws: np.ndarray,
    first: int,
    count: int,
    row: np.ndarray,
    column: np.ndarray,
) -> np.ndarray:
    """Random weights at these rows, counted from `first`, and columns, from the seed, float64."""
    begin, end = first // drawn.shared, (first + count - 1) // drawn.shared + 1
    block = (first + row) // drawn.shared
    attempts = attempts_of(redraws, begin, end)
    return drawn.draw_columns(ticket.seed, block, column, attempts[block - begin]).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class ForcedCounts:
    """Of a random tensor's mask: bits that the seed leaves to it, and what contradicts it.

    absent_kept: absent weights that are kept. locked_pruned: locked weights that are pruned.
    """

    free: int
    absent_kept: int = 0
    locked_pruned: int = 0


def forced_bits(ticket: Ticket, name: str) -> ForcedCounts:
    """What the seed decides of a mask, and where the mask says otherwise."""
    drawn = ticket.network.random_tensors[name]
    if not has_forced_entries(drawn):
        return ForcedCounts(drawn.size)
    redraws, counts = ticket.redraws(name), np.zeros((3, 2), np.int64)
    step = max(_SLICE // drawn.width // 8, 1) * 8  # whole bytes of the mask
    for first in range(0, drawn.rows, step):
        count = min(step, drawn.rows - first)
        row, column = _kept(ticket, name, drawn.width, first, count)
        kept = np.zeros((count, drawn.width), np.int64)
        kept[row, column] = 1
        begin, end = first // drawn.shared, (first + count - 1) // drawn.shared + 1
        blocks = forced_blocks(drawn, ticket.seed, np.arange(begin, end), attempts_of(redraws, begin, end))
        forced = blocks[(first + np.arange(count)) // drawn.shared - begin]
        counts += np.bincount((2 * (forced + 1) + kept).reshape(-1), minlength=6).reshape(3, 2)
    (_, absent_kept), free, (locked_pruned, _) = counts.tolist()
    return ForcedCounts(sum(free), absent_kept, locked_pruned)


def effective_weights(ticket: Ticket) -> dict[str, np.ndarray]:
    """All approximated tensors as the ticket makes them: float64 [signs * copies, *shape] by name."""
    return {
        leaf.name: np.concatenate([part.values for part in effective_slices(ticket, leaf)], 1).reshape(
            -1, *ticket.network.approximated[leaf.name]
        )
        for leaf in approximated_leaves(ticket)
    }


@dataclasses.dataclass(frozen=True)
class Branches(Node):
    """An operation with other weights for negative inputs: its tensors have an axis of two signs in front."""

    layer: LinearLayer
    kind: ClassVar[str] = "branches"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {name: (1 if name == "bias" else 2, *shape) for name, shape in self.layer.tensors().items()}

    def output_spec(self, given: Spec) -> Spec:
        return self.layer.output_spec(given)

    def module(self, weights: Weights) -> nnx.Module:
        plus = {name: weights[name][0] for name in self.tensors()}
        minus = {name: jnp.zeros_like(plus[name]) if name == "bias" else weights[name][1] for name in self.tensors()}
        return TwoSigns(self.layer.module(Weights(plus)), self.layer.module(Weights(minus)))


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
    sources = {
        child_path(path, own): (one, own) for path, one in network.sources.items() for own in one.layer.tensors()
    }
    for name, (source, own) in sources.items():
        if name in made:
            value = source.effective_tensor(own, made[name], functools.partial(ticket.kept, name))
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
        return (
            Branches(node.effective_layer)
            if path in twofold and isinstance(node.effective_layer, LinearLayer)
            else node.effective_layer
        )

    return network.map_layers(leaf)


def _signs(network: Network, path: str, source: Source) -> list[tuple[int, ...]]:
    return [source.input_signs(name, network.input_spec_of(path)) for name in source.layer.tensors()]
