"""Random graphs, and the check that every value of a graph lies in its interval."""

import random
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.intervals import IntervalArray
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph, GraphModule
from lottery_jax.networks.layers.operations import (
    BINARY,
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
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec, child_path
from lottery_jax.tickets.box_bounds import NotBounded, _Walk
from lottery_jax.tickets.graph_bounds import _GraphBounds
from lottery_jax.tickets.linear_terms import target_terms

Box = tuple[float, float]
SHAPES = ((4,), (3, 4), (2, 3, 4))


def values_of(graph: Graph, spec: Spec, seed: int) -> dict[str, np.ndarray]:
    """Random tensors of a graph, some of them nearly equal."""
    random = np.random.default_rng(seed)
    network = Network(Chain((("g", graph),)), spec)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in network.tensors.items()}


def bounds_of(
    graph: Graph, spec: Spec, box: Box, tensors: dict[str, np.ndarray], apart: float | None = None
) -> tuple[_GraphBounds, str | None]:
    """The intervals of the nodes up to the first one that is not bounded, and its path."""
    network = Network(Chain((("g", graph),)), spec)

    def tensor(name: str) -> np.ndarray:
        return tensors[name].astype(np.float64)

    walk = _Walk(network, target_terms(tensor), tensor)
    bounds, refused = _GraphBounds(graph, walk, "g", graph.input_specs(spec)), None
    bounds.values[INPUT] = IntervalArray(*(np.full([1] * len(spec.shape), np.float64(end)) for end in box))
    if apart is not None:
        bounds.apart[INPUT] = np.full((2, *[1] * len(spec.shape)), apart)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        try:
            bounds.run(copied=apart is not None)
        except NotBounded as error:
            refused = str(error)
    return bounds, refused


def check_values(graph: Graph, spec: Spec, box: Box, seed: int = 0) -> tuple[_GraphBounds, str | None]:
    """Assert that the values of all bounded nodes lie in their intervals."""
    # A network needs a tensor.
    graph = Graph((*graph.nodes, ("none", Dense(spec.shape[-1], 1), (INPUT,))), graph.output)
    tensors = values_of(graph, spec, seed)
    bounds, refused = bounds_of(graph, spec, box, tensors)
    module = module_of(graph, spec, tensors)
    x = inputs_on(spec.shape, box, seed)
    for name, made in jax.jit(lambda x: module.values(x, keep=True))(jnp.asarray(x)).items():
        if name in bounds.values:
            made, own = np.asarray(made, np.float64), bounds.values[name]
            assert np.isfinite(made).all(), name
            assert (made >= own.low).all() and (made <= own.high).all(), (name, made.min(), made.max(), own)
    return bounds, refused


def module_of(graph: Graph, spec: Spec, tensors: dict[str, np.ndarray]) -> GraphModule:
    """The module of a graph whose tensors have names of `values_of`."""
    chain = Chain((("g", graph),))
    return chain.child_modules(Network(chain, spec).module(tensors))["g"]  # type: ignore[arg-type,return-value]


def inputs_on(shape: tuple[int, ...], box: Box, seed: int) -> np.ndarray:
    """Random inputs, corners, constant inputs, and inputs that differ in one number only."""
    random = np.random.default_rng(seed)
    inside, corners = random.uniform(*box, (30, *shape)), random.choice(box, (30, *shape))
    constant = np.multiply.outer(np.linspace(*box, 11), np.ones(shape))
    one = np.full((10, *shape), box[0])
    one.reshape(10, -1)[:, 0] = np.linspace(*box, 10)
    x = np.concatenate([inside, corners, constant, one]).astype(np.float32)
    return np.clip(x, np.float32(box[0]), np.float32(box[1]))


def random_operation(choose: random.Random, shapes: list[tuple[int, ...]]) -> Node:
    """An operation that may fit inputs of these shapes."""
    shape = shapes[0]
    axes = [*range(len(shape))]
    sizes = [choose.randint(1, min(2, size)) for size in shape]
    kinds: list[Callable[[], Node]] = [
        lambda: Elementwise(choose.choice([*UNARY])),  # type: ignore[arg-type]
        lambda: Binary(choose.choice([*BINARY])),  # type: ignore[arg-type]
        lambda: Binary(choose.choice(["add", "sub", "mul", "div", "max"])),  # type: ignore[arg-type]
        lambda: Power(choose.randint(1, 4)),
        lambda: Select(),
        lambda: Reshape(
            choose.choice([(*shape, 1), (1, *shape), (int(np.prod(shape)),), (2, -(-int(np.prod(shape)) // 2))])
        ),
        lambda: Transpose(tuple(choose.sample(axes, len(axes)))),
        lambda: Broadcast(choose.choice([(2, *shape), tuple(3 if size == 1 else size for size in shape)])),
        lambda: Slice(tuple(size - 1 if size < 2 else choose.randint(0, 1) for size in shape), shape, tuple(sizes)),
        lambda: Pad(*(tuple(choose.randint(0, 1) for _ in shape) for _ in range(3)), choose.choice([0.0, -2.0])),  # type: ignore[arg-type]
        lambda: Concatenate(choose.choice(axes)),
        lambda: Reduce(choose.choice(["sum", "max", "min", "prod"]), (choose.choice(axes),)),  # type: ignore[arg-type]
        lambda: ReduceWindow(
            choose.choice(["sum", "max", "min"]),  # type: ignore[arg-type]
            *(tuple(sizes), tuple(choose.randint(1, 2) for _ in shape)),
            *(tuple(choose.randint(0, size - 1) for size in sizes) for _ in range(2)),  # type: ignore[arg-type]
        ),
        lambda: DotGeneral((len(shape) - 1,), (len(shapes[-1]) - 1,)),
        lambda: DotGeneral((len(shape) - 1,), (len(shapes[-1]) - 1,), (0,), (0,)),
        lambda: Lookup(),
    ]
    return choose.choice(kinds)()


def random_layer(choose: random.Random, shapes: list[tuple[int, ...]]) -> Node:
    """An operation or, sometimes, a layer."""
    layer = choose.choice([Dense(shapes[0][-1], 4, bias=True), Relu()])
    return layer if choose.random() < 0.1 else random_operation(choose, shapes)


def random_graph(
    choose: random.Random, draw: Callable[[random.Random, list[tuple[int, ...]]], Node] = random_layer
) -> tuple[Graph, Spec]:
    """A graph of up to ten nodes that fit together, the last one its output."""
    spec = Spec(choose.choice(SHAPES))
    nodes: list[tuple[str, Node, tuple[str, ...]]] = [
        ("half", Constant(0.5), ()),
        ("stored", Stored(choose.choice(SHAPES)), ()),
        ("start", Binary("sub"), (INPUT, "half")),
    ]
    graph = Graph(tuple(nodes), "start")
    specs = graph.input_specs(spec)
    for number in range(30):
        if len(nodes) == 12:
            break
        names = [choose.choice([*specs]) for _ in range(3)]
        node = draw(choose, [specs[name].shape for name in names])
        arity = node.arity if isinstance(node, Operation) else 1
        names = names[: 2 if arity is None else arity]
        more = (f"n{number}", node, tuple(names))
        try:
            trial = Graph((*nodes, more), more[0])
            found = trial.input_specs(spec)[more[0]]
        except InputError:
            continue
        if np.prod(found.shape) <= 500:
            nodes, graph = [*nodes, more], trial
            specs[more[0]] = found
    return graph, spec


def steps(*rows: tuple[str, Node, str]) -> tuple[tuple[str, Node, tuple[str, ...]], ...]:
    """Rows of name, node and its inputs in words."""
    return tuple((name, node, tuple(inputs.split())) for name, node, inputs in rows)


def softmax(of: str, axis: int, shape: tuple[int, ...]) -> tuple[tuple[str, Node, str], ...]:
    """`jax.nn.softmax`, operation by operation."""
    kept = tuple(1 if at == axis else size for at, size in enumerate(shape))
    return (
        ("max", Reduce("max", (axis,)), of),
        ("max1", Reshape(kept), "max"),
        ("shifted", Binary("sub"), f"{of} max1"),
        ("exp", Elementwise("exp"), "shifted"),
        ("sum", Reduce("sum", (axis,)), "exp"),
        ("sum1", Reshape(kept), "sum"),
        ("shares", Binary("div"), "exp sum1"),
    )


def as_graph(network: Network) -> Network:
    """A network of chains and residual blocks as one graph of its layers, with the same paths."""
    nodes: list[tuple[str, Node, tuple[str, ...]]] = []

    def flatten(node: Node, path: str, given: str) -> str:
        if isinstance(node, Chain):
            for name, child in node.nodes:
                given = flatten(child, child_path(path, name), given)
            return given
        if isinstance(node, Residual):
            both = flatten(node.body, path, given), flatten(node.shortcut, child_path(path, "downsample"), given)
            node, path, inputs = Binary("add"), f"{path}.sum", both
        else:
            inputs = (given,)
        nodes.append((path, node, inputs))
        return path

    output = flatten(network.root, "", INPUT)
    return Network(Graph(tuple(nodes), output), network.input_spec)
