"""Effective weights: what a ticket's kept random weights sum to, from seed and masks alone, in float64 NumPy.

It shares no code with the search. All functions take the parts of a ticket: network, seed and content.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lottery_jax.environment import cores
from lottery_jax.io.tensor_file import TensorReader, read_array
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import child_path
from lottery_jax.networks.sources.base import Source
from lottery_jax.rng.random_tensor import RandomTensor, block_attempts
from lottery_jax.tickets.size.conditioning import read_redraws

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
        seed: Of the ticket.
        content: Of the ticket.
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
    seed: int
    content: TensorReader

    @property
    def copied(self) -> bool:
        """Whether the layer has copies of its inputs or outputs."""
        return self.source.effective_layer != self.source.layer


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


def approximated_tensors(
    network: Network, seed: int, content: TensorReader, name: str | None = None
) -> Iterator[ApproximatedTensor]:
    """The approximated tensors of a ticket that have masks, in the order of its network; only `name` if it is given."""
    for path, source in network.sources.items():
        masked = source.random_tensors()  # not all are: the bias of trained weights is stored as it is
        full_names = {child_path(path, own): own for own in source.layer.tensors() if own in masked}
        if name is not None:
            full_names = {name: full_names[name]} if name in full_names else {}
        edges = {}
        for own in source.hidden_tensors if full_names else ():
            edges[own] = masked_weights(network, seed, content, child_path(path, own))
        for full, parameter in full_names.items():
            yield ApproximatedTensor(
                name=full,
                path=path,
                source=source,
                parameter=parameter,
                random_tensor=network.random_tensors[full],
                signs=source.input_signs(parameter, network.input_spec_of(path)),
                edges=edges,
                redraws=read_redraws(content, full),
                trained=network.trained_tensors.get(full),
                frozen=network.frozen_tensors.get(full),
                seed=seed,
                content=content,
            )


def read_mask(network: Network, content: TensorReader, name: str) -> np.ndarray:
    """The mask of a random tensor, bool in its shape."""
    tensor = network.random_tensors[name]
    bits = np.unpackbits(read_array(content, f"mask.{name}"), count=tensor.size, bitorder="little")
    return bits.astype(bool).reshape(tensor.shape)


def masked_weights(network: Network, seed: int, content: TensorReader, name: str) -> np.ndarray:
    """The weights of a random tensor times its mask, float32; only kept ones are drawn."""
    mask = read_mask(network, content, name)
    return network.random_tensors[name].draw_kept(seed, read_redraws(content, name), mask)


def effective_slices(
    tensor: ApproximatedTensor, transform: Callable[[EffectiveSlice], Any] = lambda part: part
) -> Iterator[Any]:
    """All of one tensor in slices, in order, each through `transform` in the thread that made it.

    At most one slice more than there are cores is in memory.
    """
    weights = tensor.random_tensor.rows // tensor.source.rows_per_weight
    per_weight = tensor.random_tensor.width * tensor.source.rows_per_weight
    step = max(_SLICE // per_weight // 8, 1) * 8  # whole bytes of the mask
    workers = cores()

    def make(first: int) -> Any:
        return transform(_effective_slice(tensor, first, min(step, weights - first)))

    waiting = collections.deque[concurrent.futures.Future[Any]]()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for first in range(0, weights, step):
            waiting.append(pool.submit(make, first))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _effective_slice(tensor: ApproximatedTensor, first: int, count: int) -> EffectiveSlice:
    """The weights at flat positions first ... first + count - 1 of one tensor; `first` is a multiple of 8."""
    source, random_tensor, seed, content = tensor.source, tensor.random_tensor, tensor.seed, tensor.content
    copies, width = source.rows_per_weight, random_tensor.width
    begin, rows = first * copies, count * copies
    row, column = kept_entries(content, tensor.name, width, begin, rows)
    if tensor.trained is None:
        weights = _draw(seed, random_tensor, tensor.redraws, begin, rows, (row, column))
    else:
        weights = content.read(f"stored.{tensor.trained}", first, count)[row].astype(np.float64)
    if tensor.frozen is not None:
        entries = kept_entries(content, tensor.frozen, width, first, count)
        frozen = _draw(seed, random_tensor, read_redraws(content, tensor.frozen), first, count, entries)
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


def kept_entries(content: TensorReader, name: str, width: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, relative to `first`, and columns of the kept weights in rows first ... first + count - 1 of a mask."""
    bits = count * width
    packed = content.read(f"mask.{name}", first * width // 8, (bits + 7) // 8)
    return np.divmod(np.flatnonzero(np.unpackbits(packed, count=bits, bitorder="little")), width)


def _draw(
    seed: int, tensor: RandomTensor, redraws: np.ndarray, first: int, count: int, entries: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Random weights at entries (rows relative to `first`, columns), from the seed, float64."""
    row, column = entries
    begin, end = first // tensor.rows_per_block, (first + count - 1) // tensor.rows_per_block + 1
    block = (first + row) // tensor.rows_per_block
    attempts = block_attempts(redraws, begin, end)
    return tensor.draw_columns(seed, block, column, attempts[block - begin]).astype(np.float64)
