"""The functions of all kinds of layers, float64, as docs/ticket-format.md defines them. Examples are the first axis."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.oracle.operations import OPERATIONS, operate

Node = Mapping[str, Any]
Array = np.ndarray


Pair = tuple[int, int]


def windows(x: Array, size: Pair, stride: Pair, padding: Pair, fill: float, apart: Pair = (1, 1)) -> Array:
    """All windows of x [B, H, W, C], padded with `fill`: [B, H', W', C, h, w] of positions this far apart."""
    (above, left), zero = padding, (0, 0)
    padded = np.pad(x, (zero, (above, above), (left, left), zero), constant_values=fill)
    whole = tuple(step * (length - 1) + 1 for length, step in zip(size, apart, strict=True))
    found = np.lib.stride_tricks.sliding_window_view(padded, whole, axis=(1, 2))
    return found[:, :: stride[0], :: stride[1], :, :: apart[0], :: apart[1]]


def dense(node: Node, x: Array, weight: Array) -> Array:
    return x @ weight.T


def conv(node: Node, x: Array, weight: Array) -> Array:
    groups, seen = (
        node["groups"],
        windows(x, node["size"], node["stride"], node["padding"], 0.0, node.get("dilation", (1, 1))),
    )
    (batch, height, width, *_), outputs = seen.shape, weight.shape[0]
    flat = seen.reshape(batch, height, width, groups, -1)
    return np.einsum("bhwgi,goi->bhwgo", flat, weight.reshape(groups, outputs // groups, -1)).reshape(
        batch, height, width, outputs
    )


def rotation_conv(node: Node, x: Array, weight: Array) -> Array:
    count, found = node["rotations"], []
    fields = [x] if count == 1 else [x[:, s] for s in range(4)]
    plain = {"size": (node["size"],) * 2, "stride": (1, 1), "padding": (node["padding"],) * 2, "groups": 1}
    for r in range(4):
        turned = [np.rot90(weight[:, :, (s - r) % count], r, (2, 3)) for s in range(count)]
        found.append(sum(conv(plain, field, kernel) for field, kernel in zip(fields, turned, strict=True)))
    return np.stack(found, 1)


LINEAR: dict[str, Callable[[Node, Array, Array], Array]] = {
    "dense": dense,
    "conv": conv,
    "rotation_conv": rotation_conv,
}
"""Linear layers without their bias, which is added along the last axis."""


def pooled(node: Node, x: Array, fill: float) -> Array:
    return windows(x, node["size"], node["stride"] or node["size"], node["padding"], fill)


def gelu(x: Array, approximate: bool) -> Array:
    if approximate:
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


STATELESS: dict[str, Callable[[Node, Array], Array]] = {
    "relu": lambda node, x: np.maximum(x, 0),
    "leaky_relu": lambda node, x: np.where(x >= 0, x, node["slope"] * x),
    "tanh": lambda node, x: np.tanh(x),
    "sigmoid": lambda node, x: sigmoid(x),
    "gelu": lambda node, x: gelu(x, node["approximate"]),
    "max_pool": lambda node, x: pooled(node, x, -np.inf).max((-2, -1)),
    "average_pool": lambda node, x: pooled(node, x, 0.0).mean((-2, -1)),
    "global_pool": lambda node, x: x.mean(tuple(range(1, x.ndim - 1))),
    "flatten": lambda node, x: np.moveaxis(x, -1, 1).reshape(len(x), -1),
    "tokens": lambda node, x: x.reshape(len(x), -1, x.shape[-1]),
    "normalize": lambda node, x: (x - np.array(node["mean"])) / np.array(node["deviation"]),
}


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attend(qkv: Array, heads: int) -> Array:
    """The heads' outputs [B, T, D] from queries, keys and values [B, T, 3 D]."""
    batch, tokens, wide = qkv.shape
    query, key, value = np.moveaxis(qkv.reshape(batch, tokens, 3, heads, -1), 2, 0)
    scores = np.einsum("bthd,bshd->bhts", query, key) / math.sqrt(query.shape[-1])
    return np.einsum("bhts,bshd->bthd", softmax(scores), value).reshape(batch, tokens, wide // 3)


def attend_merged(queries: Array, x: Array, heads: int) -> Array:
    """The heads' means of tokens [B, T, heads D] from a_t [B, T, heads D] and the tokens [B, T, D]."""
    split = queries.reshape(*x.shape[:2], heads, -1)
    attention = softmax(np.einsum("bthd,bsd->bhts", split, x))
    return np.einsum("bhts,bsd->bthd", attention, x).reshape(*x.shape[:2], -1)


def child_path(path: str, name: str) -> str:
    """A path with one more name; an empty name and a name in parentheses add nothing."""
    if name.startswith("("):
        return path
    return f"{path}.{name}" if path and name else path or name


CHILDREN = {"attention": ("qkv", "proj"), "merged_attention": ("qk", "vo")}


def children(node: Node) -> dict[str, Node]:
    """The nodes inside a node, by name, in order."""
    kind = node["kind"]
    if kind in ("chain", "tensor_dict", "graph"):
        return {name: child for name, child, *_ in node["nodes"]}
    if kind == "residual":
        return {"(body)": node["body"], "downsample": node["shortcut"]}
    return {name: node[name] for name in CHILDREN.get(kind, ())}


Mix = tuple[Callable[..., Any], Callable[..., Any]]
"""Attention of (qkv, heads), and merged attention of (queries, x, heads)."""


Operate = Callable[[Node, list[Any], list[bool]], Any]
"""An operation of (node, inputs, which of them have a batch axis)."""


def run(
    node: Node,
    path: str,
    x: Any,
    layer: Callable[[Node, str, Any], Any],
    mix: Mix = (attend, attend_merged),
    operate: Operate = operate,
) -> Any:
    """A tree of nodes on x [B, *input], arrays or what `layer`, `mix` and `operate` take in their place.

    `layer` is called for each node without children, also for stored tensors of graphs, with the graph's input.
    """
    inside, kind = children(node), node["kind"]

    def child(name: str, x: Any) -> Any:
        return run(inside[name], child_path(path, name), x, layer, mix, operate)

    if kind == "chain":
        for name in inside:
            x = child(name, x)
        return x
    if kind == "graph":
        values, batched = {"input": x}, {"input"}
        for name, inner, names in node["nodes"]:
            given, many = [values[one] for one in names], [one in batched for one in names]
            if any(many):
                batched.add(name)
            if inner["kind"] in OPERATIONS:
                values[name] = operate(inner, given, many)
            elif inner["kind"] == "stored":
                values[name] = child(name, x)
            else:
                values[name] = child(name, given[0]) if any(many) else child(name, given[0][None])[0]
        return values[node["output"]]
    if kind == "residual":
        body, shortcut = (child(name, x) for name in inside)
        return body + shortcut
    if kind in CHILDREN:
        (first, second), heads = inside, node["heads"]
        asked = child(first, x)
        mixed = mix[0](asked, heads) if kind == "attention" else mix[1](asked, x, heads)
        return child(second, mixed)
    return layer(node, path, x)


def plain_layer(node: Node, x: Array, tensors: Mapping[str, Array]) -> Array:
    """A layer that is not random, with its tensors by their own names."""
    kind = node["kind"]
    if kind in LINEAR:
        return LINEAR[kind](node, x, tensors["weight"]) + (tensors["bias"] if node["bias"] else 0.0)
    if kind == "batch_norm":
        scaled = (x - tensors["running_mean"]) / np.sqrt(tensors["running_var"] + node["epsilon"])
        return scaled * tensors["weight"] + tensors["bias"] if node["affine"] else scaled
    if kind == "layer_norm":
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + node["epsilon"])
        return centred / deviation * tensors["weight"] + tensors["bias"]
    if kind == "position_embedding":
        return x + tensors[""][0]
    if kind == "stored":
        return tensors[""]
    return STATELESS[kind](node, x)
