"""Multi-layer perceptrons."""

import itertools
from collections.abc import Sequence
from typing import Any

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.reshape import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.target import Target
from lottery_jax.networks.zoo.given_weights import given_layers


def mlp(
    sizes: Sequence[int], given: Spec, *, bias: bool | Sequence[bool] = False, names: Sequence[str] | None = None
) -> Network:
    """Dense layers with ReLU between them, behind what flattens an image: sizes are inputs, hidden units, outputs.

    bias: whether the layers have biases, all or each. names: of the layers; fc1, fc2, ... if left out.

    >>> mlp((784, 500, 10), Spec((28, 28, 1))).tensors
    {'fc1.weight': (500, 784), 'fc2.weight': (10, 500)}
    """
    if len(sizes) < 2:
        raise InputError(f"an MLP needs inputs and outputs, not the sizes {tuple(sizes)}")
    pairs = list(itertools.pairwise(sizes))
    names = names or [f"fc{number}" for number in range(1, len(pairs) + 1)]
    biases = [bias] * len(pairs) if isinstance(bias, bool) else bias
    nodes: list[tuple[str, Node]] = [("flatten", Flatten())] if len(given.shape) > 1 else []
    for place, (name, biased, (inputs, outputs)) in enumerate(zip(names, biases, pairs, strict=True)):
        nodes += [(f"relu{place}", Relu())] if place else []
        nodes.append((name, Dense(inputs, outputs, biased)))
    return Network(Chain(tuple(nodes)), given)


def mlp_target(weights: Any, biases: Sequence[Any] | None = None, *, nonnegative: bool = False) -> Target:
    """The MLP of these weights, with ReLU between its layers; float32. Raises `InputError` for what is no such network.

    weights: matrices [out, in] in a list, with `biases` [out] beside them; arrays by PyTorch's names (`fc1.weight`
    [out, in], `fc1.bias`); Flax's parameters (`Dense_0`: `kernel` [in, out], `bias`), with or without `params` around
    them; an `nnx.State`, or an `nnx.Module` of linear layers. Names with numbers are put in order by these, others are
    taken as they come, unless they come sorted and another order fits, too. nonnegative: whether its inputs are never
    negative (pixels); otherwise sign branches are built for them.

    >>> import numpy as np
    >>> mlp_target([np.ones((3, 2), np.float32), np.ones((1, 3), np.float32)]).weights
    9
    >>> params = {"Dense_0": {"kernel": np.ones((2, 3))}, "Dense_1": {"kernel": np.ones((3, 1)), "bias": np.ones(1)}}
    >>> mlp_target(params)
    <Target of 10 weights, 2 layers: Dense_0.weight [3, 2], Dense_1.weight [1, 3], Dense_1.bias [1] ([out, in]),
    inputs [2] of any sign>
    """
    layers = given_layers(weights, biases)
    sizes = (layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers))
    biased = [layer.bias is not None for layer in layers]
    network = mlp(sizes, Spec(sizes[:1], nonnegative), bias=biased, names=[layer.name for layer in layers])
    arrays = {f"{layer.name}.weight": layer.weight for layer in layers}
    arrays |= {f"{layer.name}.bias": layer.bias for layer in layers if layer.bias is not None}
    return Target(network, arrays)  # type: ignore[arg-type]
