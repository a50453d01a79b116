"""What holds for every kind of node: outputs against NumPy, promises of sign, JSON, initial tensors, refusals."""

import json
import re

import jax
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.codec import from_json, to_json
from lottery_jax.networks.layers.tensor_dict import TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Container, Node, Spec, Weights
from lottery_jax.networks.registry import NODES
from tests.networks.catalogue import CASES, GRAPHLESS, Case, below, drawn, run, stored
from tests.networks.oracles import ORACLES, evaluate
from tests.oracle.operations import OPERATIONS

EXAMPLES = 3
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.node.kind)
every_node = pytest.mark.parametrize("node", [*(case.node for case in CASES), *GRAPHLESS], ids=lambda node: node.kind)


def examples(case: Case, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(EXAMPLES, *case.shape)).astype(np.float32)


def outputs(case: Case, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the module, and of the oracle."""
    tensors, (random, masks) = stored(case.node), drawn(case.node, case.shape)
    kept = {name: np.where(masks[name], weights, 0) for name, weights in random.items()}
    return run(case.node, {**tensors, **random}, masks, x), evaluate(case.node, {**tensors, **kept}, x)


def test_no_kind_is_missing() -> None:
    """A new kind of node needs a case in the catalogue and an oracle."""
    kinds = {inner.kind for case in CASES for _, inner in below(case.node)}
    assert kinds | {node.kind for node in GRAPHLESS} == set(NODES)
    assert {*ORACLES, *OPERATIONS, "stored"} | {node.kind for node in GRAPHLESS} == set(NODES)
    assert all(NODES[kind].kind == kind for kind in NODES)


@every_case
def test_output_equals_numpy(case: Case) -> None:
    x = examples(case)
    found, expected = outputs(case, x)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (EXAMPLES, *case.node.output_spec(Spec(case.shape)).shape)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@every_case
def test_a_promised_sign_is_kept_and_none_is_left_unpromised(case: Case) -> None:
    x = examples(case)
    for given, images in ((False, x), (True, np.abs(x))):
        promised = case.node.output_spec(Spec(case.shape, given)).nonnegative
        assert promised == {"never": False, "always": True, "kept": given}[case.sign]
        assert (outputs(case, images)[0].min() >= 0) == promised


@every_node
def test_json_round_trip(node: Node) -> None:
    again = from_json(json.loads(json.dumps(to_json(node), allow_nan=False)))
    assert again == node and hash(again) == hash(node)
    assert type(again) is type(node) and repr(again) == repr(node)


@every_node
def test_children_are_put_back(node: Node) -> None:
    assert node.with_children(node.children()) == node
    assert bool(node.children()) <= isinstance(node, Container)


@every_case
def test_initial_tensors_have_their_names_and_shapes(case: Case) -> None:
    start = jax.eval_shape(case.node.initial, jax.random.key(0))
    assert {name: value.shape for name, value in start.items()} == case.node.tensors()
    assert {value.dtype for value in start.values()} <= {np.dtype(np.float32)}


@every_case
def test_resizing_for_the_same_examples_changes_nothing(case: Case) -> None:
    if any(inner.kind == "graph" for _, inner in below(case.node)):
        # The shapes in a graph are numbers: nothing says which of them are widths.
        with pytest.raises(InputError, match="got a graph, whose shapes are fixed"):
            case.node.resized(Spec(case.shape), lambda units: units)
        return
    assert case.node.resized(Spec(case.shape), lambda units: units) == case.node


@pytest.mark.parametrize(
    ("case", "shape"),
    [(case, shape) for case in CASES for shape in case.refused],
    ids=lambda value: value.node.kind if isinstance(value, Case) else str(value),
)
def test_what_does_not_fit_is_refused_and_named(case: Case, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=re.escape(str(list(shape)))):
        case.node.output_spec(Spec(shape))


@pytest.mark.parametrize("node", GRAPHLESS, ids=lambda node: node.kind)
def test_tensors_without_a_graph_hold_weights_but_do_not_run(node: Node) -> None:
    with pytest.raises(InputError, match="graph of a model must be known"):
        node.output_spec(Spec((3,)))
    with pytest.raises(InputError, match="graph of a model must be known"):
        node.module(Weights({}))
    with pytest.raises(InputError, match="graph of a model must be known"):
        Network(TensorDict((("a", node),)), Spec((3,)))


def test_max_pooling_never_sees_its_padding() -> None:
    """The largest of negative numbers is negative, at the border too."""
    case = next(case for case in CASES if case.node.kind == "max_pool" and any(case.node.padding))  # type: ignore[attr-defined]
    assert (outputs(case, -1 - np.abs(examples(case)))[0] < 0).all()
