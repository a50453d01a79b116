"""Random weights from a seed, and the random tensors of each kind of random layer (docs/ticket-format.md)."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray
_U32 = np.uint64(0xFFFFFFFF)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(seed: int, stream: Array, block: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds, the words as uint64 below 2**32."""
    keys = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    keys.append(np.uint64(0x1BD11BDA) ^ keys[0] ^ keys[1])
    x0, x1 = (stream + keys[0]) & _U32, (block + keys[1]) & _U32
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = (x0 + x1) & _U32
            x1 = ((x1 << np.uint64(rotation)) | (x1 >> np.uint64(32 - rotation))) & _U32
            x1 ^= x0
        x0 = (x0 + keys[(group + 1) % 3]) & _U32
        x1 = (x1 + keys[(group + 2) % 3] + np.uint64(group + 1)) & _U32
    return x0, x1


def random_bits(seed: int, stream: Array, position: Array) -> Array:
    """32 random bits at positions of streams, uint64."""
    stream, position = np.broadcast_arrays(stream.astype(np.uint64), position.astype(np.uint64))
    even, odd = threefry(seed, stream, position >> np.uint64(1))
    return np.where(position % 2 == 0, even, odd)


def threshold(fraction: float) -> int:
    return min(max(round(fraction * 2.0**32), 1), 2**32 - 1)


def weights_of(sampler: Mapping[str, Any], bits: Array) -> Array:
    """The weights, all present, for random bits; float64 values that are float32 numbers."""
    kind, low, high, scale = sampler["kind"], sampler["low"], sampler["high"], sampler["scale"]
    if kind == "signed_constant":
        return np.where(bits >> np.uint64(31) == 1, 1.0, -1.0) * float(np.float32(scale))
    if kind in ("uniform", "grid"):
        if kind == "grid":
            last = round(1 / scale)
            first, exponent = -last, last.bit_length() - 1
        else:
            exponent = 24 - math.ceil(math.log2(max(abs(low), abs(high))))
            first, last = math.ceil(low * 2.0**exponent), math.floor(high * 2.0**exponent)
        multiple = first + ((bits * np.uint64(last - first + 1)) >> np.uint64(32)).astype(np.int64)
        return multiple * 2.0**-exponent
    return table(kind, low, high, scale)[bits >> np.uint64(16)]


@functools.lru_cache(maxsize=16)
def table(kind: str, low: float, high: float, scale: float) -> Array:
    """The 65,536 equally likely weights of a normal or log-uniform sampler."""
    half = np.arange(32768) + 0.5
    if kind == "normal":
        upper = np.array([NormalDist().inv_cdf(0.5 + place / 65536) for place in half])
        upper = np.round(upper * 2.0**20) / 2.0**20 * scale
    else:
        fraction, exponent = np.frexp(low * (high / low) ** (half / 32768))
        upper = np.ldexp(np.round(fraction * 2.0**20), exponent - 20)
    return np.concatenate([-upper[::-1], upper]).astype(np.float32).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class RandomTensor:
    """A mask's shape, the width of its rows, and where the weights of its blocks lie.

    `layout` is ("contiguous", width), ("repeated", ...) or ("matrix", O, I, K, U, offset, C), or ("diagonal", I, U).
    """

    shape: tuple[int, ...]
    width: int
    sampler: Mapping[str, Any]
    layout: tuple
    stream: int
    rows_per_block: int = 1

    @property
    def rows(self) -> int:
        return math.prod(self.shape) // self.width

    @property
    def blocks(self) -> int:
        return self.rows // self.rows_per_block

    @property
    def per_stream(self) -> int:
        return (2**32 - 1) // self.layout[1] // 8 * 8

    @property
    def streams(self) -> int:
        return (self.blocks - 1) // self.per_stream + 1 if self.layout[0] == "contiguous" else 1

    def positions(self, blocks: Array) -> tuple[Array, Array]:
        """Streams relative to the first, and positions, [B, width]."""
        columns, kind = np.arange(self.width), self.layout[0]
        if kind == "contiguous":
            stream, index = np.divmod(blocks, self.per_stream)
            return stream[:, None] + 0 * columns, index[:, None] * self.width + columns
        if kind == "diagonal":
            _, inputs, units = self.layout
            position = blocks * (inputs * units + units)
            return np.zeros((len(blocks), self.width), np.int64), position[:, None] + columns
        _, outputs, inputs, size, units, offset, copies = self.layout
        weight, copy = np.divmod(blocks, copies)
        output, rest = np.divmod(weight, inputs * size)
        source, place = np.divmod(rest, size)
        start = offset + (source * units * size + place) * outputs * copies + output * copies + copy
        step = 0 if kind == "repeated" else size * outputs * copies
        return np.zeros((len(blocks), self.width), np.int64), start[:, None] + columns * step

    def draw(self, seed: int, blocks: Array, attempts: Array) -> tuple[Array, Array]:
        """Weights [B, width], 0 if absent, and forced entries: -1 absent, 1 locked, 0 free."""
        stream, position = self.positions(blocks)
        stream = self.stream + stream + 65536 * attempts[:, None]
        weights = weights_of(self.sampler, random_bits(seed, stream, position))
        density, locked = self.sampler.get("density", 1.0), self.sampler.get("locked", 0.0)
        forced, bits = np.zeros(weights.shape, np.int8), random_bits(seed, stream ^ 2**30, position)
        if density < 1:
            forced[bits >= threshold(density)] = -1
        if locked > 0:
            forced[(bits < threshold(locked)) & (forced == 0)] = 1
        return np.where(forced < 0, 0.0, weights), forced


def linear_shapes(layer: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a layer that random layers wrap."""
    if layer["kind"] == "named_tensor":
        return {"": tuple(layer["shape"])}
    kernel = kernel_shape(layer)
    weight = {"weight": (layer["outputs"], layer["inputs"] // layer.get("groups", 1), *kernel)}
    return weight | ({"bias": (layer["outputs"],)} if layer["bias"] else {})


def kernel_shape(layer: Mapping[str, Any]) -> tuple[int, ...]:
    if layer["kind"] == "conv":
        return tuple(layer["size"])
    return (layer["rotations"], layer["size"], layer["size"]) if layer["kind"] == "rotation_conv" else ()


def copies_of(node: Mapping[str, Any]) -> int:
    """Rows of a mask for each target weight: one for each copy of an output."""
    names = {"replicated_neurons": "output_copies", "replicated_gadget": "copies"}
    return node[names[node["kind"]]] if node["kind"] in names else 1


def random_tensors(node: Mapping[str, Any]) -> dict[str, RandomTensor]:
    """The random tensors of a random layer by name; streams are relative to the layer's first."""
    kind, layer, shapes = node["kind"], node["layer"], linear_shapes(node["layer"])
    if kind == "candidates_per_weight":
        found, stream, width = {}, 0, node["candidates"]
        for (name, shape), sampler in zip(shapes.items(), node["samplers"], strict=True):
            shared = math.prod(shape[1:]) if node["shared"] else 1
            tensor = RandomTensor((*shape, width), width, sampler, ("contiguous", width), stream, shared)
            found[name], stream = tensor, stream + tensor.streams
        return found
    outputs, bias = layer["outputs"], layer["bias"]
    inputs, size = layer["inputs"] // layer.get("groups", 1), math.prod(kernel_shape(layer))
    if kind in ("random_layer", "multi_level_layer", "trained_layer", "partly_trained_layer"):
        width, word = (len(node["factors"]), "repeated") if kind == "multi_level_layer" else (1, "matrix")
        tail = (width,) if kind == "multi_level_layer" else ()
        layouts = {"weight": (word, outputs, inputs, size, 1, 0, 1), "bias": (word, outputs, 1, 1, 1, 0, 1)}
        found = {}
        for stream, (name, shape) in enumerate(shapes.items()):
            found[name] = RandomTensor((*shape, *tail), width, node["sampler"], layouts[name], stream)
        if kind == "trained_layer":
            return {"weight": found["weight"]}
        return {"weight": found["weight"], "frozen": found["weight"]} if kind == "partly_trained_layer" else found
    copies = copies_of(node)
    if kind == "replicated_neurons":
        units, sampler, first = node["input_copies"], node["sampler"], 0
    else:
        signs = {"kind": "signed_constant", "low": -1.0, "high": 1.0, "scale": 1.0}
        units, sampler, first = node["units"], node.get("second", signs), 1
    offset = inputs * units * size * outputs * copies
    layouts = {
        "weight": ("matrix", outputs, inputs, size, units, 0, copies),
        "bias": ("matrix", outputs, 1, 1, units, offset, copies),
    }
    axes = (copies, units) if kind.startswith("replicated") else (units,)
    found = {
        name: RandomTensor((*shape, *axes), units, sampler, layouts[name], first) for name, shape in shapes.items()
    }
    if kind == "replicated_neurons":
        return found
    channels = layer["inputs"] + bias
    edges = {
        "first": RandomTensor((channels, units), units, node.get("first", sampler), ("diagonal", channels, units), 0)
    }
    stream = 2
    for number in range(1, node.get("rungs", 0) + 1):
        edge = RandomTensor((channels, units, units), units, sampler, ("contiguous", units), stream)
        edges[f"rung{number}"], stream = edge, stream + edge.streams
    return edges | found
