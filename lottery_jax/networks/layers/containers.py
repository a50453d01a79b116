"""Containers: sequences and residual blocks."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import jax
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Container, Cost, Node, Spec, Weights, child_path


@dataclasses.dataclass(frozen=True)
class Chain(Container):
    """Named nodes in sequence; without nodes the identity.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> Chain((("fc1", Dense(3, 2)), ("fc2", Dense(2, 5)))).output_spec(Spec((3,))).shape
    (5,)
    """

    nodes: tuple[tuple[str, Node], ...] = ()
    kind: ClassVar[str] = "chain"

    def __post_init__(self) -> None:
        if len(dict(self.nodes)) < len(self.nodes):
            names = [name for name, _ in self.nodes]
            raise InputError(f"the nodes of a chain must have different names, got {names}")

    def children(self) -> Mapping[str, Node]:
        return dict(self.nodes)

    def with_children(self, children: Mapping[str, Node]) -> Self:
        return dataclasses.replace(self, nodes=tuple(children.items()))

    def trace_specs(self, input_spec: Spec, path: str, specs: dict[str, Spec]) -> Spec:
        for name, node in self.nodes:
            try:
                input_spec = node.trace_specs(input_spec, child_path(path, name), specs)
            except InputError as error:
                if isinstance(node, Container):
                    raise
                raise InputError(f"node {child_path(path, name) or name!r}: {error}") from None
        return input_spec

    def module(self, weights: Weights) -> nnx.Module:
        return Sequence([node.module(weights.child(name)) for name, node in self.nodes])

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        nodes = []
        for name, node in self.nodes:
            nodes.append((name, node.resized(input_spec, units)))
            input_spec = nodes[-1][1].trace_specs(input_spec, "", {})
        return dataclasses.replace(self, nodes=tuple(nodes))

    def cost(self, input_spec: Spec) -> Cost:
        total = Cost()
        for _, node in self.nodes:
            total += node.cost(input_spec)
            input_spec = node.output_spec(input_spec)
        return total

    def child_modules(self, module: "Sequence") -> Mapping[str, nnx.Module]:
        return dict(zip(self.children(), module.nodes, strict=True))


class Sequence(nnx.Module):
    """The module of `Chain`."""

    def __init__(self, nodes: list[nnx.Module]) -> None:
        self.nodes = nnx.List(nodes)  # a name such as `keys` cannot be one of an nnx.Dict

    def __call__(self, x: jax.Array) -> jax.Array:
        for node in self.nodes:
            x = node(x)
        return x


IDENTITY = Chain()


@dataclasses.dataclass(frozen=True)
class Residual(Container):
    """body(x) + shortcut(x).

    Args:
        body: Nodes under the path of the block itself.
        shortcut: The identity, or a projection under the name `downsample`, as in torchvision.
    """

    body: Node
    shortcut: Node = IDENTITY
    kind: ClassVar[str] = "residual"

    def children(self) -> Mapping[str, Node]:
        return {"(body)": self.body, "downsample": self.shortcut}

    def with_children(self, children: Mapping[str, Node]) -> Self:
        return dataclasses.replace(self, body=children["(body)"], shortcut=children["downsample"])

    def trace_specs(self, input_spec: Spec, path: str, specs: dict[str, Spec]) -> Spec:
        body = self.body.trace_specs(input_spec, path, specs)
        shortcut = self.shortcut.trace_specs(input_spec, child_path(path, "downsample"), specs)
        if body.shape != shortcut.shape:
            raise InputError(
                f"the body and the shortcut of the block {path!r} must have equal shapes, got {list(body.shape)} and"
                f" {list(shortcut.shape)}. Give it a projection that fits."
            )
        if (body.copies, body.copy_stride) != (shortcut.copies, shortcut.copy_stride):
            raise InputError(
                f"the body and the shortcut of the block {path!r} must have equal copies of each channel, got"
                f" {body.copies} of stride {body.copy_stride} and {shortcut.copies} of stride {shortcut.copy_stride}"
            )
        return dataclasses.replace(body, nonnegative=body.nonnegative and shortcut.nonnegative)

    def module(self, weights: Weights) -> nnx.Module:
        return Sum(self.body.module(weights), self.shortcut.module(weights.child("downsample")))

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(
            self, body=self.body.resized(input_spec, units), shortcut=self.shortcut.resized(input_spec, units)
        )

    def cost(self, input_spec: Spec) -> Cost:
        added = Cost(math.prod(self.body.output_spec(input_spec).shape))
        return self.body.cost(input_spec) + self.shortcut.cost(input_spec) + added

    def child_modules(self, module: "Sum") -> Mapping[str, nnx.Module]:
        return {"(body)": module.body, "downsample": module.shortcut}


class Sum(nnx.Module):
    """The module of `Residual`."""

    def __init__(self, body: nnx.Module, shortcut: nnx.Module) -> None:
        self.body, self.shortcut = body, shortcut

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.body(x) + self.shortcut(x)  # type: ignore[operator]
