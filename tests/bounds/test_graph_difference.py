"""Bounds of g - f through graphs: no sampled input is beyond them, and a chain as a graph has the chain's bounds."""

import random
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.bounds import attack, bound_output, bound_output_from_tolerance, verify_box
from lottery_jax.bounds.output import _input_bounds, _NetworkPair
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.activations import LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Concatenate,
    Constant,
    DotGeneral,
    Elementwise,
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
from lottery_jax.networks.layers.pooling import Flatten, MaxPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.tickets.reconstruct import effective_weights
from tests.bounds.test_output import far, run_float64
from tests.comparison import tiny
from tests.constructions.catalogue import random_target
from tests.tickets.graphs import random_graph, steps


def supported(choose: random.Random, shapes: list[tuple[int, ...]]) -> Node:
    """An operation that differences pass through, or a layer."""
    shape, axes = shapes[0], [*range(len(shapes[0]))]
    sizes = tuple(choose.randint(1, min(2, size)) for size in shape)
    some = [tuple(choose.randint(0, size - 1) for size in sizes) for _ in range(2)]
    extrema: Any = ("sum", "max", "min")
    kinds: list[Node] = [
        *(Binary(name) for name in ("add", "sub", "mul", "max", "min")),
        *(Elementwise(name) for name in ("tanh", "logistic", "neg", "abs", "square")),
        *(Power(3), Select(), Reshape((*shape, 1)), Reshape((int(np.prod(shape)),)), Concatenate(choose.choice(axes))),
        *(Transpose(tuple(choose.sample(axes, len(axes)))), Broadcast((2, *shape))),
        Slice(tuple(0 for _ in shape), shape, sizes),
        Pad(*(tuple(choose.randint(0, 1) for _ in shape) for _ in range(3)), choose.choice([0.0, -2.0])),  # type: ignore[arg-type]
        Reduce(choose.choice(extrema), (choose.choice(axes),)) if len(axes) > 1 else Relu(),
        ReduceWindow(choose.choice(extrema), sizes, tuple(choose.randint(1, 2) for _ in shape), *some),
        DotGeneral((len(shape) - 1,), (len(shapes[-1]) - 1,)),
        *(Dense(shape[-1], 4, bias=True), Dense(shape[-1], 3), LeakyRelu(0.2), Relu()),
    ]
    return choose.choice(kinds)


def differences(graph: Graph, spec: Spec, box: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Values of f and of g - f on random inputs in float64, and their bounds; weights are moved by up to 0.1."""
    random = np.random.default_rng(seed)
    target = random_target(Network(graph, spec), seed)
    theirs = {name: target.array(name).astype(np.float64) for name in target.network.tensors}
    moved = dict(theirs)
    for name in target.network.approximated:
        moved[name] = theirs[name] + random.uniform(-0.1, 0.1, theirs[name].shape)
    weights = {name: moved[name][None] for name in target.network.approximated}
    pair = _NetworkPair(target, weights)
    bounds = pair.records(graph, "", _input_bounds(target, box), tighten=False)[-1].out
    corners = random.choice(box, (40, *spec.shape))
    x = np.concatenate([random.uniform(*box, (40, *spec.shape)), corners]).astype(np.float32).astype(np.float64)
    f, g = (run_float64(target.network, tensors, x) for tensors in (theirs, moved))
    return f, g - f, bounds


def inside(values: np.ndarray, own: Any) -> bool:
    """Whether values lie in intervals, up to the rounding of float64 when they were computed."""
    room = 1e-9 * (1 + own.magnitude)
    return bool((values >= own.low - room).all() and (values <= own.high + room).all())


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_stay_within_their_bounds(seed: int) -> None:
    choose = random.Random(seed)
    graph, spec = random_graph(choose, supported)
    layer = next((name for name, node, _ in reversed(graph.nodes) if isinstance(node, Dense)), None)
    if layer is None:  # with one layer at the end
        size = graph.input_specs(spec)[graph.output].shape[-1]
        graph = Graph((*graph.nodes, ("fc", Dense(size, 2), (graph.output,))), "fc")
    for box in ((0.0, 1.0), (-1.0, 0.5)):
        try:
            f, difference, bounds = differences(graph, spec, box, seed)
        except InputError as error:  # a random condition
            assert "cannot be bounded through 'select'" in str(error)
            return
        assert inside(f, bounds.f) and inside(difference, bounds.difference)


BLOCK = (
    ("c1", Conv(2, 4, (3, 3), padding=(1, 1)), "input"),
    ("r1", Binary("max"), "c1 zero"),
    ("c2", Conv(4, 2, (3, 3), padding=(1, 1), bias=True), "r1"),
    ("sum", Binary("add"), "c2 input"),
    ("r2", Binary("max"), "zero sum"),
)
GRAPHS: dict[str, tuple[Graph, Spec]] = {
    "residual": (
        Graph(
            steps(
                ("zero", Constant(0.0), ""),
                *BLOCK,
                ("mean", Reduce("sum", (0, 1)), "r2"),
                ("count", Constant(16.0), ""),
                ("scaled", Binary("div"), "mean count"),
                ("fc", Dense(2, 3), "scaled"),
            ),
            "fc",
        ),
        Spec((4, 4, 2), True),
    ),
    "gate": (
        Graph(
            steps(
                ("fc1", Dense(4, 6, bias=True), "input"),
                ("fc2", Dense(4, 6), "input"),
                ("gate", Elementwise("logistic"), "fc2"),
                ("product", Binary("mul"), "fc1 gate"),
                ("scale", Stored((6,)), ""),
                ("scaled", Binary("mul"), "scale product"),
                ("out", Dense(6, 2), "scaled"),
            ),
            "out",
        ),
        Spec((4,), True),
    ),
    "norm of the input": (
        Graph(
            steps(
                ("one", Constant(1.0), ""),
                ("logs", Elementwise("log1p"), "input"),
                ("scaled", Binary("div"), "logs one"),
                ("exp", Elementwise("exp"), "scaled"),
                ("fc", Dense(4, 2), "exp"),
            ),
            "fc",
        ),
        Spec((4,), True),
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_measured_is_at_most_searched_is_at_most_the_bound(name: str) -> None:
    target = random_target(Network(*GRAPHS[name]))
    stored = {own: target.array(own) for own in set(target.network.tensors) - set(target.network.approximated)}
    ticket = tiny.masked(target, 0.5, 0, promise=True, stored=stored)
    verified = verify_box(ticket, target=target, box=(0.0, 1.0))
    bound, found = verified.output_bound, verified.largest_found
    assert bound is not None and found is not None and bound.linear is None
    assert 0 < found <= bound.largest < 1000 * found
    x = jnp.asarray(np.random.default_rng(0).random((100, *GRAPHS[name][1].shape), np.float32))
    made = np.abs(np.asarray(ticket.forward()(x), np.float64) - np.asarray(target.forward()(x), np.float64))
    assert (made.max(0) <= bound.by_output + 1e-4).all() and made.max() <= found * 1.001
    worst = max(np.abs(value - target.array(own)).max() for own, value in effective_weights(ticket).items())
    assert (bound.interval <= bound_output_from_tolerance(target, worst) * (1 + 1e-9)).all()


LAYERS: dict[str, tuple[Spec, tuple[Node, ...]]] = {
    "mlp": (
        Spec((4,), True),
        (Dense(4, 6, bias=True), Relu(), Dense(6, 5), Tanh(), Dense(5, 4), Sigmoid(), Dense(4, 2)),
    ),
    "leaky": (Spec((4,)), (Dense(4, 6), LeakyRelu(0.25), Dense(6, 3, bias=True))),
    "convolutions": (
        Spec((6, 6, 2), True),
        (Conv(2, 3, (3, 3), bias=True), Relu(), MaxPool((2, 2)), Conv(3, 4, (2, 2)), Relu(), Flatten(), Dense(4, 2)),
    ),
}


def as_operations(name: str, layer: Node, given: str) -> tuple[tuple[str, Node, tuple[str, ...]], ...]:
    """The elementary operations of a layer without weights."""
    match layer:
        case Relu():
            rows = (f"{name}0", Constant(0.0), ""), (name, Binary("max"), f"{given} {name}0")
        case LeakyRelu():
            rows = (
                *((f"{name}0", Constant(0.0), ""), (f"{name}s", Constant(layer.slope), "")),
                *((f"{name}p", Binary("ge"), f"{given} {name}0"), (f"{name}n", Binary("mul"), f"{name}s {given}")),
                (name, Select(), f"{name}p {name}n {given}"),
            )
        case Tanh():
            rows = ((name, Elementwise("tanh"), given),)
        case Sigmoid():
            rows = ((name, Elementwise("logistic"), given),)
        case MaxPool():
            rows = ((name, ReduceWindow("max", (2, 2, 1), (2, 2, 1), (0, 0, 0), (0, 0, 0)), given),)
        case Flatten():  # channels come first
            rows = (f"{name}t", Transpose((2, 0, 1)), given), (name, Reshape((4,)), f"{name}t")
        case _:
            rows = ((name, layer, given),)
    return steps(*rows)


@pytest.mark.parametrize("operations", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_graph_has_the_bounds_of_its_chain(name: str, operations: bool) -> None:
    spec, layers = LAYERS[name]
    chain = Network(Chain(tuple((f"n{at}", layer) for at, layer in enumerate(layers))), spec)
    nodes: list[tuple[str, Node, tuple[str, ...]]] = []
    for at, layer in enumerate(layers):
        given = f"n{at - 1}" if at else INPUT
        nodes += as_operations(f"n{at}", layer, given) if operations else [(f"n{at}", layer, (given,))]
    graph = Network(Graph(tuple(nodes), f"n{len(layers) - 1}"), spec)
    target, ticket = far(chain)
    other, same = far(graph)
    assert all((target.array(own) == other.array(own)).all() for own in chain.tensors)
    wanted, found = bound_output(ticket, target), bound_output(same, other)
    assert found.interval == pytest.approx(wanted.interval, rel=1e-9)
    assert found.from_tolerance == pytest.approx(wanted.from_tolerance, rel=1e-9)
    searched = [attack(*both, starts=8, steps=10) for both in ((ticket, target), (same, other))]
    assert searched[1] == pytest.approx(searched[0], rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((("soft", Elementwise("exp"), "fc"),), "at the node 'soft' the output cannot be bounded through 'exp'"),
        ((("q", Binary("div"), "fc2 fc"),), "at the node 'q' the output cannot be bounded through 'div'"),
        (
            (("is", Binary("gt"), "fc fc2"), ("s", Select(), "is fc fc2")),
            "at the node 's' the output cannot be bounded through 'select'",
        ),
        ((("p", Reduce("prod", (0,)), "fc"),), "at the node 'p' the output cannot be bounded through 'prod'"),
        ((("l", Elementwise("log"), "input"), ("o", Binary("add"), "l fc")), "at the node 'l' the output cannot"),
    ],
)
def test_a_node_without_a_bound_is_named(rows: tuple[tuple[str, Node, str], ...], message: str) -> None:
    first = ("fc", Dense(3, 3), "input"), ("fc2", Dense(3, 3), "input")
    target = random_target(Network(Graph(steps(*first, *rows), rows[-1][0]), Spec((2, 3))))
    with pytest.raises(InputError, match=message):
        bound_output_from_tolerance(target, 0.01)
