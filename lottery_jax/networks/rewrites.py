"""Rewrites of targets before they are approximated: fold batch normalisation, merge attention, quantise.

Folding: with y = W x + b and a batch normalisation of running mean m, variance v, weight g and bias s, the output
g (y - m) / sqrt(v + e) + s is (f W) x + f (b - m) + s with f = g / sqrt(v + e) (Burkholz 2022b).

Merging: the score of tokens t and s in a head of size d is (W_Q x_t + b_Q) . (W_K x_s + b_K) / sqrt(d). Softmax ignores
terms without x_s, so the score is (A x_t + c) . x_s with A = W_K^T W_Q / sqrt(d) and c = W_K^T b_Q / sqrt(d). The head
adds W_O (W_V m + b_V) for a weighted mean m of tokens: W_O W_V is one matrix and W_O b_V part of a bias (Otsuka et al.
2025, arXiv 2511.04217). Both matrices are D x D for D features: h / 2 times the weights of the four for h heads.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import read_float64
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import Graph
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, child_path
from lottery_jax.networks.target import Target


@dataclasses.dataclass(frozen=True)
class BatchNormFold:
    """A batch normalisation and the linear layer that it is folded into: their paths, and the normalisation."""

    layer: str
    norm: str
    node: BatchNorm


def batch_norm_folds(network: Network) -> list[BatchNormFold]:
    """The batch normalisations that alone take the output of a linear layer: those that `fold_batch_norm` folds."""
    folds, found = {}, []
    for path, node in network.nodes():
        for (name, layer), (following, norm) in _sole_readers(node):
            if isinstance(layer, LinearLayer) and isinstance(norm, BatchNorm):
                fold = BatchNormFold(child_path(path, name), child_path(path, following), norm)
                folds[fold.layer] = fold
        if isinstance(node, LinearLayer) and path in folds:  # in the order of the layers
            found.append(folds[path])
    return found


_Named = tuple[str, Node]


def _sole_readers(node: Node) -> Iterable[tuple[_Named, _Named]]:
    """Pairs of children of a sequence or graph, of which the second one alone takes the output of the first one."""
    if isinstance(node, Chain):
        return itertools.pairwise(node.nodes)
    if not isinstance(node, Graph):
        return ()
    children = node.children()
    reads = collections.Counter([node.output, *(one for *_, inputs in node.nodes for one in inputs)])
    return [
        ((one, children[one]), (name, child))
        for name, child, inputs in node.nodes
        for one in inputs
        if one in children and reads[one] == 1
    ]


def fold_batch_norm(target: Target) -> Target:
    """The target with its batch normalisations folded into the linear layers in front of them.

    The new weights are computed in float64 and rounded to float32. A target without batch normalisation is returned
    unchanged.

    Raises:
        InputError: If a batch normalisation does not follow a linear layer.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> network = Network(Chain((("fc", Dense(1, 1)), ("bn", BatchNorm(1, affine=False)))), Spec((1,)))
    >>> values = {"fc.weight": [[2.0]], "bn.running_mean": [3.0], "bn.running_var": [4.0 - 1e-5]}
    >>> same = fold_batch_norm(Target(network, {name: np.array(value, np.float32) for name, value in values.items()}))
    >>> {name: same.array(name).tolist() for name in same.network.tensors}
    {'fc.weight': [[1.0]], 'fc.bias': [-1.5]}
    """
    network = _folded_network(target.network)
    if network is target.network:
        return target
    arrays = {}
    for fold in batch_norm_folds(target.network):
        arrays |= _folded_arrays(target, fold)
    return _with_arrays(target, network, arrays)


def neutral_norms(network: Network, biases: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Batch normalisations that only add the folded biases, and zeros for the biases of their layers, float64.

    Args:
        network: A network with batch normalisations.
        biases: Of its folded layers, by full name; the normalisations of other layers are omitted.
    """
    found = {}
    for fold in batch_norm_folds(network):
        name = child_path(fold.layer, "bias")
        if name not in biases:
            continue
        bias = biases[name].astype(np.float64)
        ones, zeros = np.ones_like(bias), np.zeros_like(bias)
        neutral = {"weight": ones, "bias": zeros, "running_mean": -bias}
        neutral["running_var"] = (1 - fold.node.epsilon) * ones
        for own in fold.node.tensors():
            found[child_path(fold.norm, own)] = neutral[own]
        if name in network.tensors:
            found[name] = zeros
    return found


def unfold_batch_norm(network: Network, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with which a network computes what its folded form computes with `tensors`, float32.

    Raises:
        InputError: The tensors are not those of the folded form, nor of the network itself.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> network = Network(Chain((("fc", Dense(1, 1)), ("bn", BatchNorm(1, affine=False)))), Spec((1,)))
    >>> found = unfold_batch_norm(network, {"fc.weight": np.array([[2.0]]), "fc.bias": np.array([3.0])})
    >>> {name: value.tolist() for name, value in found.items()}
    {'fc.weight': [[2.0]], 'bn.running_mean': [-3.0], 'bn.running_var': [0.9999899864196777]}
    """
    shapes, values = {name: value.shape for name, value in tensors.items()}, dict(tensors)
    if shapes != network.tensors:
        folded = _folded_network(network).tensors
        for name in (*folded, *shapes):
            found, expected = (str(list(of[name])) if name in of else "nothing" for of in (folded, shapes))
            if found != expected:
                raise InputError(
                    f"network must be the one that was folded, with {expected} for {name!r} after folding, got {found}."
                    " Pass the network of the target."
                )
        values |= neutral_norms(network, tensors)
    return {name: values[name].astype(np.float32) for name in network.tensors}


def _folded_network(network: Network) -> Network:
    """The network without its batch normalisations; raises `InputError` if one of them cannot be folded."""
    folds, layers, norms = batch_norm_folds(network), set(), set()
    for fold in folds:
        layers.add(fold.layer)
        norms.add(fold.norm)
    for path, node in network.nodes():
        if isinstance(node, BatchNorm) and path not in norms:
            raise InputError(
                f"the batch normalisation {path!r} must follow a dense layer or a convolution to be folded into it."
                " Constructions only approximate such targets."
            )
    return Network(_without_norms(network.root, "", layers, norms), network.input_spec) if folds else network


def _with_arrays(target: Target, network: Network, arrays: Mapping[str, np.ndarray]) -> Target:
    """A target of this network: the new arrays, and the other tensors of the old target."""
    tensors = {name: arrays[name] if name in arrays else target.array(name) for name in network.tensors}
    return Target(network, tensors)  # type: ignore[arg-type]


def _folded_arrays(target: Target, fold: BatchNormFold) -> dict[str, np.ndarray]:
    """The layer's new weight and bias, float32, by full name; raises `InputError` for a negative variance."""
    target.scan(child_path(fold.norm, "running_var"))
    norm = {name: target.array(child_path(fold.norm, name)).astype(np.float64) for name in fold.node.tensors()}
    scale = norm.get("weight", 1.0) / np.sqrt(norm["running_var"] + fold.node.epsilon)
    shift = norm.get("bias", 0.0) - scale * norm["running_mean"]
    weight = target.array(child_path(fold.layer, "weight")).astype(np.float64)
    bias_name = child_path(fold.layer, "bias")
    bias = target.array(bias_name).astype(np.float64) if bias_name in target.network.tensors else 0.0
    exact = {"weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), "bias": bias * scale + shift}
    return {child_path(fold.layer, name): value.astype(np.float32) for name, value in exact.items()}


def _without_norms(node: Node, path: str, layers: set[str], norms: set[str]) -> Node:
    """The tree without the folded normalisations; the layers in front of them have biases."""
    if path in layers and isinstance(node, LinearLayer):
        return dataclasses.replace(node, bias=True)
    children = {
        name: _without_norms(child, child_path(path, name), layers, norms)
        for name, child in node.children().items()
        if child_path(path, name) not in norms or not isinstance(child, BatchNorm)
    }
    if isinstance(node, Graph):
        # What took the output of a normalisation takes that of its layer.
        layer = {name: inputs[0] for name, _, inputs in node.nodes if name not in children}
        steps = [
            (name, children[name], tuple(layer.get(one, one) for one in inputs))
            for name, _, inputs in node.nodes
            if name in children
        ]
        return Graph(tuple(steps), layer.get(node.output, node.output))
    return node.with_children(children) if children or node.children() else node


MAX_TARGET_BITS = 24
"""Most bits of a quantised target: the mantissa of a float32."""

_SLICE = 1 << 20  # weights read at once


def quantise(target: Target, bits: int) -> Target:
    """The target with its approximated tensors rounded to a uniform grid of 2**bits steps on [-m, m], float32.

    m is the least power of two that is at least the tensor's largest |weight|. Batch normalisation is folded first.

    Args:
        bits: From 1 to 24.

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
    """Raise `InputError` unless `bits` is a valid argument of `quantise`."""
    if type(bits) is not int or not 1 <= bits <= MAX_TARGET_BITS:
        raise InputError(
            f"the bits of a quantised target must be an integer from 1 to {MAX_TARGET_BITS}, got {bits!r}. Use 8."
        )


def grid_exponent(target: Target, name: str) -> int | None:
    """The largest e such that every weight of a tensor is a multiple of 2**e; None if all are 0.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> grid_exponent(mlp_target([np.array([[0.75, -1.5]], np.float32)]), "fc1.weight")
    -2
    """
    size, found = target.tensors.tensors[name].size, None
    for start in range(0, size, _SLICE):
        values = read_float64(target.tensors, name, start, min(_SLICE, size - start))
        fraction, exponent = np.frexp(values[values != 0])
        integer = np.ldexp(fraction, 53).astype(np.int64)
        lowest = np.frexp((integer & -integer).astype(np.float64))[1] - 1  # the lowest set bit
        if len(integer):
            least = int((exponent - 53 + lowest).min())
            found = least if found is None else min(found, least)
    return found


def merge_attention(target: Target) -> Target:
    """The target with `MergedAttention` for each `Attention` of dense projections.

    The products are computed in float64 and rounded to float32. A target without such attention is returned unchanged.

    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.node import Spec
    >>> network = Network(Chain((("attn", Attention(1, Dense(1, 3), Dense(1, 1))),)), Spec((4, 1)))
    >>> values = {"attn.qkv.weight": [[2.0], [3.0], [5.0]], "attn.proj.weight": [[7.0]]}
    >>> same = merge_attention(Target(network, {name: np.array(value, np.float32) for name, value in values.items()}))
    >>> {name: same.array(name).tolist() for name in same.network.tensors}
    {'attn.qk.weight': [[6.0]], 'attn.vo.weight': [[35.0]]}
    """
    found = {path: node.heads for path, node in target.network.nodes() if isinstance(node, Attention) and _merged(node)}
    if not found:
        return target
    network = Network(_with_merged(target.network.root), target.network.input_spec)
    arrays = {name: value for path, heads in found.items() for name, value in _products(target, path, heads).items()}
    return _with_arrays(target, network, arrays)


def match_rewrites(target: Target, network: Network) -> Target:
    """The target with the rewrites of a ticket's network: folded, and merged if the network has merged attention."""
    folded = fold_batch_norm(target)
    return merge_attention(folded) if _has_merged(network) else folded


def match_network(target: Network, network: Network) -> Network:
    """The network of a target after `match_rewrites`, without tensors."""
    folded = _folded_network(target)
    return Network(_with_merged(folded.root), folded.input_spec) if _has_merged(network) else folded


def _has_merged(network: Network) -> bool:
    return any(isinstance(node, MergedAttention) for _, node in network.nodes())


def _merged(node: Node) -> MergedAttention | None:
    """The merged form of attention with dense projections; None for other nodes."""
    if not (isinstance(node, Attention) and isinstance(node.qkv, Dense) and isinstance(node.proj, Dense)):
        return None
    size, wide = node.qkv.inputs, node.heads * node.qkv.inputs
    qk, vo = Dense(size, wide, bias=node.qkv.bias), Dense(wide, size, bias=node.qkv.bias or node.proj.bias)
    return MergedAttention(node.heads, qk, vo)


def _with_merged(node: Node) -> Node:
    if merged := _merged(node):
        return merged
    children = node.children()
    return node.with_children({name: _with_merged(child) for name, child in children.items()}) if children else node


def _products(target: Target, path: str, heads: int) -> dict[str, np.ndarray]:
    """The tensors of a merged attention, float32, by full name."""

    def read(layer: str, name: str, missing: int) -> np.ndarray:
        full = child_path(child_path(path, layer), name)
        return target.array(full).astype(np.float64) if full in target.network.tensors else np.zeros(missing)

    qkv, out = read("qkv", "weight", 0), read("proj", "weight", 0)
    size = qkv.shape[1]
    query, key, value = qkv.reshape(3, heads, -1, size)
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
    with np.errstate(over="ignore"):  # infinite weights are refused when the target is read
        return {child_path(path, name): values.astype(np.float32) for name, values in exact.items()}


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left [O, d] @ right [d, I], summed in the order of d: bit-identical on every machine."""
    total = np.zeros((left.shape[0], right.shape[1]))
    for column, row in zip(left.T, right, strict=True):
        total += column[:, None] * row
    return total
