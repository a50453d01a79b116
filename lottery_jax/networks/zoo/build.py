"""Chains made node by node: each is told how many inputs it has by what the nodes before it give."""

from collections.abc import Callable

from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.batch_norm import BatchNorm
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.node import Node, Spec


class Building:
    """A chain under construction: `add` puts a node at its end, `spec` is what it gives so far."""

    def __init__(self, given: Spec) -> None:
        self.spec = given
        self._nodes: list[tuple[str, Node]] = []

    def add(self, name: str, node: Node) -> "Building":
        """Put a node at the end."""
        self.spec = node.flow(self.spec, name, {})
        self._nodes.append((name, node))
        return self

    def relu(self, name: str) -> "Building":
        return self.add(name, Relu())

    def dense(self, name: str, outputs: int, *, bias: bool = False) -> "Building":
        return self.add(name, Dense(self.spec.shape[-1], outputs, bias))

    def conv(
        self, name: str, outputs: int, size: int, *, stride: int = 1, padding: int = 0, bias: bool = False
    ) -> "Building":
        both = (stride, stride), (padding, padding)
        return self.add(name, Conv(self.spec.shape[-1], outputs, (size, size), *both, bias=bias))

    def norm(self, name: str) -> "Building":
        return self.add(name, BatchNorm(self.spec.shape[-1]))

    def inner(self, name: str, build: Callable[["Building"], Node]) -> "Building":
        """Put a node at the end that is built from what the chain gives so far."""
        return self.add(name, build(Building(self.spec)))

    def chain(self) -> Chain:
        """The nodes so far."""
        return Chain(tuple(self._nodes))


def scaled(units: int, width: float) -> int:
    """Hidden units at a width multiplier.

    >>> scaled(64, 0.5), scaled(3, 0.01)
    (32, 1)
    """
    return max(1, round(units * width))
