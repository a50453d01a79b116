"""A graph and the same network as a tree of layers: equal masks, certificates, rewrites, sizes and exports."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from lottery_jax.approximation import approximate, plan_job, run_in_memory
from lottery_jax.comparison.api import compare
from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT, Graph
from lottery_jax.networks.layers.operations import BinaryOperation, Reshape, ScalarConstant
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.rewrites import batch_norm_folds, fold_batch_norm, merge_attention, quantise
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers
from lottery_jax.theory import THEOREMS
from lottery_jax.theory.theorem import layer_shapes
from lottery_jax.tickets.export import export_masks, export_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify
from tests.comparison import tiny
from tests.constructions.catalogue import CHUNK, COVERED, TARGETS, random_target
from tests.networks.graph_cases import embedding
from tests.networks.graphs import Builder, as_graph, layer_norm

MLP, CONVOLUTIONS = "mlp, inputs of any sign", "convolutions, inputs of any sign"
RESIDUAL, TRANSFORMER = "residual, inputs of any sign", "transformer, inputs of any sign"
FITTING = {"dacunha": (CONVOLUTIONS,), "ferbach": ("rotations, inputs of any sign",), "otsuka": ()}
MORE = {"pensia": (RESIDUAL, TRANSFORMER), "scalar": (TRANSFORMER,), "burkholz": (CONVOLUTIONS, RESIDUAL)}

QUICK = ("pensia", "scalar", "burkholz", "natale", "ferbach")


def graph_of(target: Target) -> Target:
    return Target(as_graph(target.network), target.arrays())  # type: ignore[arg-type]


def contents(ticket: Ticket) -> dict[str, np.ndarray]:
    """What a ticket holds, by name."""
    redraws = {f"redraws {name}": ticket.redraws(name) for name in ticket.network.random_tensors}
    return {**ticket.masks, **ticket.stored, **redraws}


def assert_equal(one: Ticket, other: Ticket) -> None:
    """The same random weights, masks, redraws and stored tensors."""
    found, expected = contents(one), contents(other)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for name, value in other.source().items():
        np.testing.assert_array_equal(one.source()[name], value)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        pytest.param(name, label, marks=pytest.mark.slow if place or name not in QUICK else ())
        for name in COVERED
        for place, label in enumerate((*FITTING.get(name, (MLP,)), *MORE.get(name, ())))
    ],
)
def test_a_graph_has_the_ticket_of_its_tree(name: str, label: str) -> None:
    """Layers with the same paths have the same streams, so that the same bits solve the same problems."""
    entry = COVERED[name]
    target = entry.takes(TARGETS[label]())
    made = []
    for one in (target, graph_of(target)):
        job = plan_job(one, entry.construction, entry.objective(), seed=0, chunk_weights=CHUNK)
        ticket = run_in_memory(job)
        made.append((ticket, verify(ticket, target=one)))
    (tree, certificate), (graph, own) = made
    assert any(isinstance(node, Graph) for _, node in graph.network.nodes())
    assert_equal(graph, tree)
    assert graph.header.source_sha256 == tree.header.source_sha256
    assert (own.worst_residual, own.mean_residual) == (certificate.worst_residual, certificate.mean_residual)
    assert (own.kept_weights, own.outcome) == (certificate.kept_weights, certificate.outcome)


def test_a_batch_normalisation_in_a_graph_is_folded() -> None:
    target = TARGETS[RESIDUAL]()
    graph = graph_of(target)
    assert batch_norm_folds(graph.network) == batch_norm_folds(target.network) != []
    folded, expected = fold_batch_norm(graph), fold_batch_norm(target)
    assert folded.network.tensors == expected.network.tensors
    for name in expected.network.tensors:
        np.testing.assert_array_equal(folded.array(name), expected.array(name))
    x = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4, 1)).astype(np.float32)
    x = jnp.asarray(x)
    np.testing.assert_allclose(folded.forward()(x), graph.forward()(x), rtol=1e-5, atol=1e-5)
    rounded, other = quantise(graph, 5), quantise(target, 5)
    assert {name: rounded.array(name).tobytes() for name in rounded.network.tensors} == {
        name: other.array(name).tobytes() for name in other.network.tensors
    }


@pytest.mark.parametrize("reader", ["another node", "the output"])
def test_a_batch_normalisation_is_not_folded_if_something_else_reads_its_layer(reader: str) -> None:
    builder, tree = Builder(), TARGETS[RESIDUAL]().network
    norm = next(node for _, node in tree.nodes() if node.kind == "batch_norm")
    fc = builder.add(Dense(3, norm.features), INPUT, name="fc")  # type: ignore[attr-defined]
    normed = builder.add(norm, fc, name="bn")
    output = builder.add(BinaryOperation("add"), normed, fc) if reader == "another node" else fc
    target = random_target(Network(builder.graph(output), Spec((3,))))
    with pytest.raises(InputError, match="the batch normalisation 'bn' must follow a dense layer or a convolution"):
        fold_batch_norm(target)


@pytest.mark.parametrize("transform", [PrePrune(0.5), Lock(0.25), ShareLayers()], ids=lambda one: type(one).__name__)
def test_transforms_of_a_graph_draw_the_same_weights(transform: PrePrune | Lock | ShareLayers) -> None:
    target = TARGETS[CONVOLUTIONS]()
    made = [transform(COVERED["pensia"].construction.source(one)) for one in (target, graph_of(target))]
    assert made[1].share_layers == made[0].share_layers
    expected = made[0].draw(3)
    found = made[1].draw(3)
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


@pytest.mark.parametrize("label", [MLP, RESIDUAL])
def test_theorems_ask_for_the_same_sizes(label: str) -> None:
    """Notes differ: they name the operations that no proof is about."""
    network = fold_batch_norm(TARGETS[label]()).network
    assert layer_shapes(as_graph(network)) == layer_shapes(network)
    for kind in THEOREMS.values():
        found, expected = (kind().require(one, tolerance=0.1) for one in (as_graph(network), network))
        assert dataclasses.replace(found, note="") == dataclasses.replace(expected, note="")


def test_a_ticket_of_a_graph_is_coded_and_exported(tmp_path: Path) -> None:
    """Stored tensors are exported unchanged; the coded file holds the same masks."""
    target = random_target(Network(embedding(), Spec((6,))))
    ticket = approximate(target, seed=0, construction="scalar", candidates=12, tolerance=0.05)
    ticket.save(tmp_path / "coded", coded=True)
    ticket.save(tmp_path / "plain")
    assert_equal(load_ticket(tmp_path / "coded"), load_ticket(tmp_path / "plain"))
    export_weights(ticket, tmp_path / "weights.safetensors")
    weights = load_file(tmp_path / "weights.safetensors")
    assert sorted(weights) == sorted(target.network.tensors)
    for name in ("embed.weight", "positions"):
        np.testing.assert_array_equal(weights[name], target.array(name))
    export_masks(ticket, tmp_path / "masks.safetensors")
    assert sorted(load_file(tmp_path / "masks.safetensors")) == sorted(ticket.network.random_tensors)


def _words() -> Network:
    """A layer normalisation of operations, with stored tensors, behind the first layer."""
    builder = Builder()
    value = builder.add(Dense(4, 3), builder.add(Flatten(), INPUT), name="fc1")
    value = layer_norm(builder, builder.add(Reshape((1, 3)), value), (1, 3), 1e-3, "norm")
    value = builder.add(BinaryOperation("max"), builder.add(Reshape((3,)), value), builder.add(ScalarConstant(0.0)))
    return Network(builder.graph(builder.add(Dense(3, 2), value, name="fc2")), Spec((2, 2, 1), True))


SETTINGS = {"seeds": (0,), "keeps": (0.5,), "candidates": 8, "tolerance": 1.0, "epochs": 1}


def _tickets(network: Network, label: str, out: Path) -> dict[str, Ticket]:
    compare(tiny.task(network=network), [label], out=out, **SETTINGS)  # type: ignore[arg-type]
    return {path.name: load_ticket(path) for path in out.rglob("tickets/*")}


@pytest.mark.usefixtures("plain_figure")
@pytest.mark.parametrize("label", ["edge-popup-plain", pytest.param("magnitude", marks=pytest.mark.slow)])
def test_methods_that_train_find_the_same_masks(label: str, tmp_path: Path) -> None:
    network = mlp((4, 3, 2), Spec((2, 2, 1), True))
    tree, graph = (_tickets(one, label, tmp_path / one.root.kind) for one in (network, as_graph(network)))
    assert tree.keys() == graph.keys() != set()
    for name, ticket in tree.items():
        assert_equal(graph[name], ticket)


@pytest.mark.usefixtures("plain_figure")
def test_stored_tensors_of_learned_masks_are_those_of_the_target(tmp_path: Path) -> None:
    """They have no initial values, so that methods without a target, or of another width, refuse them."""
    network = _words()
    target = tiny.task(network=network).target
    (ticket,) = _tickets(network, "edge-popup-plain", tmp_path).values()
    assert sorted(ticket.stored) == ["norm.bias", "norm.weight"]
    for name, value in ticket.stored.items():
        np.testing.assert_array_equal(value, target.array(name))
    with pytest.raises(InputError, match=r"got 'edge-popup-wide'.* an imported graph has fixed shapes"):
        _tickets(network, "edge-popup-wide", tmp_path / "wide")
    with pytest.raises(InputError, match="must consist of layers, got a graph with a stored tensor"):
        _tickets(network, "magnitude", tmp_path / "trained")


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("burkholz", lambda: random_target(_words()), r"several times, which 'n2' \(reshape\) .*use pensia"),
        ("otsuka", lambda: graph_of(TARGETS[TRANSFORMER]()), "is for attention"),
        ("dacunha", lambda: graph_of(TARGETS[TRANSFORMER]()), "not for attention"),
        ("ferbach", lambda: graph_of(TARGETS[MLP]()), "commute with rotations"),
    ],
)
def test_what_a_construction_does_not_take_is_refused(name: str, make: Callable[[], Target], words: str) -> None:
    construction = COVERED[name].construction
    with pytest.raises(InputError, match=words):
        construction.source(construction.prepare(make()))


def test_attention_as_a_layer_of_a_graph_is_merged() -> None:
    target = TARGETS[TRANSFORMER]()
    graph = Target(
        Network(Graph((("all", target.network.root, (INPUT,)),), "all"), target.network.input_spec),
        {f"all.{name}": value for name, value in target.arrays().items()},  # type: ignore[arg-type]
    )
    found, expected = merge_attention(graph), merge_attention(target)
    assert list(found.network.tensors) == [f"all.{name}" for name in expected.network.tensors]
