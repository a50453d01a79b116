"""Architectures as data: a tuple of layer descriptions, ReLU between them, every tensor drawn from one seed."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.copies import ATTEMPT_STRIDE, Copies, draw_copies
from lottery_jax.sampler import MAX_SIZE, Sampler, draw_at, draw_host, seed_words


@dataclasses.dataclass(frozen=True)
class Linear:
    """A plain masked layer: `kernel` [I inputs, O outputs], output times `gain`."""

    inputs: int
    outputs: int
    sampler: Sampler
    gain: float = 1.0
    kind: ClassVar[str] = "linear"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"kernel": (self.inputs, self.outputs)}

    def samplers(self) -> dict[str, Sampler]:
        return {"kernel": self.sampler}


@dataclasses.dataclass(frozen=True)
class Gadget:
    """The two random matrices of Pensia et al. 2020 (Figure 1) that stand for one target layer.

    `first` [I, U]: the edges from input i to its own U hidden units, that is the block-column part of the full
    first matrix [I, I*U]; all its other edges are pruned. `second` [I, U, O]: the full second matrix [I*U, O].
    The weights of `first` are drawn at their positions in the full matrix, so `unroll` gives the same network.
    `signed` says that inputs can be negative: then the units with a negative first weight carry them.
    """

    inputs: int
    units: int
    outputs: int
    first: Sampler
    second: Sampler
    relu: bool = True
    signed: bool = False
    gain: float = 1.0
    kind: ClassVar[str] = "gadget"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"first": (self.inputs, self.units), "second": (self.inputs, self.units, self.outputs)}

    def samplers(self) -> dict[str, Sampler]:
        return {"first": self.first, "second": self.second}


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Every edge in C random copies: `kernel` [I, C, O] summed over C; `shared` draws one [C, O] for all inputs.

    The scalar setting of Pensia et al. 2020, Experiment 1: candidates are plain weights, not products.
    """

    inputs: int
    copies: int
    outputs: int
    sampler: Sampler
    shared: bool = False
    gain: float = 1.0
    kind: ClassVar[str] = "parallel"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"kernel": (self.inputs, self.copies, self.outputs)}

    def samplers(self) -> dict[str, Sampler]:
        return {"kernel": self.sampler}


ChainLayer = Linear | Gadget | Parallel
Layer = ChainLayer | Copies
Architecture = tuple[Layer, ...]
"""Layers that chain, or the `Copies` of a model's tensors, which do not."""
LAYERS: dict[str, type[Layer]] = {layer.kind: layer for layer in (Linear, Gadget, Parallel, Copies)}


def chain(architecture: Architecture) -> tuple[ChainLayer, ...]:
    """The layers of a network; refuses a model's tensors, which are not one."""
    layers = tuple(layer for layer in architecture if not isinstance(layer, Copies))
    if len(layers) < len(architecture):
        raise InputError(
            "the ticket of a model's tensors has no network of its own; put its approximated weights into the model"
        )
    return layers


def copies(architecture: Architecture) -> tuple[Copies, ...]:
    """The tensors of a model's ticket; empty for a network."""
    return tuple(layer for layer in architecture if isinstance(layer, Copies))


def target_shape(layer: Layer) -> tuple[int, ...]:
    """Shape of the weights that a layer approximates."""
    return layer.shape if isinstance(layer, Copies) else (layer.inputs, layer.outputs)


@dataclasses.dataclass(frozen=True)
class SourceTensor:
    """One random tensor of an architecture: its name ("0.first"), the shape of its mask, and where it is drawn."""

    name: str
    shape: tuple[int, ...]
    sampler: Sampler
    stream: int


def source_tensors(architecture: Architecture) -> Iterator[SourceTensor]:
    """The random tensors in order; the stream of a tensor is its place, so `unroll` keeps every weight."""
    stream = 0
    for position, layer in enumerate(architecture):
        samplers = layer.samplers()
        for name, shape in layer.shapes().items():
            yield SourceTensor(f"{position}.{name}", shape, samplers[name], stream)
            stream += layer.streams if isinstance(layer, Copies) else 1


def source_weights(architecture: Architecture) -> int:
    """Number of random weights of the source (a `shared` layer counts each drawn weight once).

    >>> gadget = Gadget(784, 5, 500, Sampler.normal(1), Sampler.normal(1))
    >>> source_weights((gadget,))
    1963920
    """
    return sum(math.prod(drawn_shape(layer, s)) for layer in architecture for s in layer.shapes().values())


def drawn_shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what is drawn for a tensor whose mask has `shape`: a shared layer has one row for all inputs."""
    if isinstance(layer, Copies):
        return layer.blocks, layer.copies
    return (1, *shape[1:]) if isinstance(layer, Parallel) and layer.shared else shape


Redraws = dict[str, np.ndarray]
"""Per tensor, int32 rows (input, output, attempt): the block of units of that edge is drawn again from the stream
of that attempt (for a `first` tensor, output is 0 and the block is the units of that input). For `Copies`, int64 rows
(block, attempt)."""


def block_positions(layer: ChainLayer, name: str, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Row-major positions [R, U] of the blocks (inputs[r], :, outputs[r]) of a tensor in its stream."""
    shape = layer.shapes()[name]
    units = np.arange(shape[1], dtype=np.uint32)
    rows = inputs.astype(np.uint32)[:, None]
    if name == "first":
        return rows * np.uint32(layer.inputs * shape[1] + shape[1]) + units
    return (rows * np.uint32(shape[1]) + units) * np.uint32(shape[2]) + outputs.astype(np.uint32)[:, None]


def draw_source(architecture: Architecture, seed: int, redraws: Redraws | None = None) -> dict[str, np.ndarray]:
    """All source tensors, float32, regenerated on the host from the seed.

    >>> layer = Gadget(3, 4, 2, Sampler.uniform(-1, 1), Sampler.uniform(-1, 1))
    >>> {name: tensor.shape for name, tensor in draw_source((layer,), seed=0).items()}
    {'0.first': (3, 4), '0.second': (3, 4, 2)}
    """
    source = {}
    for tensor in source_tensors(architecture):
        place, name = tensor.name.split(".")
        layer, again = architecture[int(place)], (redraws or {}).get(tensor.name)
        if isinstance(layer, Copies):
            source[tensor.name] = draw_copies(layer, seed, tensor.stream, 0, layer.blocks, again)
            continue
        if name == "first":
            if layer.inputs * math.prod(tensor.shape) >= MAX_SIZE:
                raise InputError(
                    f"a gadget of {layer.inputs} inputs with {tensor.shape[1]} units each has a first matrix of over"
                    " 2**32 weights; use fewer candidates or a target with fewer inputs"
                )
            index = block_positions(layer, name, np.arange(layer.inputs), np.zeros(1, np.uint32))
            drawn = draw_at(tensor.sampler, seed_words(seed), tensor.stream, index)
        else:
            shape = drawn_shape(layer, tensor.shape)
            drawn = draw_host(tensor.sampler, seed=seed, stream=tensor.stream, shape=shape)
        for attempt, inputs, outputs in _by_attempt(again):
            index = block_positions(layer, name, inputs, outputs)
            block = draw_at(tensor.sampler, seed_words(seed), tensor.stream + ATTEMPT_STRIDE * attempt, index)
            drawn[(inputs,) if name == "first" else (inputs, slice(None), outputs)] = block
        source[tensor.name] = drawn
    return source


def _by_attempt(rows: np.ndarray | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    if rows is not None:
        for attempt in np.unique(rows[:, 2]):
            chosen = rows[rows[:, 2] == attempt]
            yield int(attempt), chosen[:, 0], chosen[:, 1]


def unroll(architecture: Architecture) -> Architecture:
    """The same random network as a plain ReLU network, each gadget two full layers: Theorem 1's depth 2L source."""
    layers: list[Layer] = []
    for layer in chain(architecture):
        if isinstance(layer, Gadget):
            if not layer.relu:
                raise InputError("a gadget without ReLU does not unroll into a ReLU network")
            hidden = layer.inputs * layer.units
            layers.append(Linear(layer.inputs, hidden, layer.first))
            layers.append(Linear(hidden, layer.outputs, layer.second, gain=layer.gain))
        else:
            layers.append(layer)
    return tuple(layers)


def unroll_masks(architecture: Architecture, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The masks of `unroll(architecture)`: block-column for each first matrix, reshaped for each second."""
    unrolled, position = {}, 0
    for place, layer in enumerate(architecture):
        if isinstance(layer, Gadget):
            first = np.zeros((layer.inputs, layer.inputs, layer.units), bool)
            first[np.arange(layer.inputs), np.arange(layer.inputs)] = masks[f"{place}.first"]
            unrolled[f"{position}.kernel"] = first.reshape(layer.inputs, -1)
            unrolled[f"{position + 1}.kernel"] = masks[f"{place}.second"].reshape(-1, layer.outputs)
            position += 2
        else:
            unrolled[f"{position}.kernel"] = masks[f"{place}.kernel"]
            position += 1
    return unrolled


def to_json(architecture: Architecture) -> list[dict[str, Any]]:
    """Plain dictionaries, one per layer, that `from_json` turns back into the same architecture."""
    return [{"kind": layer.kind, **dataclasses.asdict(layer)} for layer in architecture]


def from_json(rows: list[dict[str, Any]]) -> Architecture:
    """Inverse of `to_json`; raises `InputError` on an unknown layer, a missing field or layers that do not chain."""
    layers: list[Layer] = []
    for row in rows:
        fields = dict(row)
        kind = fields.pop("kind", None)
        if kind not in LAYERS:
            raise InputError(f"layer kind {kind!r} is unknown; {suggest(str(kind), LAYERS)}")
        for name, value in fields.items():
            if isinstance(value, dict):
                fields[name] = Sampler(**value)
        layers.append(LAYERS[kind](**fields))
    check(tuple(layers))
    return tuple(layers)


def check(architecture: Architecture) -> None:
    """Refuse an architecture that is empty, has an empty layer, or whose layers do not chain."""
    if not architecture:
        raise InputError("an architecture needs at least one layer")
    for position, layer in enumerate(architecture):
        for name, shape in layer.shapes().items():
            if min(shape) < 1:
                raise InputError(f"layer {position} is empty: {name} has shape {shape}; every size must be 1 or more")
    tensors = copies(architecture)
    if tensors:
        if len(tensors) < len(architecture) or len({tensor.name for tensor in tensors}) < len(tensors):
            raise InputError("a model's tensors must have different names, and no other layers among them")
        if sum(tensor.streams for tensor in tensors) > ATTEMPT_STRIDE:
            raise InputError(f"the model's tensors need more than {ATTEMPT_STRIDE} streams; approximate it in parts")
        return
    for position, (left, right) in enumerate(itertools.pairwise(chain(architecture))):
        if left.outputs != right.inputs:
            raise InputError(
                f"layer {position} gives {left.outputs} outputs but layer {position + 1} takes {right.inputs} inputs"
            )
