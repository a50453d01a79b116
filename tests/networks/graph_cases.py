"""Graphs for the catalogue: every operation and each of its functions, and graphs that no tree of layers is.

A row is a graph, the shape of its input, shapes that it refuses, and its sign (see `catalogue.Case`).
"""

from typing import Any, Literal

from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.layers.operations import (
    BINARY,
    REDUCTIONS,
    UNARY,
    Binary,
    Broadcast,
    Concatenate,
    Constant,
    DotGeneral,
    Elementwise,
    Lookup,
    Operation,
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
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.sources.replicated_neurons import ReplicatedGadget, ReplicatedNeurons
from lottery_jax.rng.sampler import Sampler
from tests.networks.graphs import Builder, as_graph, layer_norm

Shape = tuple[int, ...]
Sign = Literal["never", "always", "kept"]
Row = tuple[Node, Shape, tuple[Shape, ...], Sign]

WORDS, IMAGE, PAIRS = (7, 8), (6, 5, 4), (2, 8, 3)
U = Sampler.uniform(-1, 1)


def sequence(*parts: Operation | tuple[Operation | None, ...]) -> Graph:
    """Operations one after another; in a tuple the first one takes the others, None being the value so far."""
    builder, value = Builder(), INPUT
    for part in parts:
        operation, *inputs = part if isinstance(part, tuple) else (part, None)
        names = [value if one is None else builder.add(one) for one in inputs]
        assert operation is not None
        value = builder.add(operation, *names)
    return builder.graph(value)


def _elementwise() -> list[Row]:
    scaled = Binary("mul"), None, Constant(4.0)
    before: dict[str, tuple] = {  # into the domain, or to numbers of both signs
        "log": (Elementwise("square"),),
        "log1p": (Elementwise("tanh"),),
        "rsqrt": (Elementwise("square"), (Binary("add"), None, Constant(0.5))),
        "sin": (scaled,),
        "sqrt": (Elementwise("abs"),),
    }
    always = ["abs", "erfc", "exp", "logistic", "rsqrt", "sqrt", "square"]
    never = ["cos", "log", "neg", "sin"]
    signs: dict[str, Any] = dict.fromkeys(UNARY, "kept")
    signs |= dict.fromkeys(always, "always") | dict.fromkeys(never, "never")
    return [
        (sequence(*before.get(name, ()), Elementwise(name)), WORDS, (), sign)  # type: ignore[arg-type]
        for name, sign in signs.items()
    ]


def _binary() -> list[Row]:
    found: list[Row] = []
    numbers = {"max": 0.0, "pow": 3.0, "eq": 1.0, "ne": 1.0}
    always, never = ["eq", "ge", "gt", "le", "lt", "max", "ne"], ["sub"]
    for name in BINARY:
        sign: Sign = "always" if name in always else "never" if name in never else "kept"
        operation, other = Binary(name), Constant(numbers.get(name, 0.25))  # type: ignore[arg-type]
        rounded = (Elementwise("round"),) if name in ("eq", "ne") else ()
        found.append((sequence(*rounded, (operation, None, other)), WORDS, (), sign))
    both = [("max", -0.5, "kept"), ("min", -0.5, "never"), ("mul", -2.0, "never"), ("add", -0.5, "never")]
    found += [(sequence((Binary(name), None, Constant(number))), WORDS, (), sign) for name, number, sign in both]  # type: ignore[arg-type]
    found.append((sequence((Binary("pow"), Constant(2.0), None)), WORDS, (), "always"))
    found.append((sequence((Binary("div"), Constant(2.0), None)), WORDS, (), "kept"))
    column = (Binary("sub"), Stored((7, 1)), None)
    found.append((sequence((Binary("add"), None, Stored((8,))), column), WORDS, ((7, 9), (6, 8)), "never"))
    found.append((sequence((Binary("mul"), Stored((2, 1, 8)), None)), WORDS, ((7, 9),), "never"))
    return found


def _shapes() -> list[Row]:
    tokens, window = (3, 2, 1), ((2, 1, 1), (1, 0, 0), (1, 1, 0))
    found: list[Row] = [
        (sequence(Reshape((2, 4, 7))), WORDS, ((7, 7),), "kept"),
        (sequence(Transpose((1, 0))), WORDS, ((7,), (7, 8, 2)), "kept"),
        (sequence(Transpose((2, 0, 1)), Transpose((1, 0, 2))), IMAGE, ((7, 8),), "kept"),
        (sequence(Broadcast((5, 7, 8))), WORDS, ((7, 9), (6, 8), (1, 5, 7, 8)), "kept"),
        (sequence(Reshape((7, 1, 8)), Broadcast((7, 3, 8))), WORDS, ((7, 7),), "kept"),
        (sequence(Slice((1, 0), (7, 8), (2, 3))), WORDS, ((6, 8), (7, 7), (7,)), "kept"),
        (sequence(Pad((1, 0), (2, 1), (1, 2), 0.5)), WORDS, ((7,), (7, 8, 1)), "kept"),
        (sequence(Pad((1, 0), (0, 0), (0, 0), -0.5)), WORDS, (), "never"),
        (sequence((Concatenate(1), None, Stored((7, 3)), None)), WORDS, ((6, 8),), "never"),
        (sequence((Concatenate(0), None, None)), WORDS, (), "kept"),
        (sequence((Concatenate(0), None)), WORDS, (), "kept"),
        (sequence(Power(1)), WORDS, (), "kept"),
        (sequence(Power(3)), WORDS, (), "kept"),
        (sequence(Power(4)), WORDS, (), "always"),
        (sequence((DotGeneral((1,), (0,)), None, Stored((8, 3)))), WORDS, ((7, 9), (8,)), "never"),
        (sequence((DotGeneral((1,), (1,)), None, None)), WORDS, (), "kept"),
        (sequence((DotGeneral((1,), (1,), (0,), (0,)), None, Stored((7, 8, 2)))), WORDS, ((6, 8),), "never"),
        (sequence((DotGeneral((0, 2), (1, 2), (1,), (0,)), None, Stored((5, 6, 4, 3)))), IMAGE, ((6, 5, 3),), "never"),
        (sequence((DotGeneral((0, 1), (0, 1)), None, Stored((7, 8)))), WORDS, ((7, 7),), "never"),
        (sequence((DotGeneral((), ()), None, Stored((2,)))), (5,), (), "never"),
        (sequence((Lookup(), Stored((5, 4)), None)), (9,), (), "never"),
        (sequence((Lookup(), Stored((5,)), None)), WORDS, (), "never"),
        (sequence((Lookup(), None, Constant(2.0))), WORDS, (), "kept"),
    ]
    for name in REDUCTIONS:
        for axes in ((0,), (2, 0)):
            if (name, len(axes)) != ("max", 2):  # hardly ever negative
                found.append((sequence(Reduce(name, axes)), PAIRS, ((7, 8),)[: len(axes) - 1], "kept"))  # type: ignore[arg-type]
    for name in ("sum", "max", "min"):
        found.append((sequence(ReduceWindow(name, tokens, *window)), IMAGE, ((6, 5), (7, 8)), "kept"))  # type: ignore[arg-type]
    return found


def _selected() -> list[Row]:
    builder = Builder()
    large = builder.add(Binary("gt"), INPUT, builder.add(Constant(0.5)))
    clipped = builder.graph(builder.add(Select(), large, INPUT, builder.add(Constant(2.0))))
    negative = Graph(
        (*builder.steps[:-2], ("low", Constant(-2.0), ()), ("out", Select(), (large, INPUT, "low"))), "out"
    )
    return [(clipped, WORDS, (), "kept"), (negative, WORDS, (), "never")]


def diamond() -> Graph:
    """Two branches of one layer, added."""
    builder = Builder()
    first = builder.add(Dense(5, 4, bias=True), INPUT, name="fc1")
    left = builder.add(Relu(), first, name="relu")
    right = builder.add(Dense(4, 4), builder.add(Elementwise("tanh"), first), name="fc2")
    return builder.graph(builder.add(Dense(4, 3), builder.add(Binary("add"), left, right), name="fc3"))


def gate(outputs: int) -> Graph:
    """fc(x) * sigmoid(fc(x)), with a stored tensor that nothing reads."""
    builder = Builder()
    value = builder.add(Dense(8, outputs, bias=True), INPUT, name="fc")
    builder.add(Stored((3,)), name="unread")
    return builder.graph(builder.add(Binary("mul"), value, builder.add(Elementwise("logistic"), value)))


def normalised() -> Graph:
    """Layer normalisation of elementary operations."""
    builder = Builder()
    return builder.graph(layer_norm(builder, INPUT, WORDS, 0.25, "norm"))


def embedding() -> Graph:
    """Rows of a table plus positions, then a layer."""
    builder = Builder()
    found = builder.add(Lookup(), builder.add(Stored((11, 4)), name="embed.weight"), INPUT)
    placed = builder.add(Binary("add"), found, builder.add(Stored((6, 4)), name="positions"))
    return builder.graph(builder.add(Dense(4, 3), placed, name="fc"))


def unbatched() -> Graph:
    """Layers of a stored tensor, which has no batch axis."""
    builder = Builder()
    table = builder.add(Stored((3, 3, 2)), name="table")
    features = builder.add(Conv(2, 4, (2, 2), bias=True), table, name="conv")
    code = builder.add(Dense(16, 5, bias=True), builder.add(Flatten(), features), name="fc")
    return builder.graph(builder.add(Binary("mul"), INPUT, code))


def _attention() -> Graph:
    root = as_graph(Network(Chain((("attn", Attention(2, Dense(8, 24, True), Dense(8, 8))),)), Spec(WORDS))).root
    assert isinstance(root, Graph)
    return root


def _nested() -> Graph:
    """Containers of every kind in a graph."""
    builder = Builder()
    block = Residual(
        Graph((("conv", Conv(4, 4, (3, 3), padding=(1, 1)), ("input",)), ("bn", BatchNorm(4), ("conv",))), "bn")
    )
    inner = builder.add(Chain((("block", block), ("relu", Relu()))), INPUT, name="stage")
    return builder.graph(builder.add(Binary("mul"), inner, builder.add(Graph((), INPUT), INPUT)))


def random_layers() -> Graph:
    """Random layers of both kinds, one of them on an input of any sign, and a stored tensor."""
    builder = Builder()
    first = builder.add(Gadget(Dense(5, 4, bias=True), 3, U, U), INPUT, name="fc1")
    positive = builder.add(Elementwise("exp"), first)
    left = builder.add(Gadget(Dense(4, 3), 3, U, U, gain=0.5), positive, name="fc2")
    right = builder.add(RandomLayer(Dense(4, 3, bias=True), U), first, name="fc3")
    total = builder.add(Binary("sub"), left, right)
    return builder.graph(builder.add(Binary("mul"), total, builder.add(Stored((3,)), name="scale")))


def copied() -> Graph:
    """Copies of neurons through elementwise operations, in a residual block without a container."""
    builder = Builder()
    first = builder.add(
        ReplicatedGadget(Conv(4, 6, (3, 3), padding=(1, 1), bias=True), 4, U, U, gain=0.5, copies=3),
        INPUT,
        name="conv1",
    )
    active = builder.add(Binary("max"), first, builder.add(Constant(0.0)))
    second = builder.add(
        ReplicatedNeurons(Conv(6, 6, (3, 3), padding=(1, 1)), 3, 3, U, gain=0.25), active, name="conv2"
    )
    total = builder.add(Elementwise("tanh"), builder.add(Binary("add"), active, second))
    pooled = builder.add(Reduce("sum", (0, 1)), total)
    return builder.graph(builder.add(ReplicatedNeurons(Dense(6, 2), 3, 1, U, gain=2.0), pooled, name="fc"))


GRAPH_CASES: tuple[Row, ...] = (
    *_elementwise(),
    *_binary(),
    *_shapes(),
    *_selected(),
    (diamond(), (5,), ((4,), (4, 4)), "never"),
    (gate(6), WORDS, ((7, 9),), "never"),
    (normalised(), WORDS, ((7, 9),), "never"),
    (embedding(), (6,), (), "never"),
    (unbatched(), (4, 5), ((4, 6),), "never"),
    (_attention(), WORDS, ((7, 9),), "never"),
    (_nested(), IMAGE, ((6, 5, 3),), "kept"),
    (Graph((), INPUT), WORDS, (), "kept"),
    (Chain((("a", diamond()), ("b", sequence(Elementwise("exp"))))), (5,), ((4,),), "always"),
    (Residual(gate(8)), WORDS, ((7, 9),), "never"),
    (random_layers(), (5,), ((4,),), "never"),
    (copied(), IMAGE, ((6, 5, 3),), "never"),
)
