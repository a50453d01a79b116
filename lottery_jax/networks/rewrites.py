"""Batch normalisation folded into the layer before it: the same function with one leaf less to approximate.

With y = W x + b and the running mean m, variance v, factor g and shift s of the normalisation, g (y - m) / sqrt(v + e)
+ s is (f W) x + f (b - m) + s with f = g / sqrt(v + e): a layer of the same kind, with a bias (Burkholz 2022b).

Targets whose weights lie on a grid with a step that is a power of two, and how fine the grid of a tensor is.
Attention as the products of its projections: the same function with two matrices for four.

The score of tokens t and s in a head is (W_Q x_t + b_Q) . (W_K x_s + b_K) / sqrt(d), d the head's size. Its terms
without x_s are the same for all s, so softmax does not see them, and what is left is (A x_t + c) . x_s with
A = W_K^T W_Q / sqrt(d) and c = W_K^T b_Q / sqrt(d). What the head then adds is W_O (W_V m + b_V) for a mean m of the
tokens, for its shares sum to 1: W_O W_V is one matrix, and W_O b_V part of a bias (Otsuka et al. 2025, arXiv
2511.04217). For heads of d features out of D both matrices are D x D, h / 2 times the weights of the four for h heads.
"""

import dataclasses
import itertools
import math

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import read_float64
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, child_path
from lottery_jax.networks.target import Target


@dataclasses.dataclass(frozen=True)
class BatchNormFold:
    """A normalisation that goes into an operation: their paths, and what they are."""

    layer: str
    norm: str
    node: BatchNorm


def batch_norm_folds(network: Network) -> list[BatchNormFold]:
    """What `fold_batch_norm` folds: each batch normalisation right behind an operation of the same chain."""
    return list(_found(network.root, ""))


def fold_batch_norm(target: Target) -> Target:
    """The target without its batch normalisations; computed in float64, rounded to float32.

    A target without any is returned as it is. Raises `InputError` for one that stands behind no operation.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> network = Network(Chain((("fc", Dense(1, 1)), ("bn", BatchNorm(1, affine=False)))), Spec((1,)))
    >>> values = {"fc.weight": [[2.0]], "bn.running_mean": [3.0], "bn.running_var": [4.0 - 1e-5]}
    >>> same = fold_batch_norm(Target(network, {name: np.array(value, np.float32) for name, value in values.items()}))
    >>> {name: same.array(name).tolist() for name in same.network.tensors}
    {'fc.weight': [[1.0]], 'fc.bias': [-1.5]}
    """
    found = {fold.layer: fold for fold in batch_norm_folds(target.network)}
    norms = {fold.norm for fold in found.values()}
    left = [path for path, node in target.network.nodes() if isinstance(node, BatchNorm) and path not in norms]
    if left:
        raise InputError(
            f"the batch normalisation {left[0]!r} stands behind no dense layer or convolution, so it cannot be folded;"
            " constructions need one in front of it"
        )
    if not found:
        return target
    network = Network(_without(target.network.root, "", set(found), norms), target.network.input_spec)
    arrays = {}
    for path, fold in found.items():
        operation = target.network.weight_nodes[path]
        arrays |= _folded_arrays(target, fold, biased="bias" in operation.tensors())
    for name in network.tensors:
        if name not in arrays:
            arrays[name] = target.array(name)
    return Target(network, {name: arrays[name] for name in network.tensors})  # type: ignore[arg-type]


def scale_and_shift(target: Target, fold: BatchNormFold) -> tuple[np.ndarray, np.ndarray]:
    """What a normalisation multiplies by and then adds, float64 [features] each."""
    read = {name: target.array(child_path(fold.norm, name)).astype(np.float64) for name in fold.node.tensors()}
    scale = read.get("weight", 1.0) / np.sqrt(read["running_var"] + fold.node.epsilon)
    return scale, read.get("bias", 0.0) - scale * read["running_mean"]


def _folded_arrays(target: Target, fold: BatchNormFold, biased: bool) -> dict[str, np.ndarray]:
    scale, shift = scale_and_shift(target, fold)
    weight = target.array(child_path(fold.layer, "weight")).astype(np.float64)
    bias = target.array(child_path(fold.layer, "bias")).astype(np.float64) if biased else 0.0
    exact = {"weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), "bias": bias * scale + shift}
    return {child_path(fold.layer, name): value.astype(np.float32) for name, value in exact.items()}


def _found(node: Node, path: str):
    children = node.children()
    names = list(children)
    for name, child in children.items():
        yield from _found(child, child_path(path, name))
    if isinstance(node, Chain):
        for name, following in itertools.pairwise(names):
            operation, norm = children[name], children[following]
            if isinstance(operation, LinearLayer) and isinstance(norm, BatchNorm):
                yield BatchNormFold(child_path(path, name), child_path(path, following), norm)


def _without(node: Node, path: str, operations: set[str], norms: set[str]) -> Node:
    """The tree without the folded normalisations, the operations before them with biases."""
    if path in operations and isinstance(node, LinearLayer):
        return dataclasses.replace(node, bias=True)
    children = {
        name: _without(child, child_path(path, name), operations, norms)
        for name, child in node.children().items()
        if child_path(path, name) not in norms or not isinstance(child, BatchNorm)
    }
    return node.with_children(children) if children or node.children() else node


MAX_TARGET_BITS = 24
"""Of a tensor's grid: what a float32 holds."""

_SLICE = 1 << 20  # weights looked at at once


def quantise(target: Target, bits: int) -> Target:
    """The target with each approximated tensor rounded to 2**bits steps of a power of two between -m and m, float32.

    m is the power of two from the tensor's largest |weight| up. Batch normalisations are folded first; stored tensors
    stay as they are.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> quantise(mlp_target([np.array([[0.3, -0.2]], np.float32)]), 3).array("fc1.weight").tolist()
    [[0.25, -0.25]]
    """
    check_target_bits(bits)
    target = fold_batch_norm(target)
    arrays = target.arrays()
    for name in target.network.approximated:
        largest = target.scan(name).largest
        if largest == 0:
            continue
        fraction, exponent = math.frexp(largest)
        step = exponent - (fraction == 0.5) + 1 - bits
        exact = np.asarray(target.array(name)).astype(np.float64)
        with np.errstate(over="ignore"):
            arrays[name] = np.ldexp(np.round(np.ldexp(exact, -step)), step).astype(np.float32)
    return Target(target.network, arrays)  # type: ignore[arg-type]


def check_target_bits(bits: int) -> None:
    """Refuse what is no number of bits for a quantised target; raises `InputError`."""
    if type(bits) is not int or not 1 <= bits <= MAX_TARGET_BITS:
        raise InputError(f"bits of a quantised target are from 1 to {MAX_TARGET_BITS}, not {bits!r}; 8 are usual")


def grid_exponent(target: Target, name: str) -> int | None:
    """The largest e such that every weight of a tensor is a multiple of 2**e; None where all are 0.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> grid_exponent(mlp_target([np.array([[0.75, -1.5]], np.float32)]), "fc1.weight")
    -2
    """
    size, found = target.tensors.tensors[name].size, None
    for start in range(0, size, _SLICE):
        values = read_float64(target.tensors, name, start, min(_SLICE, size - start))
        fraction, exponent = np.frexp(values[values != 0])
        whole = np.ldexp(fraction, 53).astype(np.int64)
        lowest = np.frexp((whole & -whole).astype(np.float64))[1] - 1  # its last bit that is set
        if len(whole):
            least = int((exponent - 53 + lowest).min())
            found = least if found is None else min(found, least)
    return found


def merge_attention(target: Target) -> Target:
    """The target with merged attention in place of attention; computed in float64, rounded to float32.

    A target without attention between dense layers is returned as it is.

    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.node import Spec
    >>> network = Network(Chain((("attn", Attention(1, Dense(1, 3), Dense(1, 1))),)), Spec((4, 1)))
    >>> values = {"attn.qkv.weight": [[2.0], [3.0], [5.0]], "attn.proj.weight": [[7.0]]}
    >>> same = merge_attention(Target(network, {name: np.array(value, np.float32) for name, value in values.items()}))
    >>> {name: same.array(name).tolist() for name in same.network.tensors}
    {'attn.qk.weight': [[6.0]], 'attn.vo.weight': [[35.0]]}
    """
    found = {
        path: node.heads for path, node in target.network.nodes() if isinstance(node, Attention) and _merged_shape(node)
    }
    if not found:
        return target
    network = Network(_replaced(target.network.root), target.network.input_spec)
    arrays = {name: value for path, heads in found.items() for name, value in _products(target, path, heads).items()}
    for name in network.tensors:
        if name not in arrays:
            arrays[name] = target.array(name)
    return Target(network, {name: arrays[name] for name in network.tensors})  # type: ignore[arg-type]


def match_rewrites(target: Target, network: Network) -> Target:
    """The target in the form in which a ticket's network has it: folded, and merged where that has merged attention."""
    same = fold_batch_norm(target)
    return merge_attention(same) if any(isinstance(node, MergedAttention) for _, node in network.nodes()) else same


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
