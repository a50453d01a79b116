"""Graphs for tests: the same function as a tree of layers, and graphs that no tree of layers is."""

import math

from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph, Step
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Constant,
    DotGeneral,
    Elementwise,
    Reduce,
    Reshape,
    Slice,
    Stored,
    Transpose,
)
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec, child_path


class Builder:
    """A graph that grows by one node at a time; names that do not matter are numbers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, node: Node, *inputs: str, name: str = "") -> str:
        """Add a node; returns its name."""
        name = name or f"n{len(self.steps)}"
        self.steps.append((name, node, inputs))
        return name

    def graph(self, output: str) -> Graph:
        return Graph(tuple(self.steps), output)


def as_graph(network: Network) -> Network:
    """The same network as one graph: sequences, residual blocks, attention and ReLU become nodes and operations.

    Layers keep their paths and their order, so that their random weights have the same streams.
    """
    assert network.input_spec is not None
    builder = Builder()
    output, _ = _flat(builder, network.root, "", INPUT, network.input_spec)
    return Network(builder.graph(output), network.input_spec, share_layers=network.share_layers)


def _flat(builder: Builder, node: Node, path: str, value: str, spec: Spec) -> tuple[str, Spec]:
    """Add a node and those inside; returns the name of its output and its spec."""
    output = node.output_spec(spec)
    if isinstance(node, Chain):
        for name, child in node.nodes:
            value, spec = _flat(builder, child, child_path(path, name), value, spec)
        return value, spec
    if isinstance(node, Residual):
        body, _ = _flat(builder, node.body, path, value, spec)
        shortcut, _ = _flat(builder, node.shortcut, child_path(path, "downsample"), value, spec)
        return builder.add(Binary("add"), body, shortcut), output
    if isinstance(node, Attention) and isinstance(node.qkv, Dense):
        joined, _ = _flat(builder, node.qkv, child_path(path, "qkv"), value, spec)
        mixed = attention(builder, joined, spec.shape[0], spec.shape[1], node.heads)
        return _flat(builder, node.proj, child_path(path, "proj"), mixed, spec)
    if isinstance(node, Relu):
        return builder.add(Binary("max"), value, builder.add(Constant(0.0))), output
    named = bool(path) and all(path != name for name, *_ in builder.steps)
    return builder.add(node, value, name=path if named else ""), output


def attention(builder: Builder, joined: str, tokens: int, size: int, heads: int) -> str:
    """Softmax attention [T, D] from queries, keys and values [T, 3 D], of two dot products."""
    parts = []
    for number in range(3):
        own = Slice((0, number * size), (tokens, (number + 1) * size), (1, 1))
        parts.append(builder.add(Reshape((tokens, heads, size // heads)), builder.add(own, joined)))
    query, key, value = parts
    scores = builder.add(DotGeneral((2,), (2,), (1,), (1,)), query, key)  # [heads, T, T]
    scaled = builder.add(Binary("mul"), scores, builder.add(Constant(1 / math.sqrt(size // heads))))
    shares = softmax(builder, scaled, (heads, tokens, tokens))
    mixed = builder.add(DotGeneral((2,), (0,), (0,), (1,)), shares, value)  # [heads, T, d]
    return builder.add(Reshape((tokens, size)), builder.add(Transpose((1, 0, 2)), mixed))


def softmax(builder: Builder, scores: str, shape: tuple[int, ...]) -> str:
    """Softmax over the last axis, of elementary operations."""
    last, column = len(shape) - 1, (*shape[:-1], 1)

    def over_last(function: str, value: str) -> str:
        reduced = builder.add(Reduce(function, (last,)), value)  # type: ignore[arg-type]
        return builder.add(Broadcast(shape), builder.add(Reshape(column), reduced))

    powers = builder.add(Elementwise("exp"), builder.add(Binary("sub"), scores, over_last("max", scores)))
    return builder.add(Binary("div"), powers, over_last("sum", powers))


def layer_norm(builder: Builder, value: str, shape: tuple[int, ...], epsilon: float, name: str) -> str:
    """Layer normalisation over the last axis, of elementary operations; `name` is the path of its two tensors."""
    last, column, count = len(shape) - 1, (*shape[:-1], 1), builder.add(Constant(1 / shape[-1]))

    def mean(value: str) -> str:
        total = builder.add(Reduce("sum", (last,)), value)
        return builder.add(Reshape(column), builder.add(Binary("mul"), total, count))

    centred = builder.add(Binary("sub"), value, mean(value))
    variance = builder.add(
        Binary("add"), mean(builder.add(Elementwise("square"), centred)), builder.add(Constant(epsilon))
    )
    scaled = builder.add(Binary("mul"), centred, builder.add(Elementwise("rsqrt"), variance))
    weight, bias = (builder.add(Stored(shape[-1:]), name=f"{name}.{own}") for own in ("weight", "bias"))
    return builder.add(Binary("add"), builder.add(Binary("mul"), scaled, weight), bias)
