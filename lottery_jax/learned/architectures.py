"""The two sources that Experiment 2 of Pensia et al. 2020 compares: redundant structure and wide network."""

import itertools
from collections.abc import Sequence

from lottery_jax.errors import InputError
from lottery_jax.networks.architecture import Architecture, Gadget, Linear, chain, check, source_weights
from lottery_jax.sampler import Sampler


def redundant_architecture(sizes: Sequence[int], *, copies: int = 5, relu: bool = True) -> Architecture:
    """A gadget of `copies` units per input for each layer of an MLP with the given sizes, as published.

    First matrix N(0, 2), second N(0, 2 / inputs), variances both; `relu=False` leaves the gadgets linear.

    >>> source_weights(redundant_architecture((784, 500, 10)))
    1991420
    """
    first = Sampler.normal(2**0.5)
    architecture = tuple(
        Gadget(inputs, copies, outputs, first, Sampler.normal((2 / inputs) ** 0.5), relu=relu)
        for inputs, outputs in itertools.pairwise(sizes)
    )
    check(architecture)
    return architecture


def wide_architecture(architecture: Architecture) -> Architecture:
    """A plain masked MLP as deep as the given source and with as many weights.

    All its hidden layers have one width, the one that comes nearest; weights are N(0, 2 / inputs).

    >>> [layer.outputs for layer in wide_architecture(redundant_architecture((784, 500, 10)))]
    [2508, 10]
    """
    check(architecture)
    budget = source_weights(architecture)
    layers = chain(architecture)
    inputs, classes, hidden = layers[0].inputs, layers[-1].outputs, len(layers) - 1

    def weights(width: int) -> int:
        return inputs * classes if hidden == 0 else width * (inputs + (hidden - 1) * width + classes)

    if weights(1) > budget:
        raise InputError(f"a source of {budget} weights has no wide network of equal size; give it more copies")
    low, high = 1, budget + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if weights(middle) <= budget else (low, middle)
    width = min(low, high, key=lambda width: abs(weights(width) - budget))
    sizes = (inputs, *([width] * hidden), classes)
    return tuple(Linear(i, o, Sampler.normal((2 / i) ** 0.5)) for i, o in itertools.pairwise(sizes))
