"""Batch normalisation folded into the layer before it: the same function with one leaf less to approximate.

With y = W x + b and the running mean m, variance v, factor g and shift s of the normalisation, g (y - m) / sqrt(v + e)
+ s is (f W) x + f (b - m) + s with f = g / sqrt(v + e): a layer of the same kind, with a bias (Burkholz 2022b).
"""

import dataclasses
import itertools

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.batch_norm import BatchNorm
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Operation, child_path
from lottery_jax.networks.target import Target


@dataclasses.dataclass(frozen=True)
class Fold:
    """A normalisation that goes into an operation: their paths, and what they are."""

    operation: str
    norm: str
    node: BatchNorm


def folds(network: Network) -> list[Fold]:
    """What `folded` folds: each batch normalisation right behind an operation of the same chain."""
    return list(_found(network.root, ""))


def folded(target: Target) -> Target:
    """The target without its batch normalisations; computed in float64, rounded to float32.

    A target without any is returned as it is. Raises `InputError` for one that stands behind no operation.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> network = Network(Chain((("fc", Dense(1, 1)), ("bn", BatchNorm(1, affine=False)))), Spec((1,)))
    >>> values = {"fc.weight": [[2.0]], "bn.running_mean": [3.0], "bn.running_var": [4.0 - 1e-5]}
    >>> same = folded(Target(network, {name: np.array(value, np.float32) for name, value in values.items()}))
    >>> {name: same.array(name).tolist() for name in same.network.tensors}
    {'fc.weight': [[1.0]], 'fc.bias': [-1.5]}
    """
    found = {fold.operation: fold for fold in folds(target.network)}
    norms = {fold.norm for fold in found.values()}
    left = [path for path, node in target.network.nodes() if isinstance(node, BatchNorm) and path not in norms]
    if left:
        raise InputError(
            f"the batch normalisation {left[0]!r} stands behind no dense layer or convolution, so it cannot be folded;"
            " constructions need one in front of it"
        )
    if not found:
        return target
    network = Network(_without(target.network.root, "", set(found), norms), target.network.given)
    arrays = {}
    for path, fold in found.items():
        operation = target.network.affine[path]
        arrays |= _folded_arrays(target, fold, biased="bias" in operation.tensors())
    for name in network.tensors:
        if name not in arrays:
            arrays[name] = target.array(name)
    return Target(network, {name: arrays[name] for name in network.tensors})  # type: ignore[arg-type]


def scale_and_shift(target: Target, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """What a normalisation multiplies by and then adds, float64 [features] each."""
    read = {name: target.array(child_path(fold.norm, name)).astype(np.float64) for name in fold.node.tensors()}
    scale = read.get("weight", 1.0) / np.sqrt(read["running_var"] + fold.node.epsilon)
    return scale, read.get("bias", 0.0) - scale * read["running_mean"]


def _folded_arrays(target: Target, fold: Fold, biased: bool) -> dict[str, np.ndarray]:
    scale, shift = scale_and_shift(target, fold)
    weight = target.array(child_path(fold.operation, "weight")).astype(np.float64)
    bias = target.array(child_path(fold.operation, "bias")).astype(np.float64) if biased else 0.0
    exact = {"weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), "bias": bias * scale + shift}
    return {child_path(fold.operation, name): value.astype(np.float32) for name, value in exact.items()}


def _found(node: Node, path: str):
    children = node.children()
    names = list(children)
    for name, child in children.items():
        yield from _found(child, child_path(path, name))
    if isinstance(node, Chain):
        for name, following in itertools.pairwise(names):
            operation, norm = children[name], children[following]
            if isinstance(operation, Operation) and isinstance(norm, BatchNorm):
                yield Fold(child_path(path, name), child_path(path, following), norm)


def _without(node: Node, path: str, operations: set[str], norms: set[str]) -> Node:
    """The tree without the folded normalisations, the operations before them with biases."""
    if path in operations and isinstance(node, Operation):
        return dataclasses.replace(node, bias=True)
    children = {
        name: _without(child, child_path(path, name), operations, norms)
        for name, child in node.children().items()
        if child_path(path, name) not in norms or not isinstance(child, BatchNorm)
    }
    return node.with_children(children) if children or node.children() else node
