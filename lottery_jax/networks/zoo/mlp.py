"""Multi-layer perceptrons."""

import itertools
from collections.abc import Sequence

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.reshape import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.target import Target


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


def mlp_target(
    weights: Sequence[np.ndarray], biases: Sequence[np.ndarray] | None = None, *, nonnegative: bool = False
) -> Target:
    """The MLP of these weights, each [out, in] as PyTorch has them, and biases [out]; float32.

    nonnegative: whether its inputs are never negative (pixels); otherwise sign branches are built for them.

    >>> mlp_target([np.ones((3, 2), np.float32), np.ones((1, 3), np.float32)]).weights
    9
    """
    weights = [np.asarray(weight, np.float32) for weight in weights]
    if not weights or any(weight.ndim != 2 or 0 in weight.shape for weight in weights):
        raise InputError(
            f"the weights must be matrices [out, in], one for each layer, not {[weight.shape for weight in weights]}"
        )
    for place, (left, right) in enumerate(itertools.pairwise(weights)):
        if right.shape[1] != left.shape[0]:
            raise InputError(
                f"layer {place + 1} takes {right.shape[1]} inputs, but the layer before it has {left.shape[0]} outputs;"
                " weights are [out, in]"
            )
    sizes = (weights[0].shape[1], *(weight.shape[0] for weight in weights))
    network = mlp(sizes, Spec(sizes[:1], nonnegative), bias=biases is not None)
    arrays = {f"fc{number}.weight": weight for number, weight in enumerate(weights, start=1)}
    for number, bias in enumerate(biases or (), start=1):
        arrays[f"fc{number}.bias"] = np.asarray(bias, np.float32)
    return Target(network, {name: arrays[name] for name in network.tensors if name in arrays})  # type: ignore[arg-type]
