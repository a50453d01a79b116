"""Attention as the products of its projections: the same function with two matrices for four.

The score of tokens t and s in a head is (W_Q x_t + b_Q) . (W_K x_s + b_K) / sqrt(d), d the head's size. Its terms
without x_s are the same for all s, so softmax does not see them, and what is left is (A x_t + c) . x_s with
A = W_K^T W_Q / sqrt(d) and c = W_K^T b_Q / sqrt(d). What the head then adds is W_O (W_V m + b_V) for a mean m of the
tokens, for its shares sum to 1: W_O W_V is one matrix, and W_O b_V part of a bias (Otsuka et al. 2025, arXiv
2511.04217). For heads of d features out of D both matrices are D x D, h / 2 times the weights of the four for h heads.
"""

import math

import numpy as np

from lottery_jax.networks.fold import folded
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.merged_attention import MergedAttention
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, child_path
from lottery_jax.networks.target import Target


def merged(target: Target) -> Target:
    """The target with merged attention in place of attention; computed in float64, rounded to float32.

    A target without attention between dense layers is returned as it is.

    >>> from lottery_jax.networks.layers.chain import Chain
    >>> from lottery_jax.networks.node import Spec
    >>> network = Network(Chain((("attn", Attention(1, Dense(1, 3), Dense(1, 1))),)), Spec((4, 1)))
    >>> values = {"attn.qkv.weight": [[2.0], [3.0], [5.0]], "attn.proj.weight": [[7.0]]}
    >>> same = merged(Target(network, {name: np.array(value, np.float32) for name, value in values.items()}))
    >>> {name: same.array(name).tolist() for name in same.network.tensors}
    {'attn.qk.weight': [[6.0]], 'attn.vo.weight': [[35.0]]}
    """
    found = {
        path: node.heads for path, node in target.network.nodes() if isinstance(node, Attention) and _merged_shape(node)
    }
    if not found:
        return target
    network = Network(_replaced(target.network.root), target.network.given)
    arrays = {name: value for path, heads in found.items() for name, value in _products(target, path, heads).items()}
    for name in network.tensors:
        if name not in arrays:
            arrays[name] = target.array(name)
    return Target(network, {name: arrays[name] for name in network.tensors})  # type: ignore[arg-type]


def as_in(target: Target, network: Network) -> Target:
    """The target in the form in which a ticket's network has it: folded, and merged where that has merged attention."""
    same = folded(target)
    return merged(same) if any(isinstance(node, MergedAttention) for _, node in network.nodes()) else same


def _merged_shape(node: Node) -> MergedAttention | None:
    """What a node becomes, None where it stays."""
    if not (isinstance(node, Attention) and isinstance(node.qkv, Dense) and isinstance(node.proj, Dense)):
        return None
    size, wide = node.qkv.inputs, node.heads * node.qkv.inputs
    qk, vo = Dense(size, wide, bias=node.qkv.bias), Dense(wide, size, bias=node.qkv.bias or node.proj.bias)
    return MergedAttention(node.heads, qk, vo)


def _replaced(node: Node) -> Node:
    if found := _merged_shape(node):
        return found
    children = node.children()
    return node.with_children({name: _replaced(child) for name, child in children.items()}) if children else node


def _products(target: Target, path: str, heads: int) -> dict[str, np.ndarray]:
    """The tensors of a merged attention, float32, by their full names."""

    def read(leaf: str, name: str, missing: int) -> np.ndarray:
        full = child_path(child_path(path, leaf), name)
        return target.array(full).astype(np.float64) if full in target.network.tensors else np.zeros(missing)

    joined, out = read("qkv", "weight", 0), read("proj", "weight", 0)
    size = joined.shape[1]
    query, key, value = joined.reshape(3, heads, -1, size)
    query_bias, _, value_bias = read("qkv", "bias", 3 * size).reshape(3, heads, -1, 1)
    by_head = out.reshape(size, heads, -1).transpose(1, 0, 2)  # [heads, D, d]
    scale = 1 / math.sqrt(query.shape[1])
    bias = read("proj", "bias", size) + sum(_product(*both)[:, 0] for both in zip(by_head, value_bias, strict=True))
    exact = {
        "qk.weight": np.concatenate([scale * _product(k.T, q) for k, q in zip(key, query, strict=True)]),
        "qk.bias": np.concatenate([scale * _product(k.T, b)[:, 0] for k, b in zip(key, query_bias, strict=True)]),
        "vo.weight": np.concatenate([_product(o, v) for o, v in zip(by_head, value, strict=True)], 1),
        "vo.bias": bias,
    }
    with np.errstate(over="ignore"):  # what is beyond float32 is refused where the target is read
        return {child_path(path, name): values.astype(np.float32) for name, values in exact.items()}


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left [O, d] @ right [d, I], summed in the order of d: to the last bit the same on every machine."""
    total = np.zeros((left.shape[0], right.shape[1]))
    for column, row in zip(left.T, right, strict=True):
        total += column[:, None] * row
    return total
