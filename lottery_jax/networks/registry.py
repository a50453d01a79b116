"""All kinds of nodes by their names in JSON. A new kind is a class and one line here."""

from lottery_jax.networks.layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense, PositionEmbedding
from lottery_jax.networks.layers.graph import Graph
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm, Normalize
from lottery_jax.networks.layers.operations import OPERATIONS
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.sources.replicated_neurons import ReplicatedGadget, ReplicatedNeurons
from lottery_jax.networks.sources.trained_layer import PartlyTrainedLayer, TrainedLayer

KINDS: tuple[type[Node], ...] = (
    *(Dense, Conv, Relu, LeakyRelu, Tanh, Sigmoid, Gelu, MaxPool, AveragePool, GlobalPool, Flatten, Tokens, Normalize),
    *(RotationConv, BatchNorm, LayerNorm, PositionEmbedding, Attention, MergedAttention, Chain, Residual),
    *(TensorDict, NamedTensor, Graph),
    *OPERATIONS,
    *(
        RandomLayer,
        CandidatesPerWeight,
        Gadget,
        BinaryLadder,
        ReplicatedNeurons,
        ReplicatedGadget,
        MultiLevelLayer,
        TrainedLayer,
        PartlyTrainedLayer,
    ),
)

NODES: dict[str, type[Node]] = {node.kind: node for node in KINDS}
