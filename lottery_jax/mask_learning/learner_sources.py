"""Sources of learned masks: redundant and wide networks (Pensia et al. 2020, Experiment 2), and plain ones."""

import dataclasses
import math

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler
from lottery_jax.training.initialisers import fan_in


def redundant_source(network: Network, *, copies: int = 5, relu: bool = True) -> Network:
    """A target's network with a gadget of `copies` units for each input of every layer, by default with ReLU.

    Entries of the first matrix of a gadget have variance 2, those of the second 2 / fan-in.

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
    """The target's architecture with normal weights of variance 2 / fan-in and without biases.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> plain_source(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10))).source_weights
    397000
    """
    return source.target.map_layers(lambda path, node: _random_layer(node) if isinstance(node, LinearLayer) else node)


def wide_source(source: Network) -> Network:
    """A plain network, as deep as the target of a source and with as many weights as the source.

    All hidden layers of an MLP get the same width; other networks have all widths multiplied by the same factor.
    Weights are normal with variance 2 / fan-in, and biases are omitted.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import architecture
    >>> wide_source(redundant_source(architecture("fc2", Spec((28, 28, 1)), 10))).target.tensors
    {'fc1.weight': (2508, 784), 'fc2.weight': (10, 2508)}
    """
    if not source.source_weights or source.target.input_spec is None:
        raise InputError(
            "source must be a random network, got one without random layers or without a graph. Pass"
            " redundant_source(network)."
        )
    budget, target, spec = source.source_weights, source.target, source.target.input_spec
    assert spec is not None and target.output_spec is not None
    last, classes, even, divisor = "", target.output_spec.shape[-1], True, 1
    for path, node in target.weight_nodes.items():
        last, even = path, even and not getattr(node, "kernel_shape", ())
    for _, node in target.nodes():
        divisor = math.lcm(divisor, node.width_divisor)
    resolution = 1 if even else 64  # of the width, or of the factor

    def wide(step: int) -> Network:
        def units(old: int) -> int:
            return step if even else max(1, round(old * step / resolution / divisor)) * divisor

        def leaf(path: str, node: Node) -> Node:
            if not isinstance(node, LinearLayer):
                return node
            # The last layer was resized with the others.
            return _random_layer(dataclasses.replace(node, outputs=classes) if path == last else node)  # type: ignore[type-var]

        return Network(target.root.resized(spec, units), spec).map_layers(leaf)

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
    smaller, larger = wide(low), wide(high)
    return smaller if budget - smaller.source_weights <= larger.source_weights - budget else larger


def _random_layer(layer: LinearLayer) -> RandomLayer:
    """The layer without its bias, with normal weights of variance 2 / fan-in."""
    layer = dataclasses.replace(layer, bias=False)  # type: ignore[type-var]
    return RandomLayer(layer, Sampler.normal((2 / fan_in(layer)) ** 0.5))
