"""Every kind of node in a few instances, with what each is given; a kind that is missing here fails a test."""

import dataclasses
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.networks.layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense, PositionEmbedding
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm, Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate, Node, Spec, Weights, child_path
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.sources.replicated_neurons import ReplicatedGadget, ReplicatedNeurons
from lottery_jax.networks.sources.trained_layer import PartlyTrainedLayer, TrainedLayer
from lottery_jax.rng.sampler import Sampler
from tests.networks.graph_cases import GRAPH_CASES, Shape, Sign

U = Sampler.uniform(-1, 1)
STRIDED = Conv(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=True)
DEPTHWISE = Conv(4, 8, (3, 3), padding=(1, 1), groups=4)


@dataclasses.dataclass(frozen=True)
class Case:
    """A node, the shape of its input, shapes that it refuses, and whether its output is never negative.

    sign: `always`, `kept` (if its input is never negative), `never` promised.
    """

    node: Node
    shape: Shape
    refused: tuple[Shape, ...] = ()
    sign: Sign = "never"


IMAGE, WORDS = (6, 5, 4), (7, 8)
BLOCK = Chain((("conv", Conv(4, 4, (3, 3), padding=(1, 1))), ("bn", BatchNorm(4)), ("relu", Relu())))
PROJECTION = Chain((("0", Conv(4, 6, (1, 1), stride=(2, 1))), ("1", Sigmoid())))
NARROW = Chain((("conv", Conv(4, 6, (2, 1), stride=(2, 1))), ("relu", Relu())))
COPIED = Chain(
    (
        ("first", ReplicatedGadget(STRIDED, 4, U, U, gain=0.5, copies=3)),
        ("pool", MaxPool((2, 2), stride=(1, 1))),
        ("depthwise", ReplicatedNeurons(Conv(6, 6, (1, 1), groups=6, bias=True), 3, 2, U)),
        ("block", Residual(ReplicatedNeurons(Conv(6, 6, (3, 3), padding=(1, 1)), 2, 2, U, gain=0.25))),
        ("flatten", Flatten()),
        ("dense", ReplicatedNeurons(Dense(36, 4, bias=True), 2, 3, U, copy_stride=6, constant=0.5)),
        ("tanh", Tanh()),
        ("last", ReplicatedNeurons(Dense(4, 2), 3, 1, U, gain=2.0)),
        ("relu", Relu()),
    )
)
HEADS = Attention(2, Dense(8, 24, bias=True), Dense(8, 8))
CASES = (
    Case(Dense(5, 3), (5,), ((4,), (5, 4))),
    Case(Dense(8, 3, bias=True), WORDS, ((7,), (8, 7))),
    Case(Conv(4, 6, (3, 3)), IMAGE, ((4,), (6, 5), (6, 5, 3), (2, 5, 4), (6, 2, 4))),
    Case(STRIDED, IMAGE, ((6, 1, 4),)),
    Case(DEPTHWISE, IMAGE),
    Case(Conv(4, 6, (3, 2), (2, 1), (1, 1), groups=2, dilation=(2, 3)), IMAGE, ((2, 5, 4),)),
    Case(Gadget(Conv(4, 8, (2, 2), groups=4, dilation=(3, 2)), 3, U, U), IMAGE),
    Case(Conv(4, 3, (1, 1), stride=(3, 3), bias=True), IMAGE),
    Case(RotationConv(4, 3, 3, padding=1), IMAGE, ((6, 5, 3), (4, 6, 5, 4), (4,))),
    Case(RotationConv(3, 2, 2, rotations=4, bias=True), (4, 5, 5, 3), ((5, 5, 3), (3, 5, 5, 3), (4, 5, 5, 4))),
    Case(Relu(), WORDS, sign="always"),
    Case(LeakyRelu(0.25), WORDS, sign="kept"),
    Case(Tanh(), WORDS, sign="kept"),
    Case(Sigmoid(), WORDS, sign="always"),
    Case(Gelu(), WORDS, sign="kept"),
    Case(Gelu(approximate=True), WORDS, sign="kept"),
    Case(MaxPool((2, 2)), IMAGE, ((4,), (6, 5), (1, 5, 4)), sign="kept"),
    Case(MaxPool((3, 2), stride=(2, 1), padding=(1, 1)), IMAGE, sign="kept"),
    Case(AveragePool((2, 3)), IMAGE, ((6, 5), (6, 2, 4)), sign="kept"),
    Case(AveragePool((3, 3), stride=(2, 2), padding=(1, 1)), IMAGE, sign="kept"),
    Case(GlobalPool(), IMAGE, ((4,),), sign="kept"),
    Case(GlobalPool(), WORDS, sign="kept"),
    Case(Flatten(), IMAGE, sign="kept"),
    Case(Flatten(), WORDS, sign="kept"),
    Case(Flatten(), (5,), sign="kept"),
    Case(Tokens(), IMAGE, ((7, 8), (4,)), sign="kept"),
    Case(Normalize((0.5, 0.0, -0.25, 0.125), (0.25, 0.5, 2.0, 1.0)), IMAGE, ((6, 5, 3), (2,))),
    Case(Normalize((0.0, -0.5), (0.25, 0.5)), (3, 3, 2), sign="kept"),
    Case(BatchNorm(4), IMAGE, ((6, 5, 3), (5,))),
    Case(BatchNorm(5, affine=False, epsilon=0.125), (5,)),
    Case(LayerNorm(8), WORDS, ((7,), (8, 7))),
    Case(LayerNorm(5, epsilon=0.25), (5,)),
    Case(PositionEmbedding(7, 8), WORDS, ((8, 7), (8,))),
    Case(HEADS, WORDS, ((8,), (7, 9), (3, 7, 8), (7, 6))),
    Case(Attention(1, Dense(8, 24), Gadget(Dense(8, 8), 3, U, U)), WORDS),
    Case(MergedAttention(2, Dense(8, 16, bias=True), Dense(16, 8)), WORDS, ((8,), (7, 9), (3, 7, 8), (7, 6))),
    Case(MergedAttention(3, Dense(8, 24), Gadget(Dense(24, 8, bias=True), 3, U, U, relu=False)), WORDS),
    Case(Chain(), WORDS, sign="kept"),
    Case(Chain((("a", BLOCK), ("b.c", Flatten()), ("(d)", Dense(120, 3)))), IMAGE, ((6, 5, 3),)),
    Case(Chain((("fc", Dense(5, 4)), ("relu", Relu()))), (5,), ((4,),), sign="always"),
    Case(Residual(BLOCK), IMAGE, ((6, 5, 3),), sign="kept"),
    Case(Residual(Conv(4, 4, (3, 3), padding=(1, 1))), IMAGE),
    Case(Residual(NARROW, PROJECTION), IMAGE, ((6, 5, 3),), sign="always"),
    Case(RandomLayer(Dense(5, 3, bias=True), Sampler.normal(0.5), gain=2.0), (5,), ((4,),)),
    Case(RandomLayer(STRIDED, Sampler.signed_constant(0.5)), IMAGE, ((6, 5, 3),)),
    Case(RandomLayer(DEPTHWISE, U, gain=0.5), IMAGE),
    Case(CandidatesPerWeight(Dense(5, 3, bias=True), 4, (U, Sampler.normal(1)), gain=0.5), (5,), ((4,),)),
    Case(CandidatesPerWeight(Dense(5, 3), 4, (U,), shared=True), (5,)),
    Case(CandidatesPerWeight(STRIDED, 3, (U, U), shared=True), IMAGE, ((6, 5, 3),)),
    Case(Gadget(Dense(5, 3), 4, U, U), (5,), ((4,),)),
    Case(Gadget(Dense(5, 3, bias=True), 4, U, Sampler.normal(0.5), relu=False, gain=0.5), (5,)),
    Case(Gadget(Dense(8, 3, bias=True), 4, U, U, gain=2.0), WORDS),
    Case(Gadget(STRIDED, 3, U, U), IMAGE, ((6, 5, 3),)),
    Case(Gadget(DEPTHWISE, 3, U, U, gain=2.0), IMAGE),
    Case(BinaryLadder(Dense(5, 3, bias=True), 4, 2, gain=0.5), (5,), ((4,),)),
    Case(BinaryLadder(DEPTHWISE, 3, 1), IMAGE),
    Case(Gadget(RotationConv(3, 2, 2, rotations=4, bias=True), 3, U, U), (4, 3, 3, 3)),
    Case(MultiLevelLayer(Dense(5, 3, bias=True), Sampler.normal(0.5), (1.0, -1.0), gain=0.5), (5,), ((4,),)),
    Case(MultiLevelLayer(STRIDED, U, (1.0, 0.5, 0.25)), IMAGE, ((6, 5, 3),)),
    Case(MultiLevelLayer(DEPTHWISE, U, (-0.5,), gain=2.0), IMAGE),
    Case(ReplicatedNeurons(Dense(5, 3, bias=True), 1, 1, U, gain=0.5, constant=3.0), (5,), ((4,),)),
    Case(ReplicatedNeurons(STRIDED, 1, 1, Sampler.normal(0.5)), IMAGE, ((6, 5, 3),)),
    Case(ReplicatedGadget(Dense(5, 3, bias=True), 4, U, U, gain=0.5), (5,), ((4,),)),
    Case(ReplicatedGadget(DEPTHWISE, 3, U, U, relu=False), IMAGE),
    Case(COPIED, IMAGE, ((6, 5, 3),), sign="always"),
    Case(TrainedLayer(Dense(5, 3, bias=True), Sampler.normal(0.5)), (5,), ((4,),)),
    Case(TrainedLayer(STRIDED, U), IMAGE, ((6, 5, 3),)),
    Case(PartlyTrainedLayer(Dense(5, 3, bias=True), Sampler.normal(0.5)), (5,), ((4,),)),
    *(Case(*row) for row in GRAPH_CASES),
)
GRAPHLESS = (
    NamedTensor((2, 3, 4)),
    TensorDict((("emb", NamedTensor((5, 2))), ("fc", CandidatesPerWeight(NamedTensor((3, 2)), 2, (U,))))),
)
SOURCES = tuple(
    case
    for case in CASES
    if isinstance(
        case.node, RandomLayer | CandidatesPerWeight | Gadget | BinaryLadder | ReplicatedNeurons | MultiLevelLayer
    )
)


def network(case: Case, *, nonnegative: bool = False) -> Network:
    """The node alone as a network."""
    return Network(case.node, Spec(case.shape, nonnegative))


def stored(node: Node, seed: int = 0) -> dict[str, np.ndarray]:
    """Random stored tensors of a node and of those below it, float32; variances are positive."""
    random = np.random.default_rng(seed)
    found = {}
    for path, inner in below(node):
        for name, shape in inner.tensors().items():
            values = random.normal(size=shape)
            found[child_path(path, name)] = (0.5 + values**2 if name == "running_var" else values).astype(np.float32)
    return found


def drawn(node: Node, given: Shape, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The random tensors of a node and those below it, and random masks of them."""
    if not any(isinstance(inner, Source) for _, inner in below(node)):
        return {}, {}
    whole, random = Network(node, Spec(given)), np.random.default_rng(seed)
    return whole.draw(seed), {name: random.random(tensor.shape) < 0.6 for name, tensor in whole.random_tensors.items()}


@cache
def compiled(node: Node) -> Callable[..., jax.Array]:
    """The node's module as one compiled function of tensors, masks and x; one program for every test of the node."""

    def run(tensors: dict, masks: dict, x: jax.Array) -> jax.Array:
        return node.module(Weights(tensors, lambda name: FixedGate(masks[name])))(x)  # type: ignore[operator]

    return jax.jit(run)


def run(node: Node, tensors: dict[str, np.ndarray], masks: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Outputs [B, ...] of a node for x [B, ...]."""
    placed = jax.tree.map(jnp.asarray, (tensors, masks, np.asarray(x, np.float32)))
    return np.asarray(compiled(node)(*placed))


def below(node: Node, path: str = "") -> list[tuple[str, Node]]:
    """A node and all nodes inside, with their paths."""
    inner = [below(child, child_path(path, name)) for name, child in node.children().items()]
    return [(path, node), *(found for part in inner for found in part)]
