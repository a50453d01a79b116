"""Graphs: untrusted JSON, names, cost of reading, and equality with the same network as a tree of layers."""

import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.networks.codec import from_json, to_json
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import (
    Binary,
    Concatenate,
    Constant,
    DotGeneral,
    Elementwise,
    Lookup,
    Operation,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Stored,
    Transpose,
)
from lottery_jax.networks.layers.tensor_dict import NamedTensor
from lottery_jax.networks.network import Network, network_from_json
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.sources.replicated_neurons import ReplicatedNeurons
from lottery_jax.rng.sampler import Sampler
from tests.constructions.catalogue import TARGETS
from tests.networks.catalogue import drawn, run, stored
from tests.networks.graph_cases import GRAPH_CASES, copied, diamond, gate, random_layers, sequence
from tests.networks.graphs import Builder, as_graph
from tests.networks.test_codec import mutated, places

DENSE, EXP, ADD, ONE = (to_json(node) for node in (Dense(3, 3), Elementwise("exp"), Binary("add"), Constant(1.0)))
FC = ["fc", DENSE, ["input"]]


def graph_row(*nodes: list, output: str = "out") -> dict[str, Any]:
    return {"kind": "graph", "nodes": [FC, *nodes], "output": output}


def out(kind: str, *inputs: str, **fields: Any) -> list:
    return ["out", {"kind": kind, **fields}, list(inputs or ("fc",))]


def windows(**changed: list[int]) -> list:
    fields = {"size": [2], "stride": [1], "low": [0], "high": [0]} | changed
    return out("reduce_window", function="max", **fields)


FREE = {"left_summed": [], "right_summed": [], "left_shared": [], "right_shared": []}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (graph_row(["out", EXP, ["later"]], ["later", EXP, ["fc"]]), "'out' must take outputs of earlier .* 'later'"),
        (graph_row(["out", EXP, ["out"]]), "'out' must take outputs of earlier nodes, got 'out'"),
        (graph_row(["a", EXP, ["out"]], ["out", EXP, ["a"]]), "'a' must take outputs of earlier nodes, got 'out'"),
        (graph_row(["out", EXP, [""]]), "got ''"),
        (graph_row(["fc", EXP, ["fc"]], output="fc"), "must have different names, got 'fc'"),
        (graph_row(["input", EXP, ["fc"]], output="input"), "must have different names, got 'input'"),
        (graph_row(["", EXP, ["fc"]], output=""), "must have different names, got ''"),
        (graph_row(["(a)", EXP, ["fc"]], output="(a)"), r"must have different names, got '\(a\)'"),
        (
            graph_row(["a.b", DENSE, ["fc"]], ["a", to_json(Chain((("b", Dense(3, 3)),))), ["a.b"]], output="a"),
            "2 with",
        ),
        (graph_row(["out", ONE, []]), "must depend on its input, got 'out'"),
        (graph_row(output="no"), "must depend on its input, got 'no'"),
        (graph_row(["out", EXP, []]), "'out' must have 1 inputs, got 0"),
        (graph_row(["out", ADD, ["fc"]]), "'out' must have 2 inputs, got 1"),
        (graph_row(["out", ONE, ["fc"]]), "'out' must have 0 inputs, got 1"),
        (graph_row(["out", DENSE, ["fc", "fc"]]), "'out' must have 1 inputs, got 2"),
        (graph_row(["out", to_json(Concatenate(0)), []]), "'out' must have at least 1 input, got 0"),
        (
            graph_row(["out", to_json(Chain((("a", Elementwise("exp")),))), ["fc"]]),
            "'out.a'.*must be a node of a graph",
        ),
        (graph_row(["out", to_json(Residual(Elementwise("exp"))), ["fc"]]), "an operation must be a node of a graph"),
        (graph_row(["out", to_json(NamedTensor((3, 3))), ["fc"]]), "graph of a model must be known"),
        (graph_row(out("broadcast", shape=[2**28, 3])), "node 'out': the shape of an example .* 268,435,456"),
        (graph_row(out("broadcast", shape=[4])), r"broadcast must fit its input \[3\], got \[4\]"),
        (graph_row(out("broadcast", shape=[2**31 - 1] * 5)), "broadcast must fit its input"),
        (graph_row(out("broadcast", shape=[])), r"broadcast must fit its input \[3\], got \[\]"),
        (graph_row(out("broadcast", shape=[1] * 40 + [3])), "at most 16 axes"),
        (graph_row(out("reshape", shape=[1] * 100_000)), "reshape must keep the number of values"),
        (graph_row(out("reshape", shape=[])), "reshape must keep"),
        (graph_row(out("reshape", shape=[1] * 100 + [3])), "at most 16 axes"),
        (graph_row(out("reshape", shape=[-1])), "must be an integer from 0 to 2147483647, got -1"),
        (graph_row(out("reshape", shape=[True])), "must be an integer from 0 to 2147483647, got True"),
        (graph_row(out("pad", low=[0], high=[0], interior=[2**30], value=0.0)), "the shape of an example"),
        (graph_row(out("pad", low=[0], high=[-1], interior=[0], value=0.0)), "must be an integer from 0"),
        (graph_row(out("pad", low=[0], high=[0], interior=[], value=0.0)), "must have a number for each axis"),
        (graph_row(out("pad", low=[0], high=[0], interior=[0], value=1e300)), "of a magnitude from"),
        (
            graph_row(out("slice", start=[0], limit=[4], step=[1])),
            r"slice must stay in \[3\], got 0 to 4 in steps of 1",
        ),
        (graph_row(out("slice", start=[2], limit=[2], step=[1])), "got 2 to 2 in steps of 1"),
        (graph_row(out("slice", start=[0], limit=[3], step=[0])), "got 0 to 3 in steps of 0"),
        (graph_row(windows(size=[4])), r"windows of \[4\] must fit into \[3\] and its padding"),
        (graph_row(windows(low=[2], high=[2])), "must fit"),
        (graph_row(windows(size=[2**30], low=[2**30 - 1], high=[2**30 - 1], stride=[0])), "must fit"),
        (graph_row(windows(size=[0])), "must fit"),
        (graph_row(windows(stride=[])), "must have a number for each axis"),
        (
            graph_row(out("dot_general", "fc", "fc", **FREE | {"left_summed": [0, 0], "right_summed": [0, 0]})),
            "different",
        ),
        (graph_row(out("dot_general", "fc", "fc", **FREE | {"left_summed": [0], "right_shared": [0]})), "pair axes"),
        (
            graph_row(out("dot_general", "fc", "fc", **FREE | {"left_summed": [1], "right_summed": [0]})),
            "different axes",
        ),
        (graph_row(out("dot_general", "fc", "fc", **FREE | {"left_summed": [0]})), "pair axes of equal sizes"),
        (graph_row(out("reduce", function="sum", axes=[0])), r"at least one axis of \[3\], got the axes \[0\]"),
        (graph_row(out("reduce", function="mean", axes=[])), "must be one of"),
        (graph_row(out("transpose", axes=[1])), "each axis"),
        (graph_row(out("transpose", axes=[0] * 100_000)), "each axis"),
        (graph_row(out("concatenate", axis=1)), "differ in axis 1 only"),
        (graph_row(out("power", exponent=0)), "from 1 to 64, got 0"),
        (graph_row(out("power", exponent=2**31 - 1)), "from 1 to 64"),
        (graph_row(out("elementwise", function="__class__")), "must be one of"),
        (graph_row(["s", to_json(Stored((2,))) | {"shape": []}, []], ["out", ADD, ["fc", "s"]]), "at most 16 axes"),
        (graph_row(["s", to_json(Stored((2,))) | {"shape": [0]}, []], ["out", ADD, ["fc", "s"]]), "sizes from 1"),
        (
            graph_row(["s", to_json(Stored((2,))), []], ["out", ADD, ["fc", "s"]]),
            r"must broadcast, got \[\[3\], \[2\]\]",
        ),
        (graph_row(["out", {**ONE, "value": 1e-30}, []]), "of a magnitude from"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_graph_that_is_not_one_is_refused(row: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        network_from_json({"input_spec": [[3], False], "root": row})
    assert len(str(error.value)) < 1000


ROWS = [{"input_spec": [list(row[1]), True], "root": to_json(row[0])} for row in GRAPH_CASES]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_graph_that_is_read_computes_what_its_spec_says(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(ROWS))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(row)[1:]))
        junk = data.draw(st.sampled_from([*range(9), [], [1], [0, 1], [2, 2], "input", "n0", "n1", "op", -1, 2**14]))
        row = mutated(row, path, data.draw(st.sampled_from(["replace", "delete", "double"])), junk)
    try:
        network = network_from_json(row)
    except InputError:
        return
    assert network.output_spec is not None and network.input_spec is not None
    shapes = network.tensors | {name: tensor.shape for name, tensor in network.random_tensors.items()}
    tensors = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    x = jax.ShapeDtypeStruct((2, *network.input_spec.shape), jnp.float32)
    found = jax.eval_shape(lambda tensors, x: network.module(tensors, _all)(x), tensors, x)  # type: ignore[operator]
    assert (found.shape, found.dtype) == ((2, *network.output_spec.shape), jnp.float32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Constant(float("nan")), "must be 0 or of a magnitude from .* got nan"),
        (lambda: Constant(-3.4e38), "must be 0 or of a magnitude from .* got -3.4e"),
        (lambda: Pad((0,), (0,), (0,), float("-inf")), "must be 0 or of a magnitude from .* got -inf"),
        (lambda: Pad((-1,), (1,), (0,)), "pad must add numbers, got -1"),
        (lambda: Slice((-1,), (3,), (1,)).combined_spec(Spec((3,))), "slice must stay in"),
        (lambda: Concatenate(-1).combined_spec(Spec((3,))), "differ in axis -1 only"),
        (lambda: Transpose((-1,)).combined_spec(Spec((3,))), "each axis"),
        (lambda: Reduce("sum", (-1,)).combined_spec(Spec((3, 2))), "at least one axis"),
        (lambda: DotGeneral((-1,), (-1,)).combined_spec(Spec((3,)), Spec((3,))), "different axes"),
        (lambda: Reshape((-1,)).combined_spec(Spec((3,))), "reshape must keep"),
        (lambda: Stored(()), "at most 16 axes"),
        (
            lambda: Elementwise("exp").output_spec(Spec((3,))),
            "an operation must be a node of a graph, got 'elementwise'",
        ),
        (lambda: Chain((("a", Binary("add")),)).output_spec(Spec((3,))), "node 'a': an operation must be a node"),
        (lambda: Stored((2,)).initial(jax.random.key(0)), "must consist of layers, got a graph with a stored tensor"),
        (lambda: diamond().resized(Spec((5,)), lambda units: 2 * units), "must consist of layers, got a graph"),
    ],
)
def test_what_no_file_may_hold_is_refused_in_python_too(make: Any, words: str) -> None:
    """Else a ticket could be written that nothing reads."""
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("name", ["keys", "items", "__class__", "__dict__", "_object__state", "a(b", "a b", "1", "é"])
@pytest.mark.parametrize("kind", ["chain", "graph", "stored"])
def test_any_name_is_only_a_name(name: str, kind: str) -> None:
    """Names come from files and from modules: none may be an attribute of the Flax module."""
    layers: dict[str, Node] = {
        "chain": Chain(((name, Dense(3, 3)),)),
        "graph": Graph(((name, Dense(3, 3), (INPUT,)),), name),
        "stored": Graph(((name, Stored((3,)), ()), ("mul", Binary("mul"), (name, INPUT))), "mul"),
    }
    network = Network(Chain((("first", layers[kind]), ("last", Dense(3, 2)))), Spec((3,)))
    tensors = {own: np.ones(shape, np.float32) for own, shape in network.tensors.items()}
    size = 3 if kind == "stored" else 9
    assert network.module(tensors)(jnp.ones((1, 3))).tolist() == [[size, size]]  # type: ignore[operator]
    assert network.train(tensors, jnp.ones((1, 3)))[1] == {}


@pytest.mark.clock
def test_reading_takes_linear_time() -> None:
    """10,000 nodes in seconds: with the square of their number it would be minutes."""
    values = [f"n{number}" for number in range(10_000)]
    steps = [(name, Elementwise("tanh"), (before,)) for before, name in zip(["fc", *values], values, strict=False)]
    whole = Graph((("fc", Dense(3, 3), (INPUT,)), *steps, ("all", Concatenate(0), tuple(values))), "all")
    start = time.process_time()
    network = network_from_json(json.loads(json.dumps(Network(whole, Spec((3,))).to_json())))
    # The last node takes all of them.
    assert network.cost.numbers == 2 * 3 * len(values)
    assert network.map_layers(lambda path, node: node) == network.target == network
    assert time.process_time() - start < 20


def test_values_are_released_after_their_last_use() -> None:
    """By name: what no later node reads, and what nothing reads at all."""
    expected = {"fc1": {INPUT}, "relu": set(), "n2": {"fc1"}, "fc2": {"n2"}, "n4": {"relu", "fc2"}, "fc3": {"n4"}}
    assert {name: set(names) for name, names in diamond().last_uses().items()} == expected
    assert gate(6).last_uses()["unread"] == ("unread",)


@pytest.mark.parametrize("make", [diamond, lambda: gate(8), random_layers, copied])
def test_values_are_those_of_all_nodes(make: Any) -> None:
    """With `keep` every value that depends on the input is there, and the output is the same."""
    graph: Graph = make()
    shape = (6, 5, 4) if make is copied else (7, 8) if make not in (diamond, random_layers) else (5,)
    tensors, (random, masks) = stored(graph), drawn(graph, shape)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    module = Network(graph, Spec(shape)).module(
        {**tensors, **{name: random[name] * masks[name] for name in random}}, _all
    )
    found = module.values(jnp.asarray(x), keep=True)  # type: ignore[attr-defined]
    independent = {name for name, node, inputs in graph.nodes if not inputs}
    assert set(found) == {INPUT, *graph.children()} - independent
    for name, spec in graph.input_specs(Spec(shape)).items():
        if name in found:
            assert found[name].shape == (2, *spec.shape)
    np.testing.assert_allclose(found[graph.output], run(graph, {**tensors, **random}, masks, x), rtol=1e-5, atol=1e-5)


def _all(name: str) -> Any:
    return lambda: jnp.array(True)


U = Sampler.uniform(-1, 1)


@pytest.mark.parametrize(
    ("operation", "inputs"),
    [
        (Reshape((12, 1)), 1),
        (Slice((0, 0), (2, 3), (1, 1)), 1),
        (Transpose((1, 0)), 1),
        (Reduce("sum", (1,)), 1),
        (Concatenate(1), 2),
        (DotGeneral((1,), (1,)), 2),
        (Lookup(), 2),
        (Pad((0, 1), (0, 0), (0, 0)), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_copies_are_refused_where_places_change(operation: Operation, inputs: int) -> None:
    """The channels of the target are no longer those of the network with copies of its neurons."""
    copies = Spec((2, 6), copies=2, copy_stride=3)
    for own in ([copies] * inputs, [Spec((2, 6)), copies], [copies, Spec((2, 6))]):
        if len(own) == inputs:
            with pytest.raises(InputError, match=r"must have one copy of each channel, got 2.*such as pensia"):
                operation.combined_spec(*own)


def test_copies_pass_elementwise_operations_with_equal_copies_only() -> None:
    copies, other = Spec((6,), copies=2, copy_stride=3), Spec((6,), copies=3)
    assert Binary("add").combined_spec(copies, copies) == copies
    assert Binary("add").combined_spec(copies, Spec((1,))) == copies
    for own in ((copies, other), (copies, Spec((6,)))):
        with pytest.raises(InputError, match="must have inputs with equal copies of each channel"):
            Binary("add").combined_spec(*own)
    graph = sequence((Binary("mul"), None, Stored((6,))))
    doubled = ReplicatedNeurons(Dense(4, 3), 1, 2, U)
    with pytest.raises(InputError, match="equal copies"):
        Network(Chain((("a", doubled), ("b", graph), ("c", ReplicatedNeurons(Dense(3, 2), 2, 1, U)))), Spec((4,)))


@pytest.mark.parametrize("label", [label for label in TARGETS if label != "bag"])
def test_a_graph_of_a_tree_computes_the_same(label: str) -> None:
    target = TARGETS[label]()
    graph = as_graph(target.network)
    assert graph.tensors == target.network.tensors and list(graph.weight_nodes) == list(target.network.weight_nodes)
    assert from_json(to_json(graph.root)) == graph.root
    assert graph.output_spec == target.network.output_spec
    assert target.network.input_spec is not None
    x = np.random.default_rng(0).uniform(0, 1, (4, *target.network.input_spec.shape)).astype(np.float32)
    modules = (network.module(target.arrays()) for network in (graph, target.network))
    found, expected = (np.asarray(module(jnp.asarray(x))) for module in modules)  # type: ignore[operator]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_training_updates_the_same_statistics() -> None:
    target = TARGETS["residual, inputs of any sign"]()
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, 4, 4, 1)), jnp.float32)
    (_, found), (_, expected) = (one.train(target.arrays(), x) for one in (as_graph(target.network), target.network))
    assert list(found) == list(expected) != []
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6)


def test_a_layer_inside_a_graph_is_named_by_its_path() -> None:
    builder = Builder()
    inner = builder.add(Graph((("fc", Dense(4, 2), (INPUT,)),), "fc"), INPUT, name="block")
    with pytest.raises(InputError, match=r"'outer\.block\.fc'"):
        Network(Chain((("outer", builder.graph(inner)),)), Spec((3,)))
