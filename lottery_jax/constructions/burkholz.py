"""Depth L + 1 (Burkholz 2022, arXiv 2205.02321; convolutions and residual blocks: arXiv 2205.02343).

Two random layers replace the first target layer, one random layer every later one. Each target neuron exists rho times
(the number of candidates; 15 in the paper), and each copy solves a subset sum over the copies of each input. Gains are
just as large as the largest target weight of a layer needs, because weights that cancel would make the differences of
the copies grow from layer to layer. In deep networks use the objective `smallest` with a small tolerance.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.constructions.base import TensorProblem, TensorProblems, layer_gain
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import Operation
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import (
    MAX_MAGNITUDE,
    MIN_MAGNITUDE,
    Container,
    LinearLayer,
    Node,
    Spec,
    WeightNode,
    child_path,
)
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.replicated_neurons import ReplicatedGadget, ReplicatedNeurons
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import RandomTensor

SCALED_BOUND_PER_CANDIDATE = 0.2
"""Largest scaled target weight per candidate; candidates of its sign sum to 0.25 per candidate on average."""

_ADVICE = "use pensia, which takes every architecture"


@dataclasses.dataclass(frozen=True)
class Burkholz(Pensia):
    """Burkholz 2022: depth L + 1, every neuron n times, each weight a sum of plain random weights on those copies.

    Fewer layers than pensia and n times wider ones; 15 is the published number. The network's outputs exist once.
    """

    name: ClassVar[str] = "burkholz"
    replicates_neurons: ClassVar[bool] = True

    def source(self, target: Target) -> Network:
        network = target.network
        if network.input_spec is None:
            raise InputError(
                f"{self.name} gives layers copies of their inputs, and the input of tensor"
                f" {next(iter(network.weight_nodes))!r} is unknown; name the model's architecture, or use scalar"
            )
        last = output_layers(network.root, "")
        root, output = _Replication(self, target, last).apply(network.root, "", network.input_spec)
        if output.copies > 1:
            raise InputError(
                f"{self.name} needs a layer with weights behind the last sum, because outputs exist once; {_ADVICE}"
            )
        return Network(root, network.input_spec)

    def replicated_layer(
        self, target: Target, path: str, of: WeightNode, given: Spec, copies: int
    ) -> ReplicatedNeurons | ReplicatedGadget:
        """The random layer with `given.copies` copies of its inputs and `copies` copies of its outputs."""
        gadget = self.random_layer(target, path, of)
        if given.copies == 1:
            fields = {field.name: getattr(gadget, field.name) for field in dataclasses.fields(gadget)}
            return ReplicatedGadget(**fields, copies=copies)
        bounds = dict.fromkeys(of.tensors(), SCALED_BOUND_PER_CANDIDATE * self.candidates)
        gains = {name: layer_gain(target, path, (name,), bounds) for name in bounds}
        gain = gains["weight"]
        constant = min(max(float(np.float32(gains.get("bias", gain) / gain)), MIN_MAGNITUDE), MAX_MAGNITUDE)
        return ReplicatedNeurons(gadget.layer, given.copies, copies, self.sampler, given.copy_stride, gain, constant)

    def problems(self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int) -> TensorProblems:
        source = network.sources[path]
        if isinstance(source, Gadget):
            return super().problems(network, path, drawn, seed)
        assert isinstance(source, ReplicatedNeurons)
        found = [
            TensorProblem(
                child_path(path, name),
                tensor,
                self.candidates,
                bound=self.sampler.high,
                gain=source.gain * (source.constant if name == "bias" else 1.0),
                copies=source.rows_per_weight,
            )
            for name, tensor in drawn.items()
        ]
        return found, {}


@dataclasses.dataclass(frozen=True)
class _Replication:
    """Builds the random network node by node; specs say how many copies of each channel exist."""

    construction: Burkholz
    target: Target
    last: frozenset[str]

    def apply(self, node: Node, path: str, given: Spec) -> tuple[Node, Spec]:
        """A node with random layers, and the spec of its output."""
        if isinstance(node, Chain):
            children: dict[str, Node] = {}
            for name, child in node.nodes:
                children[name], given = self.apply(child, child_path(path, name), given)
            return node.with_children(children), given
        if isinstance(node, Residual):
            body, first = self.apply(node.body, path, given)
            shortcut, second = self.apply(node.shortcut, child_path(path, "downsample"), given)
            if first.copies != second.copies:
                raise InputError(
                    f"the block {path!r} adds single values to copies, because {self.construction.name} does not copy"
                    f" the network's inputs and outputs; put a layer in front of it and behind it, or {_ADVICE}"
                )
            block = node.with_children({"(body)": body, "downsample": shortcut})
            return block, dataclasses.replace(first, nonnegative=first.nonnegative and second.nonnegative)
        if isinstance(node, Graph):
            return self._graph(node, path, given)
        if isinstance(node, Container):
            raise self._not_replicable(node, path)
        if isinstance(node, WeightNode):
            copies = 1 if path in self.last else self.construction.candidates
            leaf = self.construction.replicated_layer(self.target, path, node, given, copies)
            return leaf, leaf.output_spec(given)
        try:
            output = node.output_spec(given)
        except InputError:
            if given.copies == 1:
                raise
            raise self._not_replicable(node, path) from None
        if output.copies != given.copies:
            raise self._not_replicable(node, path)
        return node, output

    def _graph(self, graph: Graph, path: str, given: Spec) -> tuple[Node, Spec]:
        children, specs = {}, {INPUT: given}
        for name, node, inputs in graph.nodes:
            own, before = child_path(path, name), [specs[one] for one in inputs]
            if not isinstance(node, Operation):
                children[name], specs[name] = self.apply(node, own, before[0])
                continue
            try:
                children[name], specs[name] = node, node.combined_spec(*before)
            except InputError:
                if all(spec.copies == 1 for spec in before):
                    raise
                raise self._not_replicable(node, own) from None
        return graph.with_children(children), specs[graph.output]

    def _not_replicable(self, node: Node, path: str) -> InputError:
        return InputError(
            f"{self.construction.name} copies every neuron several times, which {path!r} ({node.kind}) does not allow;"
            f" {_ADVICE}"
        )


def output_layers(node: Node, path: str) -> frozenset[str]:
    """The paths of the linear layers that no other linear layer follows.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> sorted(output_layers(Chain((("fc1", Dense(3, 2)), ("fc2", Dense(2, 5)))), ""))
    ['fc2']
    """
    if isinstance(node, LinearLayer):
        return frozenset({path})
    if isinstance(node, Chain):
        found = (output_layers(child, child_path(path, name)) for name, child in reversed(node.nodes))
        return next((one for one in found if one), frozenset())
    if isinstance(node, Graph):
        last, reached = frozenset[str](), {node.output}
        for name, child, inputs in reversed(node.nodes):
            if name in reached:
                own = output_layers(child, child_path(path, name))
                last |= own
                reached.update(() if own else inputs)
        return last
    return frozenset().union(*(output_layers(child, child_path(path, name)) for name, child in node.children().items()))
