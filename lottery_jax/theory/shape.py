"""What the theorems ask of an architecture: its layers with weights, each with inputs, outputs and what kind it is."""

import dataclasses
import math

from lottery_jax.networks.fold import folds
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import child_path

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
    >>> from lottery_jax.networks.zoo.mlp import mlp
    >>> [(layer.path, layer.inputs, layer.outputs) for layer in layer_shapes(mlp((3, 2, 1), Spec((3,)), bias=True))]
    [('fc1', 4, 2), ('fc2', 3, 1)]
    """
    attentions = {path: node for path, node in network.nodes() if isinstance(node, Attention)}
    parts = {child_path(path, name): path for path in attentions for name in ("qkv", "proj")}
    normed = {fold.operation for fold in folds(network)}
    found: dict[str, LayerShape] = {}
    for path, leaf in network.affine.items():
        if path in parts:
            place, node = parts[path], attentions[parts[path]]
            size = node.proj.outputs if isinstance(node.proj, Dense) else 1
            found[place] = LayerShape(place, ATTENTION, size, size, size, heads=node.heads)
        elif isinstance(leaf, Dense | Conv):
            kind = DENSE if isinstance(leaf, Dense) else CONVOLUTION
            bias = leaf.bias or path in normed
            own, places = leaf.inputs // leaf.groups + bias, math.prod(leaf.places)
            found[path] = LayerShape(path, kind, leaf.inputs + bias, leaf.outputs, own, places, bias)
        else:
            shapes = leaf.tensors().values()
            found[path] = LayerShape(path, OTHER, sum(map(math.prod, shapes)), 1, 1)
    return tuple(found.values())
