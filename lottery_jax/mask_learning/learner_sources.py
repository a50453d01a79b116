"""Sources of learned masks: redundant structure and wide network (Pensia et al. 2020, Experiment 2), and plain."""

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
    """A gadget of `copies` units for each input in front of every layer of a target's network, as published.

    First matrix N(0, 2), second N(0, 2 / fan-in), variances both; `relu=False` leaves the gadgets linear.

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

    return network.map_layers(leaf)


def plain_source(source: Network) -> Network:
    """The target's own architecture with random weights, all of them N(0, 2 / fan-in); no biases.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> plain_source(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10))).source_weights
    397000
    """
    target = _without_biases(source.target)
    return target.map_layers(lambda path, node: _single(node) if isinstance(node, LinearLayer) else node)


def wide_source(source: Network) -> Network:
    """A plain masked network as deep as the given source and with as many weights, all of them N(0, 2 / fan-in).

    An MLP has one width for all hidden layers, the one that comes nearest; other networks have their own widths, all
    multiplied by the factor that comes nearest. No biases.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> wide_source(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10))).target.tensors
    {'fc1.weight': (2508, 784), 'fc2.weight': (10, 2508)}
    """
    budget, target = source.source_weights, _without_biases(source.target)
    last = list(target.weight_nodes)[-1]
    even = all(not getattr(node, "kernel_shape", ()) for node in target.weight_nodes.values())
    classes = target.output_spec.shape[-1] if target.output_spec else 0
    resolution = 1 if even else 64  # of the width, or of the factor
    divisor = math.lcm(*(node.width_divisor for _, node in target.nodes()))

    def wide(step: int) -> Network:
        def units(old: int) -> int:
            return step if even else max(1, round(old * step / resolution / divisor)) * divisor

        found = _resized(target, units, last, classes)
        return found.map_layers(lambda path, node: _single(node) if isinstance(node, LinearLayer) else node)

    if len(target.weight_nodes) == 1:
        return wide(1)
    if wide(1).source_weights > budget:
        raise InputError(f"a source of {budget:,} weights has no wide network of equal size; give it more copies")
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

    return network.map_layers(leaf)


def _resized(network: Network, units: Callable[[int], int], last: str, classes: int) -> Network:
    """The network with `units` of each number of hidden outputs; what the last layer gives stays."""
    assert network.input_spec is not None
    root = network.root.resized(network.input_spec, units)

    # The last layer was resized with the others: its inputs are right, its outputs are the classes.
    def leaf(path: str, node: Node) -> Node:
        return dataclasses.replace(node, outputs=classes) if path == last else node  # type: ignore[type-var]

    return Network(root, network.input_spec).map_layers(leaf)
