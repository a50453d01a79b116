"""What the theorems ask of an architecture: its layers with weights, each with inputs, outputs and what kind it is.

What a theorem is here: from an architecture, an accuracy and a failure probability to the size of its source.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import WeightNode, child_path
from lottery_jax.networks.rewrites import batch_norm_folds

DENSE, CONVOLUTION, ATTENTION, OTHER = "dense", "convolution", "attention", "other"


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """One layer with weights. A bias is the weight of one more input, the constant 1.

    inputs: with that constant. own: inputs that each output sees, fewer than `inputs` in groups. places: numbers in a
    kernel, 1 for a matrix. heads: of an attention, whose four projections are one layer here.
    """

    path: str
    kind: str
    inputs: int
    outputs: int
    own: int
    places: int = 1
    bias: bool = False
    heads: int = 0

    @property
    def weights(self) -> int:
        """Weights to approximate, biases among them."""
        if self.kind == ATTENTION:
            return 4 * self.inputs * self.outputs
        return self.outputs * ((self.own - self.bias) * self.places + self.bias)


def layer_shapes(network: Network) -> tuple[LayerShape, ...]:
    """The layers of a target, in order; a batch normalisation counts as the bias of the layer that it is folded into.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import mlp
    >>> [(layer.path, layer.inputs, layer.outputs) for layer in layer_shapes(mlp((3, 2, 1), Spec((3,)), bias=True))]
    [('fc1', 4, 2), ('fc2', 3, 1)]
    """
    attentions = {path: node for path, node in network.nodes() if isinstance(node, Attention)}
    parts = {child_path(path, name): path for path in attentions for name in ("qkv", "proj")}
    normed = {fold.layer for fold in batch_norm_folds(network)}
    found: dict[str, LayerShape] = {}
    for path, leaf in network.weight_nodes.items():
        if path in parts:
            place, node = parts[path], attentions[parts[path]]
            size = node.proj.outputs if isinstance(node.proj, Dense) else 1
            found[place] = LayerShape(place, ATTENTION, size, size, size, heads=node.heads)
        elif isinstance(leaf, Dense | Conv):
            kind = DENSE if isinstance(leaf, Dense) else CONVOLUTION
            bias = leaf.bias or path in normed
            own, places = leaf.inputs // leaf.groups + bias, math.prod(leaf.kernel_shape)
            found[path] = LayerShape(path, kind, leaf.inputs + bias, leaf.outputs, own, places, bias)
        else:
            shapes = leaf.tensors().values()
            found[path] = LayerShape(path, OTHER, sum(map(math.prod, shapes)), 1, 1)
    return tuple(found.values())


_PROVED = ("chain", "relu", "flatten", "tokens", "attention")


@dataclasses.dataclass(frozen=True)
class SourceLayer:
    """The random layers in place of one target layer.

    hidden: units between them (channels for convolutions). weights: random weights, those of the whole matrices. kept:
    how many of them the proof's ticket keeps, about; None where that is not said.
    """

    hidden: int
    weights: int
    kept: int | None


@dataclasses.dataclass(frozen=True)
class Requirement:
    """What a theorem asks for. depth, hidden, source_weights and kept_weights are None where it covers no layer.

    hidden: units of each covered layer, in order. covered, layers: how many target layers it is about, of how many.
    constant: where its constants come from; origin: the same in a word. note: what else must be said.
    """

    theorem: str
    paper: str
    error: str
    origin: str
    constant: str
    covered: int
    layers: int
    depth: int | None = None
    hidden: tuple[int, ...] | None = None
    source_weights: int | None = None
    kept_weights: int | None = None
    note: str = ""

    @property
    def widest(self) -> int | None:
        """The widest hidden layer."""
        return None if self.hidden is None else max(self.hidden, default=0)


@dataclasses.dataclass(frozen=True)
class Theorem(abc.ABC):
    """A published theorem; concrete ones are frozen dataclasses whose fields are the constants that may be set."""

    name: ClassVar[str]
    paper: ClassVar[str]
    """Authors, year, arXiv number, and where in it."""
    error: ClassVar[str]
    """What eps bounds: each weight, the output, or nothing (exact)."""
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of layers that it covers."""
    origin: ClassVar[str]
    """Where its constants come from: paper, counting, or estimated (by experiment, here)."""
    note: ClassVar[str] = ""

    @property
    @abc.abstractmethod
    def constant(self) -> str:
        """Where its constants come from, in words that the table shows."""

    @abc.abstractmethod
    def source_layers(
        self, layers: Sequence[LayerShape], depth: int, tolerance: float, delta: float
    ) -> Sequence[SourceLayer]:
        """The random layers for each of the covered ones. depth: L, all layers of the target."""

    def depth(self, layers: Sequence[LayerShape]) -> int:
        """Layers with weights of the source, for the covered ones."""
        return 2 * len(layers)

    def require(self, network: Network, *, tolerance: float, delta: float = 0.01) -> Requirement:
        """What the theorem asks for, for the layers of an architecture that it covers; raises `InputError`.

        tolerance: eps in (0, 1), see `error`. delta: the chance in (0, 1) that there is no such ticket at all; a
        theorem whose eps is its failure probability, too, does not use it.
        """
        check(tolerance, delta)
        layers = layer_shapes(network)
        covered = [layer for layer in layers if layer.kind in self.kinds]
        found = Requirement(self.name, self.paper, self.error, self.origin, self.constant, len(covered), len(layers))
        said = (_left_out(layers, covered), self.note, _beyond(network) if covered else "")
        found = dataclasses.replace(found, note=" ".join(filter(None, said)))
        if not covered:
            return found
        sources = self.source_layers(covered, len(layers), tolerance, delta)
        kept = [source.kept for source in sources]
        return dataclasses.replace(
            found,
            depth=self.depth(covered),
            hidden=tuple(source.hidden for source in sources),
            source_weights=sum(source.weights for source in sources),
            kept_weights=None if None in kept else sum(one for one in kept if one is not None),
        )


def check(tolerance: float, delta: float) -> None:
    """Refuse what is no accuracy or no probability; raises `InputError`."""
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}; give an error in (0, 1), such as 0.01")
    if not 0 < delta < 1:
        raise InputError(f"delta is {delta}; give a failure probability in (0, 1), such as 0.01")


def gadget_layer(layer: LayerShape, hidden: int, kept_each: float) -> SourceLayer:
    """A layer behind `hidden` units of which each target weight keeps `kept_each` second edges.

    Both matrices are counted whole, as the theorems draw them; a kept unit keeps one edge of the first.
    """
    first = layer.inputs * hidden
    second = round(hidden * layer.weights / layer.inputs)
    kept = min(round(kept_each * layer.weights), second)
    return SourceLayer(hidden, first + second, kept + min(hidden, kept))


def units(number: float) -> int:
    """Whole units.

    >>> units(2.1), units(2.0)
    (3, 2)
    """
    return max(1, math.ceil(number - 1e-9))


def _left_out(layers: Sequence[LayerShape], covered: Sequence[LayerShape]) -> str:
    if len(covered) == len(layers):
        return ""
    kinds = ", ".join(dict.fromkeys(layer.kind for layer in layers if layer not in covered))
    if not covered:
        return f"It covers none of the layers ({kinds})."
    return f"It covers {len(covered)} of {len(layers)} layers; left out: {kinds}."


def _beyond(network: Network) -> str:
    """What of an architecture the proofs do not have: they are about ReLU and layers one after the other."""
    norms = {fold.norm for fold in batch_norm_folds(network)}
    nodes = [node for path, node in network.nodes() if path not in norms and not isinstance(node, WeightNode)]
    kinds = ", ".join(dict.fromkeys(node.kind.replace("_", " ") for node in nodes if node.kind not in _PROVED))
    return f"Not in the proof: {kinds}." if kinds else ""
