"""Depth L + 1 (Burkholz 2022, arXiv 2205.02321; convolutions and residual blocks: Burkholz 2022, arXiv 2205.02343).

The first target layer becomes two random layers, as by `pensia`, every later one a single random layer: each target
neuron exists rho times, and each of these copies solves a plain U[-1, 1] subset sum over the rho copies of each of its
inputs. There are no products and no signs of inputs, so that any activation will do: ReLU, LeakyReLU, tanh, sigmoid.
Only the outputs of the network exist once. That takes rho times more subset sums than depth 2L, and rho**2 random
weights for a target weight; but a plain uniform candidate is worth more than a product.

Copies differ by the errors of their weights, and a layer multiplies that by all weights that it keeps, not by their
sums. Random weights that cancel would so make errors grow from layer to layer, by a factor of five each in a ResNet-20.
So they are scaled to be no larger than the largest target weight of a layer needs, biases apart from weights, and in
deep networks the fewest are to be kept (`smallest`) at a small tolerance. `verify` runs the network and looks at it.

rho is the number of candidates; the published one is 15, with 30 hidden units for each input of the first layer. The
published constant units, which carry biases, need no rows here: see `networks.sources.redundant`.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.constructions.base import Plan, gain_for
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.containers import Chain, Residual
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

REACH_EACH = 0.2
"""The largest scaled target weight for each candidate: those of its sign sum to 0.25 on average."""

INSTEAD = "use pensia, which takes every architecture"


@dataclasses.dataclass(frozen=True)
class Burkholz(Pensia):
    """Burkholz 2022: depth L + 1, every neuron n times, each weight a sum of plain random weights on those copies.

    Fewer layers than pensia and n times wider ones; 15 is the published number. The network's outputs exist once.
    """

    name: ClassVar[str] = "burkholz"
    layers_once: ClassVar[bool] = False

    def source(self, target: Target) -> Network:
        network = target.network
        if network.input_spec is None:
            raise InputError(
                f"{self.name} gives layers copies of their inputs, and what the tensor"
                f" {next(iter(network.weight_nodes))!r} is fed with is unknown; name the model's architecture, or use"
                " scalar"
            )
        last = ends(network.root, "")
        root, output = _Widening(self, target, last).through(network.root, "", network.input_spec)
        if output.copies > 1:
            raise InputError(
                f"{self.name} needs a layer with weights behind the last sum, for outputs exist once; {INSTEAD}"
            )
        return Network(root, network.input_spec)

    def wide_leaf(
        self, target: Target, path: str, of: WeightNode, given: Spec, copies: int
    ) -> ReplicatedNeurons | ReplicatedGadget:
        """The random leaf for inputs that exist `given.copies` times, and outputs that exist `copies` times."""
        gadget = self.leaf(target, path, of)
        if given.copies == 1:
            fields = {field.name: getattr(gadget, field.name) for field in dataclasses.fields(gadget)}
            return ReplicatedGadget(**fields, copies=copies)
        gains = {name: gain_for(target, path, (name,), {name: REACH_EACH * self.candidates}) for name in of.tensors()}
        gain = gains["weight"]
        constant = min(max(float(np.float32(gains.get("bias", gain) / gain)), MIN_MAGNITUDE), MAX_MAGNITUDE)
        return ReplicatedNeurons(gadget.layer, given.copies, copies, self.sampler, given.copy_stride, gain, constant)

    def plans(
        self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int
    ) -> tuple[list[Plan], dict[str, np.ndarray]]:
        source = network.sources[path]
        if isinstance(source, Gadget):
            return super().plans(network, path, drawn, seed)
        assert isinstance(source, ReplicatedNeurons)
        found = [
            Plan(
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
class _Widening:
    """The random network, node by node, from what each is given: how often its channels exist, and where."""

    construction: Burkholz
    target: Target
    last: frozenset[str]

    def through(self, node: Node, path: str, given: Spec) -> tuple[Node, Spec]:
        """A node with random leaves, and what comes out."""
        if isinstance(node, Chain):
            children: dict[str, Node] = {}
            for name, child in node.nodes:
                children[name], given = self.through(child, child_path(path, name), given)
            return node.with_children(children), given
        if isinstance(node, Residual):
            body, first = self.through(node.body, path, given)
            shortcut, second = self.through(node.shortcut, child_path(path, "downsample"), given)
            if first.copies != second.copies:
                raise InputError(
                    f"the block {path!r} adds numbers that exist once to copies, for {self.construction.name} gives the"
                    f" network's inputs and outputs once; put a layer in front of it and behind it, or {INSTEAD}"
                )
            block = node.with_children({"(body)": body, "downsample": shortcut})
            return block, dataclasses.replace(first, nonnegative=first.nonnegative and second.nonnegative)
        if isinstance(node, Container):
            raise self._refused(node, path)
        if isinstance(node, WeightNode):
            copies = 1 if path in self.last else self.construction.candidates
            leaf = self.construction.wide_leaf(self.target, path, node, given, copies)
            return leaf, leaf.output_spec(given)
        try:
            output = node.output_spec(given)
        except InputError:
            if given.copies == 1:
                raise
            raise self._refused(node, path) from None
        if output.copies != given.copies:
            raise self._refused(node, path)
        return node, output

    def _refused(self, node: Node, path: str) -> InputError:
        return InputError(
            f"{self.construction.name} gives every neuron several times, which {path!r} ({node.kind}) does not allow;"
            f" {INSTEAD}"
        )


def ends(node: Node, path: str) -> frozenset[str]:
    """The paths of the affine leaves behind which there is no other.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> sorted(ends(Chain((("fc1", Dense(3, 2)), ("fc2", Dense(2, 5)))), ""))
    ['fc2']
    """
    if isinstance(node, LinearLayer):
        return frozenset({path})
    if isinstance(node, Chain):
        found = (ends(child, child_path(path, name)) for name, child in reversed(node.nodes))
        return next((one for one in found if one), frozenset())
    return frozenset().union(*(ends(child, child_path(path, name)) for name, child in node.children().items()))
