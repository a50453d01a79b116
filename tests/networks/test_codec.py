"""A tree as JSON is an untrusted input: whatever is read is a network that works, or refused in a sentence."""

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.networks.codec import from_json, to_json
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network, network_from_json
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.rng.sampler import Sampler
from tests.networks.catalogue import CASES, GRAPHLESS, U, below


def networks() -> Iterator[Network]:
    """Every kind of node in front of a dense layer, and a model's tensors."""
    for case in CASES:
        dense = Dense(case.node.output_spec(Spec(case.shape)).shape[-1], 2)
        yield Network(Chain((("a", case.node), ("fc", dense))), Spec(case.shape, nonnegative=True))
    yield Network(GRAPHLESS[1])


ROWS = [network.to_json() for network in networks()]


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


TALL = to_json(Dense(3, 2))
for _ in range(150):
    TALL = {"kind": "chain", "nodes": [["a", TALL]]}
JUNK = [
    *(None, True, False, 0, 1, -1, 7, 2**16, 2**31 - 1, 2**31, 2**63, 10**400, -(10**400)),
    *(0.0, -0.0, 0.5, 1.0, -2.5, 2.0**-64, 2.0**65, 1e-320, 1e300, math.nan, math.inf, -math.inf),
    *("", "a", "gain", "(a)", "dense", "relu", "no such kind", "x" * 600, "\ud800"),
    *([], [1], [2, 2], [1, 2, 3], [[1, 2]], ["a", {}], [2**31 - 1] * 5, nested(100)),
    *({}, {"kind": "relu"}, {"kind": "dense"}, {"kind": ["dense"]}, to_json(Dense(3, 2)), to_json(U), TALL),
]


def places(row: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything in a JSON value."""
    parts = row.items() if isinstance(row, dict) else enumerate(row) if isinstance(row, list) else ()
    return [path, *(place for key, part in parts for place in places(part, (*path, key)))]


def flags(row: Any) -> list[bool]:
    """Which leaves are true or false: for Python, 1 == True."""
    if isinstance(row, dict | list):
        return [flag for part in (row.values() if isinstance(row, dict) else row) for flag in flags(part)]
    return [isinstance(row, bool)]


def mutated(row: Any, path: tuple, change: str, junk: Any) -> Any:
    """The row with one of its values replaced, left out, put into a list, doubled, or with one more beside it."""
    if not path:
        return [row] if change == "list" else junk
    row = copy.deepcopy(row)
    holder = row
    for key in path[:-1]:
        holder = holder[key]
    key = path[-1]
    if change == "replace":
        holder[key] = junk
    elif change == "delete":
        del holder[key]
    elif change == "list":
        holder[key] = [holder[key]]
    elif change == "more":
        holder.update({"more": junk}) if isinstance(holder, dict) else holder.append(junk)
    else:
        holder.update({str(key) + "2": holder[key]}) if isinstance(holder, dict) else holder.append(holder[key])
    return row


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_is_read_is_a_network_or_refused(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(ROWS))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(row)))
        change = data.draw(st.sampled_from(["replace", "replace", "delete", "list", "more", "double"]))
        row = mutated(row, path, change, data.draw(st.sampled_from(JUNK)))
    try:
        network = network_from_json(json.loads(json.dumps(row)))
    except InputError as error:
        assert len(str(error)) < 10_000
        return
    assert network_from_json(json.loads(json.dumps(network.to_json(), allow_nan=False))) == network
    assert network.target.tensors.keys() >= network.approximated.keys()
    assert network.cost.operations >= 0
    assert network.source_weights >= 0 and (network.output_spec is None) == (network.input_spec is None)
    for name, drawn in network.random_tensors.items():
        assert drawn.size >= 1, name


NODES_OF_EACH_KIND = {inner.kind: inner for case in CASES for _, inner in below(case.node)}
NODES_OF_EACH_KIND |= {case.node.kind: case.node for case in CASES} | {node.kind: node for node in GRAPHLESS}


@pytest.mark.parametrize("kind", NODES_OF_EACH_KIND)
def test_every_field_of_every_kind_is_typed(kind: str) -> None:
    """All fields, and what is in them, times all junk: a node that has it, or a refusal."""
    row = to_json(NODES_OF_EACH_KIND[kind])
    for path in places(row):
        for junk in JUNK:
            changed = mutated(row, path, "replace", junk)
            try:
                node = from_json(changed)
            except InputError:
                continue
            again = to_json(node)
            assert again == changed and flags(again) == flags(changed)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["root"]["nodes"][0][1]["kind"])
def test_unchanged_rows_are_networks(row: Any) -> None:
    """So the test above starts from valid ones, and every field is needed and no other allowed."""
    network = network_from_json(json.loads(json.dumps(row)))
    assert network.to_json() == row
    for path in places(row):
        if path and isinstance(path[-1], str):
            if path[-1] != "dilation":  # it may be omitted
                with pytest.raises(InputError):
                    network_from_json(mutated(row, path, "delete", None))
            with pytest.raises(InputError):
                network_from_json(mutated(row, path, "more", 1))


DENSE = to_json(Dense(3, 2))
GADGET = to_json(Gadget(Dense(3, 2), 4, U, Sampler.normal(1)))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (None, "the tree must be a node, got None"),
        ({"kind": "danse"}, "unknown kind 'danse'; did you mean 'dense'"),
        ({**DENSE, "inputs": True}, "inputs of the tree must be an integer from 0 to 2147483647, got True"),
        ({**DENSE, "inputs": 3.0}, "must be an integer from 0 to 2147483647, got 3.0"),
        ({**DENSE, "inputs": [3]}, r"an integer .*, got \[3\]"),
        ({**DENSE, "inputs": 0}, "at least 1 input and 1 output, got 0 and 2"),
        ({**DENSE, "bias": 1}, "bias of the tree must be true or false, got 1"),
        ({**DENSE, "width": 1}, "must have the fields"),
        ({"kind": "leaky_relu", "slope": math.nan}, "slope of the tree must be a finite number, got nan"),
        ({"kind": "leaky_relu", "slope": 10**400}, "slope .* must be a finite number, got 10+|of a magnitude from"),
        ({"kind": "leaky_relu", "slope": "1"}, "must be a finite number, got '1'"),
        ({"kind": "leaky_relu", "slope": 1e-30}, "slope of the tree must be 0 or of a magnitude from .* got 1e-30"),
        ({"kind": "batch_norm", "features": 3, "affine": True, "epsilon": 0}, "positive epsilon, got 0.0"),
        ({**GADGET, "layer": to_json(U)}, "unknown kind 'uniform'"),
        ({**GADGET, "layer": {"kind": "relu"}}, "layer of the tree must be a LinearLayer, got the kind relu"),
        ({**GADGET, "layer": GADGET}, "layer of the tree must be a LinearLayer, got the kind gadget"),
        ({**GADGET, "first": 1}, "first of the tree must be a sampler, got 1"),
        ({**GADGET, "first": {**to_json(U), "kind": "cauchy"}}, "must be one of .* got 'cauchy'"),
        ({**GADGET, "first": {**to_json(U), "low": 1.0}}, "needs low < high"),
        ({**GADGET, "gain": 0.1}, "gain must be a float32"),
        (
            {"kind": "max_pool", "size": [2], "stride": None, "padding": [0, 0]},
            r"a list of the right length, got \[2\]",
        ),
        ({"kind": "chain", "nodes": {}}, "must be a list of the right length, got {}"),
        ({"kind": "chain", "nodes": [[1, DENSE]]}, "must be a string .* got 1"),
        ({"kind": "chain", "nodes": [["a", DENSE], ["a", DENSE]]}, "must have different names"),
        (TALL, "must be nested at most 64 deep"),
        ({**DENSE, "inputs": nested(800)}, "inputs of the tree must be an integer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_names_the_field_and_what_is_allowed(row: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_json(row)


@pytest.mark.parametrize(
    "given",
    [1, "x", [], [[3]], [[3], 1], [3, True], [[], True], [[3.0], True], [[True], True], [[0], True], [[2**30], True]],
    ids=str,
)
def test_what_is_given_is_typed_and_bounded(given: Any) -> None:
    with pytest.raises(InputError):
        network_from_json({"input_spec": given, "root": DENSE})
    assert network_from_json({"input_spec": [[3], True], "root": DENSE}) == Network(Dense(3, 2), Spec((3,), True))
