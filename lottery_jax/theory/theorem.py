"""The base of theorems: from an architecture, an accuracy and a failure probability to the size of the source."""

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
    """One target layer with weights. A bias is the weight of one more input, the constant 1.

    Args:
        kind: `DENSE`, `CONVOLUTION`, `ATTENTION` (its four projections are one layer here) or `OTHER`.
        inputs_per_output: Inputs that each output depends on, including the constant; fewer than `inputs` with groups.
        kernel_size: Numbers in a kernel, 1 for a matrix.
    """

    path: str
    kind: str
    inputs: int
    outputs: int
    inputs_per_output: int
    kernel_size: int = 1
    bias: bool = False
    heads: int = 0

    @property
    def weights(self) -> int:
        """Weights to approximate, including biases."""
        if self.kind == ATTENTION:
            return 4 * self.inputs * self.outputs
        return self.outputs * ((self.inputs_per_output - self.bias) * self.kernel_size + self.bias)


Layers = Sequence[LayerShape]


def layer_shapes(network: Network) -> tuple[LayerShape, ...]:
    """The layers of a target in order; a batch normalisation counts as the bias of the layer that it is folded into.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.architectures import mlp
    >>> [(layer.path, layer.inputs, layer.outputs) for layer in layer_shapes(mlp((3, 2, 1), Spec((3,)), bias=True))]
    [('fc1', 4, 2), ('fc2', 3, 1)]
    """
    attentions = {path: node for path, node in network.nodes() if isinstance(node, Attention)}
    parts = {child_path(path, name): path for path in attentions for name in ("qkv", "proj")}
    normed = {fold.layer for fold in batch_norm_folds(network)}
    found: dict[str, LayerShape] = {}
    for path, layer in network.weight_nodes.items():
        if path in parts:
            attention, node = parts[path], attentions[parts[path]]
            size = node.proj.outputs if isinstance(node.proj, Dense) else 1
            found[attention] = LayerShape(attention, ATTENTION, size, size, size, heads=node.heads)
        elif isinstance(layer, Dense | Conv):
            kind = DENSE if isinstance(layer, Dense) else CONVOLUTION
            bias = layer.bias or path in normed
            per_output, size = layer.inputs // layer.groups + bias, math.prod(layer.kernel_shape)
            found[path] = LayerShape(path, kind, layer.inputs + bias, layer.outputs, per_output, size, bias)
        else:
            found[path] = LayerShape(path, OTHER, layer.weights, 1, 1)
    return tuple(found.values())


_IN_PROOFS = ("chain", "relu", "flatten", "tokens", "attention")


@dataclasses.dataclass(frozen=True)
class SourceLayer:
    """The random layers that replace one target layer.

    Args:
        hidden: Hidden units; channels for convolutions.
        weights: Random weights of the whole matrices.
        kept: Weights that the proof's ticket keeps, approximately; None if the proof does not say.
    """

    hidden: int
    weights: int
    kept: int | None


@dataclasses.dataclass(frozen=True)
class Requirement:
    """The source that a theorem requires for an architecture; the last fields are None if no layer is covered."""

    theorem: str
    paper: str
    error: str
    origin: str
    constant: str
    covered: int
    """Target layers that the theorem covers."""
    layers: int
    """All target layers with weights."""
    depth: int | None = None
    """Layers of the source."""
    hidden: tuple[int, ...] | None = None
    """Hidden units of each covered layer."""
    source_weights: int | None = None
    kept_weights: int | None = None
    """Weights that the proof's ticket keeps, if known."""
    note: str = ""

    @property
    def widest(self) -> int | None:
        """The widest hidden layer."""
        return None if self.hidden is None else max(self.hidden, default=0)


@dataclasses.dataclass(frozen=True)
class Theorem(abc.ABC):
    """A published theorem: a frozen dataclass whose fields are its free constants."""

    name: ClassVar[str]
    paper: ClassVar[str]
    """Authors, year, arXiv number and theorem."""
    error: ClassVar[str]
    """What eps bounds: weight, output or exact."""
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of covered layers."""
    origin: ClassVar[str]
    """Origin of the constants: paper, counting or estimated (by experiments of this package)."""
    note: ClassVar[str] = ""

    @property
    @abc.abstractmethod
    def constant(self) -> str:
        """The origin of the constants in a sentence."""

    @abc.abstractmethod
    def source_layers(self, layers: Layers, depth: int, tolerance: float, delta: float) -> list[SourceLayer]:
        """The random layers for each covered layer.

        Args:
            layers: Covered layers of the target.
            depth: L, the number of all layers of the target.
        """

    def depth(self, layers: Layers) -> int:
        """Random layers for the covered layers."""
        return 2 * len(layers)

    def require(self, network: Network, *, tolerance: float, delta: float = 0.01) -> Requirement:
        """The source that the theorem requires for the layers of an architecture that it covers.

        Args:
            tolerance: eps in (0, 1); `error` says what it bounds.
            delta: Failure probability in (0, 1); unused if the theorem's failure probability is eps.
        """
        if not 0 < tolerance < 1:
            raise InputError(f"tolerance must be an error in (0, 1), got {tolerance}. Use 0.01.")
        if not 0 < delta < 1:
            raise InputError(f"delta must be a failure probability in (0, 1), got {delta}. Use 0.01.")
        layers = layer_shapes(network)
        covered = [layer for layer in layers if layer.kind in self.kinds]
        sources = self.source_layers(covered, len(layers), tolerance, delta)
        kept = [source.kept for source in sources]
        notes = [self.note] if self.note else []
        if len(covered) < len(layers):
            kinds = ", ".join(dict.fromkeys(layer.kind for layer in layers if layer not in covered))
            few = f"It covers {len(covered)} of {len(layers)} layers, not: {kinds}."
            notes.insert(0, few if covered else f"It covers none of the layers ({kinds}).")
        if covered:
            # The proofs are about ReLU and sequences of layers.
            norms = {fold.norm for fold in batch_norm_folds(network)}
            nodes = [node for path, node in network.nodes() if path not in norms and not isinstance(node, WeightNode)]
            foreign = dict.fromkeys(node.kind.replace("_", " ") for node in nodes if node.kind not in _IN_PROOFS)
            notes += [f"Not in the proof: {', '.join(foreign)}."] if foreign else []
        return Requirement(
            theorem=self.name,
            paper=self.paper,
            error=self.error,
            origin=self.origin,
            constant=self.constant,
            covered=len(covered),
            layers=len(layers),
            depth=self.depth(covered) if covered else None,
            hidden=tuple(source.hidden for source in sources) if covered else None,
            source_weights=sum(source.weights for source in sources) if covered else None,
            kept_weights=sum(one for one in kept if one is not None) if covered and None not in kept else None,
            note=" ".join(notes),
        )


def gadget_layer(layer: LayerShape, hidden: int, kept_each: float) -> SourceLayer:
    """A layer behind `hidden` units; each target weight keeps `kept_each` weights of the second matrix.

    Both matrices are counted whole, as in the theorems; a kept unit keeps one weight of the first.
    """
    first = layer.inputs * hidden
    second = round(hidden * layer.weights / layer.inputs)
    kept = min(round(kept_each * layer.weights), second)
    return SourceLayer(hidden, first + second, kept + min(hidden, kept))


def units(number: float) -> int:
    """A number of units, rounded up.

    >>> units(2.1), units(2.0)
    (3, 2)
    """
    return max(1, math.ceil(number - 1e-9))
