"""Sources of learned masks: redundant and wide networks (Pensia et al. 2020, Experiment 2), and plain ones."""

import dataclasses
import math
from collections.abc import Callable

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler
from lottery_jax.training.initialisers import fan_in


def redundant_source(network: Network, *, copies: int = 5, relu: bool = True) -> Network:
    """A target's network with a gadget of `copies` units for each input of every layer.

    Entries of the first matrix of a gadget have variance 2, those of the second 2 / fan-in.

    Args:
        network: The target's network.
        copies: Units of a gadget for each input.
        relu: Whether the units have a ReLU.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> redundant_source(architecture("fc2", Spec((28, 28, 1)), 10)).source_weights
    1991420
    """
    first = Sampler.normal(2**0.5)

    def leaf(path: str, node: Node) -> Node:
        if not isinstance(node, LinearLayer):
            return node
        return Gadget(node, copies, first, Sampler.normal((2 / fan_in(node)) ** 0.5), relu=relu)

    return network.replaced(leaf)


def plain_source(source: Network) -> Network:
    """The target's architecture with normal weights of variance 2 / fan-in and without biases.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> plain_source(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10))).source_weights
    397000
    """
    target = _without_biases(source.target)
    return target.replaced(lambda path, node: _single(node) if isinstance(node, LinearLayer) else node)


def wide_source(source: Network) -> Network:
    """A plain network, as deep as the target of a source and with as many weights as the source.

    All hidden layers of an MLP get the same width; other networks have all widths multiplied by the same factor.
    Weights are normal with variance 2 / fan-in, and biases are omitted.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> wide_source(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10))).target.tensors
    {'fc1.weight': (2508, 784), 'fc2.weight': (10, 2508)}
    """
    budget, target = source.source_weights, _without_biases(source.target)
    last = list(target.weight_nodes)[-1]
    even = all(not places for places in (getattr(node, "places", ()) for node in target.weight_nodes.values()))
    classes = target.output.shape[-1] if target.output else 0
    resolution = 1 if even else 64  # of the width, or of the factor
    divisor = math.lcm(*(node.divisor for _, node in target.nodes()))

    def wide(step: int) -> Network:
        def units(old: int) -> int:
            return step if even else max(1, round(old * step / resolution / divisor)) * divisor

        found = _resized(target, units, last, classes)
        return found.replaced(lambda path, node: _single(node) if isinstance(node, LinearLayer) else node)

    if len(target.weight_nodes) == 1:
        return wide(1)
    if wide(1).source_weights > budget:
        raise InputError(
            f"a wide source must have room in the weights of the redundant one, got {budget:,}. Give it more copies."
        )
    low, high = 1, 2
    while wide(high).source_weights <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wide(middle).source_weights <= budget else (low, middle)
    return min((wide(low), wide(high)), key=lambda network: abs(network.source_weights - budget))


def _single(operation: LinearLayer) -> RandomLayer:
    return RandomLayer(operation, Sampler.normal((2 / fan_in(operation)) ** 0.5))


def _without_biases(network: Network) -> Network:
    def leaf(path: str, node: Node) -> Node:
        return dataclasses.replace(node, bias=False) if isinstance(node, LinearLayer) else node  # type: ignore[type-var]

    return network.replaced(leaf)


def _resized(network: Network, units: Callable[[int], int], last: str, classes: int) -> Network:
    """The network with `units(n)` hidden units in place of n; the last layer keeps its `classes` outputs."""
    assert network.given is not None
    root = network.root.resized(network.given, units)

    # The last layer was resized with the others.
    def leaf(path: str, node: Node) -> Node:
        return dataclasses.replace(node, outputs=classes) if path == last else node  # type: ignore[type-var]

    return Network(root, network.given).replaced(leaf)
