"""A graph: any network as named nodes over layers and a closed list of elementary operations (`operations`)."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn, Self

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.operations import Operation, Stored
from lottery_jax.networks.node import Container, Cost, Node, Spec, Weights, child_path

INPUT = "input"
"""The name by which nodes refer to the input of their graph."""

Step = tuple[str, Node, tuple[str, ...]]
"""A node's name, the node, and the names of the nodes whose outputs it takes."""


@dataclasses.dataclass(frozen=True)
class Graph(Container):
    """Named nodes, each of which takes outputs of earlier ones: a directed acyclic graph.

    Args:
        nodes: Name, node and the names of its inputs, in an order in which they can be computed; `"input"` is the
            input of the graph. A node is a layer of one input, or an `Operation` of any number of inputs.
        output: Name of the node that is the output.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.layers.operations import Binary, Elementwise
    >>> swish = ("gate", Elementwise("logistic"), ("fc",)), ("swish", Binary("mul"), ("fc", "gate"))
    >>> Graph((("fc", Dense(3, 2), ("input",)), *swish), "swish").output_spec(Spec((3,))).shape
    (2,)
    """

    nodes: tuple[tuple[str, Node, tuple[str, ...]], ...]
    output: str
    kind: ClassVar[str] = "graph"

    def __post_init__(self) -> None:
        known = {INPUT}
        for name, node, inputs in self.nodes:
            if not name or name.startswith("(") or name in known:
                raise InputError(f"the nodes of a graph must have different names, got {name!r}")
            arity = node.arity if isinstance(node, Operation) else 1
            if len(inputs) != arity and (arity is not None or not inputs):
                some = "at least 1 input" if arity is None else f"{arity} inputs"
                raise InputError(f"node {name!r} must have {some}, got {len(inputs)}")
            missing = [one for one in inputs if one not in known]
            if missing:
                raise InputError(f"node {name!r} must take outputs of earlier nodes, got {missing[0]!r}")
            known.add(name)
        if self.output not in self._dependent():
            raise InputError(f"the output of a graph must depend on its input, got {self.output!r}")

    def _dependent(self) -> set[str]:
        """Names of the nodes that depend on the input."""
        found = {INPUT}
        for name, _, inputs in self.nodes:
            if not found.isdisjoint(inputs):
                found.add(name)
        return found

    def children(self) -> Mapping[str, Node]:
        return {name: node for name, node, _ in self.nodes}

    def with_children(self, children: Mapping[str, Node]) -> Self:
        return dataclasses.replace(self, nodes=tuple((name, children[name], given) for name, _, given in self.nodes))

    def input_specs(self, input_spec: Spec, path: str = "", specs: dict[str, Spec] | None = None) -> dict[str, Spec]:
        """The output of each node by name, and that of the input itself."""
        found, layers = {INPUT: input_spec}, {} if specs is None else specs
        for name, node, inputs in self.nodes:
            given, own = [found[one] for one in inputs], child_path(path, name)
            try:
                if isinstance(node, Operation):
                    if given:
                        layers[own] = given[0]
                    found[name] = node.combined_spec(*given)
                else:
                    found[name] = node.trace_specs(given[0], own, layers)
            except InputError as error:
                if isinstance(node, Container):
                    raise
                raise InputError(f"node {own!r}: {error}") from None
        return found

    def trace_specs(self, input_spec: Spec, path: str, specs: dict[str, Spec]) -> Spec:
        specs[path] = input_spec
        return self.input_specs(input_spec, path, specs)[self.output]

    def cost(self, input_spec: Spec) -> Cost:
        specs, last = self.input_specs(input_spec), self.last_uses()
        numbers = {name: math.prod(spec.shape) for name, spec in specs.items()}
        live = numbers[INPUT]
        total = Cost(0, live)
        for name, node, inputs in self.nodes:
            given = [specs[one] for one in inputs]
            own = node.combined_cost(*given) if isinstance(node, Operation) else node.cost(given[0])
            # Other values stay in memory while a layer has its inner ones.
            total += Cost(own.operations, live + max(numbers[name], own.numbers))
            live += numbers[name] - sum(numbers[one] for one in last[name])
        return total

    def last_uses(self) -> dict[str, tuple[str, ...]]:
        """The values that no later node needs, by the name of the node after which they are released."""
        seen, found = {self.output}, {}
        for name, _, inputs in reversed(self.nodes):
            found[name] = tuple({one for one in (*inputs, name) if one not in seen})
            seen.update(inputs, (name,))
        return found

    def module(self, weights: Weights) -> nnx.Module:
        parts: dict[str, nnx.Module | nnx.Param] = {}
        for name, node, _ in self.nodes:
            if isinstance(node, Stored):
                parts[name] = nnx.Param(jnp.asarray(weights[name]))
            elif not isinstance(node, Operation):
                parts[name] = node.module(weights.child(name))
        return GraphModule(self, parts)

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> NoReturn:
        raise InputError(
            "a network of another width must consist of layers, got a graph, whose shapes are fixed. Choose a method of"
            " the target's own width, or build the network from lottery_jax.layers."
        )

    def child_modules(self, module: "GraphModule") -> Mapping[str, nnx.Module]:
        return {name: part for name, part in module.parts().items() if isinstance(part, nnx.Module)}


class GraphModule(nnx.Module):
    """The module of `Graph`."""

    def __init__(self, graph: Graph, parts: dict[str, nnx.Module | nnx.Param]) -> None:
        self.graph, self._names = graph, tuple(parts)
        self._parts = nnx.List(parts.values())  # a name such as `keys` cannot be one of an nnx.Dict

    def parts(self) -> dict[str, Any]:
        """The modules of the layers and the stored tensors, by name."""
        return dict(zip(self._names, self._parts, strict=True))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.values(x)[self.graph.output]

    def values(self, x: jax.Array, *, keep: bool = False) -> dict[str, jax.Array]:
        """The output and, with `keep`, the outputs [B, ...] of all nodes that depend on the input, by name."""
        # Bounds and searches of the worst input run in float64.
        found: dict[str, jax.Array] = {INPUT: x if x.dtype == jnp.float64 else x.astype(jnp.float32)}
        batched, last, parts = {INPUT}, self.graph.last_uses(), self.parts()
        for name, node, inputs in self.graph.nodes:
            given = [found[one] for one in inputs]
            axes = [0 if one in batched else None for one in inputs]
            if 0 in axes:
                batched.add(name)
            if isinstance(node, Stored):
                found[name] = parts[name][...]
            elif not isinstance(node, Operation):
                value = given[0] if 0 in axes else given[0][None]  # layers have a batch axis
                value = parts[name](value)
                found[name] = value if 0 in axes else value[0]
            else:
                found[name] = jax.vmap(node, in_axes=axes)(*given) if 0 in axes else node(*given)
            for one in last[name] if not keep else ():
                del found[one]
        return {name: value for name, value in found.items() if name in batched}
