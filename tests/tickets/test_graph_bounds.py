"""Intervals of all values of a graph: whatever its float32 network computes on a box lies inside, node by node."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.approximation import approximate
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Constant,
    DotGeneral,
    Elementwise,
    Power,
    Reduce,
    Reshape,
    Select,
    Stored,
    Transpose,
)
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.target import Target
from lottery_jax.tickets.box_bounds import bound_box
from lottery_jax.tickets.linear_terms import target_terms
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import TARGETS
from tests.tickets.graphs import as_graph, check_values, softmax, steps, values_of


def test_softmax_attention_gives_a_weighted_mean_of_its_values() -> None:
    """Scores of thousands: intervals alone know nothing of their softmax, whose sum would contain 0."""
    scores = DotGeneral((1,), (1,)), DotGeneral((1,), (0,))
    rows = (("q", Dense(4, 4), "input"), ("k", Dense(4, 4), "input"), ("v", Dense(4, 4), "input"))
    start = (*rows, ("scores", scores[0], "q k"))
    graph = Graph(steps(*start, *softmax("scores", 1, (3, 3)), ("out", scores[1], "shares v")), "out")
    found, refused = check_values(graph, Spec((3, 4)), (-30.0, 30.0))
    assert refused is None
    shares, values, out = (found.values[name] for name in ("shares", "v", "out"))
    assert found.values["shifted"].high.max() == 0 and found.values["sum"].low.min() > 0.99
    assert shares.low.min() >= 0 and shares.high.max() < 1.001
    assert np.allclose(out.high, values.high, rtol=1e-3) and np.allclose(out.low, values.low, rtol=1e-3)
    swapped = Graph((*graph.nodes[:-1], ("out", DotGeneral((0,), (1,)), ("v", "shares"))), "out")
    found, refused = check_values(swapped, Spec((3, 4)), (-30.0, 30.0))
    assert refused is None and np.allclose(found.values["out"].high.reshape(-1), values.high.reshape(-1), rtol=1e-3)


NORMS = {
    "flax": (
        ("squares", Elementwise("square"), "input"),
        ("sums", Reduce("sum", (1,)), "input"),
        ("mean", Binary("div"), "sums count"),
        ("mean2", Reduce("sum", (1,)), "squares"),
        ("mean3", Binary("div"), "mean2 count"),
        ("mean4", Elementwise("square"), "mean"),
        ("var", Binary("sub"), "mean3 mean4"),
        ("var1", Binary("max"), "zero var"),
        ("mean5", Reshape((3, 1)), "mean"),
        ("var2", Reshape((3, 1)), "var1"),
        ("centred", Binary("sub"), "input mean5"),
        ("var3", Binary("add"), "var2 epsilon"),
        ("root", Elementwise("rsqrt"), "var3"),
        ("scaled", Binary("mul"), "root scale"),
        ("out", Binary("mul"), "centred scaled"),
    ),
    "equinox": (
        ("sums", Reduce("sum", (1,)), "input"),
        ("sums1", Reshape((3, 1)), "sums"),
        ("mean", Binary("div"), "sums1 count"),
        ("other", Binary("div"), "sums1 count"),
        ("first", Binary("sub"), "input mean"),
        ("squares", Elementwise("square"), "first"),
        ("var", Reduce("sum", (1,)), "squares"),
        ("var1", Reshape((3, 1)), "var"),
        ("var2", Binary("div"), "var1 count"),
        ("var3", Binary("add"), "var2 epsilon"),
        ("root", Elementwise("rsqrt"), "var3"),
        ("centred", Binary("sub"), "input other"),
        ("product", Binary("mul"), "centred root"),
        ("out", Binary("mul"), "product scale"),
    ),
    "onnx": (
        ("eighth", Constant(1 / 8), ""),
        ("two", Constant(2.0), ""),
        ("sums", Reduce("sum", (1,)), "input"),
        ("mean", Binary("mul"), "sums eighth"),
        ("mean1", Broadcast((8, 3)), "mean"),
        ("mean2", Transpose((1, 0)), "mean1"),
        ("centred", Binary("sub"), "input mean2"),
        ("squares", Binary("pow"), "centred two"),
        ("var", Reduce("sum", (1,)), "squares"),
        ("var1", Binary("mul"), "eighth var"),
        ("var2", Reshape((3, 1)), "var1"),
        ("var3", Binary("add"), "epsilon var2"),
        ("root", Elementwise("sqrt"), "var3"),
        ("product", Binary("div"), "centred root"),
        ("out", Binary("mul"), "product scale"),
    ),
    "root mean square": (
        ("squares", Binary("mul"), "input input"),
        ("sums", Reduce("sum", (1,)), "squares"),
        ("mean", Binary("div"), "sums count"),
        ("mean1", Reshape((3, 1)), "mean"),
        ("var", Binary("add"), "mean1 epsilon"),
        ("root", Elementwise("rsqrt"), "var"),
        ("product", Binary("mul"), "input root"),
        ("out", Binary("mul"), "product scale"),
    ),
}
SHARED: tuple[tuple[str, Node, str], ...] = (
    ("count", Constant(8.0), ""),
    ("zero", Constant(0.0), ""),
    ("epsilon", Constant(1e-5), ""),
    ("scale", Stored((8,)), ""),
)


@pytest.mark.parametrize("name", NORMS)
def test_a_normalised_value_is_at_most_the_root_of_the_count(name: str) -> None:
    graph = Graph(steps(*SHARED, *NORMS[name]), "out")
    largest = np.abs(values_of(graph, Spec((3, 8)), 0)["g.scale"])
    for box in ((-1.0, 1.0), (0.0, 2.0**-10), (-(2.0**-7), 2.0**-6), (50.0, 100.0)):
        found, refused = check_values(graph, Spec((3, 8)), box)
        assert refused is None
        size = found.values["out"].magnitude
        # The fast variance of Flax loses its digits where the mean is far larger than the deviation.
        most = 4 + 2.2 * max(map(abs, box)) if name == "flax" else np.sqrt(8) * 1.01 + 0.1 * max(map(abs, box)) / 50
        assert (size <= most * largest * 1.01).all() and size.max() > 0.3
    # Another value over that root is not bounded by the count.
    wrong = [*SHARED, *(row for row in NORMS[name] if row[0] != "out")]
    wrong += [("more", Dense(8, 8), "input"), ("out", Binary("mul" if name != "onnx" else "div"), "more root")]
    found, _ = check_values(Graph(steps(*wrong), "out"), Spec((3, 8)), (-1.0, 1.0))
    assert found.values["out"].magnitude.min() > 100


MISALIGNED: dict[str, tuple[tuple[tuple[str, Node, str], ...], float]] = {
    "maximum of other rows": (
        (("max", Reduce("max", (1,)), "input"), ("out", Binary("sub"), "input max")),
        0.5,
    ),
    "sum of other rows": (
        (
            *(("exp", Elementwise("exp"), "input"), ("sum", Reduce("sum", (1,)), "exp")),
            ("out", Binary("div"), "exp sum"),
        ),
        1.5,
    ),
    "sum of another value": (
        (
            *(("exp", Elementwise("exp"), "input"), ("neg", Elementwise("neg"), "input")),
            *(("other", Elementwise("exp"), "neg"), ("sum", Reduce("sum", (0,)), "other")),
            ("out", Binary("div"), "exp sum"),
        ),
        1.2,
    ),
    "mean square of other rows": (
        (
            *(("squares", Elementwise("square"), "input"), ("sum", Reduce("sum", (1,)), "squares")),
            *(("epsilon", Constant(1e-3), ""), ("more", Binary("add"), "sum epsilon")),
            *(("root", Elementwise("rsqrt"), "more"), ("out", Binary("mul"), "input root")),
        ),
        10.0,
    ),
}


@pytest.mark.parametrize("name", MISALIGNED)
def test_what_only_looks_like_a_norm_or_softmax_is_not_bounded_as_one(name: str) -> None:
    """Of a square array the row of a sum or maximum broadcasts along the other axis too."""
    rows, exceeded = MISALIGNED[name]
    found, refused = check_values(Graph(steps(*rows), "out"), Spec((2, 2)), (-3.0, 3.0))
    assert refused is None and found.values["out"].high.max() > exceeded


def test_shares_that_are_summed_over_another_axis_are_no_mean() -> None:
    rows = (*softmax("input", 1, (3, 3)), ("out", DotGeneral((0,), (0,)), "shares input"))
    found, refused = check_values(Graph(steps(*rows), "out"), Spec((3, 3)), (-3.0, 3.0))
    assert refused is None and found.values["out"].high.max() > 8


CURVES = {
    "silu": (
        (("s", Elementwise("logistic"), "input"), ("out", Binary("mul"), "input s")),
        lambda x: x * jax.nn.sigmoid(x),
    ),
    "gelu": (
        (
            ("half", Constant(0.5), ""),
            ("root", Constant(-(0.5**0.5)), ""),
            ("a", Binary("mul"), "input half"),
            ("b", Binary("mul"), "input root"),
            ("c", Elementwise("erfc"), "b"),
            ("out", Binary("mul"), "a c"),
        ),
        lambda x: jax.nn.gelu(x, approximate=False),
    ),
    "tanh gelu": (
        (
            *(("half", Constant(0.5), ""), ("one", Constant(1.0), ""), ("e", Constant(0.044715), "")),
            ("f", Constant(0.79788456), ""),
            *(("a", Power(3), "input"), ("b", Binary("mul"), "e a"), ("c", Binary("add"), "input b")),
            *(("d", Binary("mul"), "f c"), ("g", Elementwise("tanh"), "d"), ("h", Binary("add"), "one g")),
            *(("i", Binary("mul"), "half h"), ("out", Binary("mul"), "input i")),
        ),
        jax.nn.gelu,
    ),
    "hard swish": (
        (
            *(("three", Constant(3.0), ""), ("six", Constant(6.0), ""), ("zero", Constant(0.0), "")),
            *(("a", Binary("add"), "input three"), ("b", Binary("max"), "zero a"), ("c", Binary("min"), "b six")),
            *(("d", Binary("mul"), "input c"), ("out", Binary("div"), "d six")),
        ),
        jax.nn.hard_swish,
    ),
    "elu": (
        (
            *(("zero", Constant(0.0), ""), ("a", Binary("gt"), "input zero"), ("b", Select(), "a input zero")),
            *(("c", Elementwise("expm1"), "b"), ("out", Select(), "a c input")),
        ),
        jax.nn.elu,
    ),
    "softplus": (
        (
            *(("zero", Constant(0.0), ""), ("a", Binary("max"), "input zero"), ("b", Binary("sub"), "input zero")),
            *(("c", Binary("ne"), "b b"), ("d", Binary("add"), "input zero"), ("e", Elementwise("abs"), "b")),
            *(("f", Elementwise("neg"), "e"), ("g", Elementwise("exp"), "f"), ("h", Elementwise("log1p"), "g")),
            *(("i", Binary("add"), "a h"), ("out", Select(), "c i d")),
        ),
        jax.nn.softplus,
    ),
}


@pytest.mark.parametrize("name", CURVES)
def test_an_activation_is_bounded_nearly_exactly(name: str) -> None:
    rows, function = CURVES[name]
    graph = Graph(steps(*rows), "out")
    for box in ((-100.0, 200.0), (-2.0, 1.0), (0.0, 1.0), (3.0, 4.0)):
        found, refused = check_values(graph, Spec((4,)), box)
        exact = np.asarray(function(jnp.linspace(*box, 10001)))
        assert refused is None
        own = found.values["out"]
        assert own.low.min() > exact.min() - 0.2 and own.high.max() < exact.max() + 0.2


def network_of(graph: Graph, spec: Spec, tensors: dict[str, np.ndarray]) -> tuple[Target, Callable[[str], np.ndarray]]:
    target = Target(Network(graph, spec), tensors)  # type: ignore[arg-type]
    return target, lambda name: target.array(name).astype(np.float64)


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        ((("a", Binary("div"), "fc input"),), "a"),
        ((("a", Elementwise("log"), "fc"),), "a"),
        (
            (
                ("big", Constant(1e18), ""),
                ("a0", Binary("mul"), "fc big"),
                ("a", Binary("mul"), "a0 big"),
                ("b", Elementwise("square"), "a"),
            ),
            "b",
        ),
        ((("big", Constant(89.0), ""), ("a", Binary("add"), "input big"), ("b", Elementwise("exp"), "a")), "b"),
        ((("b", Elementwise("sqrt"), "fc"),), "b"),
        ((("three", Constant(0.3), ""), ("b", Binary("pow"), "fc three")), "b"),
    ],
)
def test_a_node_without_a_bound_is_named(rows: tuple[tuple[str, Node, str], ...], path: str) -> None:
    rows = (("fc", Dense(2, 2), "input"), *rows)
    target, tensor = network_of(
        Graph(steps(*rows), rows[-1][0]), Spec((2,)), {"fc.weight": np.array([[1, -1], [2, 3]], np.float32)}
    )
    found = bound_box(target.network, target_terms(tensor), tensor, (0.0, 1.0))
    assert not found.bounded and found.layer == path


def test_a_graph_of_layers_has_the_bounds_of_its_chain() -> None:
    layers = (("c1", Conv(3, 8, (3, 3), padding=(1, 1))), ("a", Relu()), ("c2", Conv(8, 4, (3, 3), bias=True)))
    before, nodes = INPUT, []
    for name, layer in layers:
        nodes.append((name, layer, (before,)))
        before = name
    graph, chain, spec = Graph(tuple(nodes), "c2"), Chain(layers), Spec((6, 6, 3), True)
    random = np.random.default_rng(0)
    tensors = {n: random.normal(size=s).astype(np.float32) for n, s in Network(chain, spec).tensors.items()}

    def tensor(name: str) -> np.ndarray:
        return tensors[name].astype(np.float64)

    found = [bound_box(Network(root, spec), target_terms(tensor), tensor, (0.0, 1.0)) for root in (graph, chain)]
    assert found[0] == found[1] and found[0].layer == "c2"


def test_fifty_convolutions_of_large_images_take_less_than_a_second() -> None:
    """Bounds of channels do not depend on the number of positions: MobileNet's depthwise blocks with hard swish."""
    nodes: list[tuple[str, Node, tuple[str, ...]]] = [
        (name, Constant(value), ()) for name, value in (("three", 3.0), ("six", 6.0), ("zero", 0.0))
    ]
    last = INPUT
    for block in range(25):
        conv = Conv(32, 32, (3, 3), padding=(1, 1), groups=32), Conv(32, 32, (1, 1), bias=True)
        rows = (
            (f"d{block}", conv[0], last),
            (f"a{block}", Binary("add"), f"d{block} three"),
            (f"b{block}", Binary("max"), f"a{block} zero"),
            (f"c{block}", Binary("min"), f"b{block} six"),
            (f"e{block}", Binary("mul"), f"d{block} c{block}"),
            (f"p{block}", conv[1], f"e{block}"),
            (f"r{block}", Binary("add"), f"p{block} {last}"),
        )
        nodes, last = [*nodes, *steps(*rows)], f"r{block}"
    network = Network(Graph(tuple(nodes), last), Spec((112, 112, 32)))
    tensors = {name: np.full(shape, 0.01, np.float32) for name, shape in network.tensors.items()}

    def tensor(name: str) -> np.ndarray:
        return tensors[name].astype(np.float64)

    start = time.monotonic()
    assert bound_box(network, target_terms(tensor), tensor, (-1.0, 1.0)).bounded
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("construction", "name"),
    [
        ("burkholz", "mlp with biases, inputs of any sign"),
        ("pensia", "mlp with biases, inputs of any sign"),
        pytest.param("burkholz", "residual, inputs of any sign", marks=pytest.mark.slow),
    ],
)
def test_a_ticket_of_a_graph_has_the_certificate_of_the_chain(construction: str, name: str) -> None:
    """Bounds of values, and of how far copies of neurons are apart."""
    target = fold_batch_norm(TARGETS[name]())
    found = []
    for each in (target, Target(as_graph(target.network), target.arrays())):  # type: ignore[arg-type]
        ticket = approximate(each, seed=0, construction=construction, tolerance=0.05)
        certificate = verify(ticket, target=each)
        assert certificate.holds
        assert (certificate.copies_apart is not None) == (construction == "burkholz")
        apart = certificate.copies_apart or 0.0, certificate.copies_apart_allowed or 0.0
        found.append((certificate.largest_value, *apart))
    assert found[1] == pytest.approx(found[0], rel=1e-12)
