"""Every layer and container of a `Network`, in one import.

Shapes are without the batch axis. Linear layers are approximated and have masks; other tensors are stored.

| containers | |
|---|---|
| `Chain` | named nodes in sequence |
| `Residual` | body(x) + shortcut(x) |
| `Graph` | any named nodes, layers and operations, each with the names of its inputs |
| `Attention` | multi-head self-attention of tokens [T, D], around two projections |
| `MergedAttention` | attention with one product for queries and keys, and one for values and the projection |

| linear layers | |
|---|---|
| `Dense` | [..., I] to [..., O], `weight` [O, I] |
| `Conv` | images [H, W, I] to [H', W', O], `weight` [O, I / groups, h, w] |
| `RotationConv` | convolution equivariant to rotations by 90 degrees |

| activations | |
|---|---|
| `Relu` | max(x, 0) |
| `LeakyRelu` | x for x >= 0, slope * x below |
| `Tanh` | the hyperbolic tangent |
| `Sigmoid` | 1 / (1 + exp(-x)) |
| `Gelu` | x times the normal distribution function of x, or its tanh approximation |

| normalisation | |
|---|---|
| `BatchNorm` | batch normalisation; constructions fold it into the layer in front of it |
| `LayerNorm` | layer normalisation over features |
| `Normalize` | (x - mean) / deviation of each channel, with constants |
| `PositionEmbedding` | tokens [T, D] plus a stored vector for each position |

| pooling and shapes | |
|---|---|
| `MaxPool` | the maximum of each window |
| `AveragePool` | the mean of each window |
| `GlobalPool` | the mean over positions: [H, W, C] or [T, C] to [C] |
| `Flatten` | [H, W, C] to [C * H * W], channels first as in PyTorch |
| `Tokens` | [H, W, C] to [H * W, C] |

| operations, in a `Graph` only | |
|---|---|
| `Constant` | a number |
| `Stored` | a tensor of the target without a mask |
| `Elementwise` | a function of `jax.lax` of one input, such as exp |
| `Power` | x to the power of an integer |
| `Binary` | a function of `jax.lax` of two inputs, such as add |
| `Select` | one of two inputs, as `jax.lax.select_n` |
| `Reshape`, `Transpose`, `Broadcast` | the same numbers in another shape or order |
| `Slice`, `Pad`, `Concatenate` | parts of arrays, constants around them, arrays along one axis |
| `Reduce`, `ReduceWindow` | sum, maximum or minimum over axes or windows |
| `DotGeneral` | the product of two activations, as `jax.lax.dot_general` |
| `Lookup` | rows of a table, for embeddings |

`Spec` is the input of a network: its shape, and whether it is never negative.

>>> from lottery_jax import Network
>>> from lottery_jax.layers import Chain, Conv, Dense, Flatten, Relu, Residual, Spec
>>> def conv(inputs):
...     return Conv(inputs, 8, (3, 3), padding=(1, 1), bias=True)
>>> block = Residual(Chain((("conv", conv(8)), ("relu", Relu()))))
>>> nodes = ("conv1", conv(1)), ("relu1", Relu()), ("block", block), ("flatten", Flatten()), ("fc", Dense(512, 10))
>>> network = Network(Chain(nodes), Spec((8, 8, 1), nonnegative=True))
>>> network.output_spec.shape, list(network.tensors)
((10,), ['conv1.weight', 'conv1.bias', 'block.conv.weight', 'block.conv.bias', 'fc.weight'])
"""

from lottery_jax.networks.layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense, PositionEmbedding
from lottery_jax.networks.layers.graph import Graph
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm, Normalize
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Concatenate,
    Constant,
    DotGeneral,
    Elementwise,
    Lookup,
    Pad,
    Power,
    Reduce,
    ReduceWindow,
    Reshape,
    Select,
    Slice,
    Stored,
    Transpose,
)
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.node import Spec

__all__ = [
    "Attention",
    "AveragePool",
    "BatchNorm",
    "Binary",
    "Broadcast",
    "Chain",
    "Concatenate",
    "Constant",
    "Conv",
    "Dense",
    "DotGeneral",
    "Elementwise",
    "Flatten",
    "Gelu",
    "GlobalPool",
    "Graph",
    "LayerNorm",
    "LeakyRelu",
    "Lookup",
    "MaxPool",
    "MergedAttention",
    "Normalize",
    "Pad",
    "PositionEmbedding",
    "Power",
    "Reduce",
    "ReduceWindow",
    "Relu",
    "Reshape",
    "Residual",
    "RotationConv",
    "Select",
    "Sigmoid",
    "Slice",
    "Spec",
    "Stored",
    "Tanh",
    "Tokens",
    "Transpose",
]
