"""Every kind of node by the name that it has in JSON; a new kind is its own file and one line here."""

from lottery_jax.networks.layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.bag import Bag, BagTensor
from lottery_jax.networks.layers.batch_norm import BatchNorm
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.layer_norm import LayerNorm
from lottery_jax.networks.layers.merged_attention import MergedAttention
from lottery_jax.networks.layers.normalize import Normalize
from lottery_jax.networks.layers.pooling import AveragePool, GlobalPool, MaxPool
from lottery_jax.networks.layers.position import PositionEmbedding
from lottery_jax.networks.layers.reshape import Flatten, Tokens
from lottery_jax.networks.layers.residual import Residual
from lottery_jax.networks.layers.rotation_conv import RotationConv
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.copies import Copies
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.ladder import Ladder
from lottery_jax.networks.sources.redundant import Redundant, RedundantGadget
from lottery_jax.networks.sources.single import Single
from lottery_jax.networks.sources.tied import Tied
from lottery_jax.networks.sources.trained import PartlyTrained, Trained

KINDS: tuple[type[Node], ...] = (
    *(Dense, Conv, Relu, LeakyRelu, Tanh, Sigmoid, Gelu, MaxPool, AveragePool, GlobalPool, Flatten, Tokens, Normalize),
    *(RotationConv, BatchNorm, LayerNorm, PositionEmbedding, Attention, MergedAttention, Chain, Residual),
    *(Bag, BagTensor),
    *(Single, Copies, Gadget, Ladder, Redundant, RedundantGadget, Tied, Trained, PartlyTrained),
)
NODES: dict[str, type[Node]] = {node.kind: node for node in KINDS}
