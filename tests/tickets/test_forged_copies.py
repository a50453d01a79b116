"""Forged tickets of networks whose neurons exist several times: copies are what the verifier's word rests on."""

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery_jax.approximation import approximate
from lottery_jax.errors import InputError, TicketError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import GlobalPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.replicated_neurons import ReplicatedGadget, ReplicatedNeurons
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.ticket import make_ticket
from lottery_jax.tickets.verify import verify
from tests.tickets.forging import TARGET, TOLERANCE, forge, read, resourced

U = Sampler.uniform(-1, 1)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("honest") / "burkholz"
    approximate(TARGET, seed=0, construction="burkholz", candidates=7, tolerance=TOLERANCE).save(path)
    return path


def nodes(header: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(header["network"]["root"]["nodes"])


FORGERIES: dict[str, Callable[[dict[str, dict[str, Any]]], Any]] = {
    "no copies": lambda n: n["fc1"].update(copies=0),
    "huge copies": lambda n: n["fc1"].update(copies=2**31 - 1),
    "copies beyond a matrix": lambda n: (n["fc1"].update(copies=2**24), n["fc2"].update(input_copies=2**24)),
    "copies in words": lambda n: n["fc2"].update(input_copies="seven"),
    "fewer copies than are given": lambda n: n["fc2"].update(input_copies=1),
    "copies taken for inputs": lambda n: (n["fc2"].update(input_copies=1), n["fc2"]["layer"].update(inputs=42)),
    "copies that lie elsewhere": lambda n: n["fc2"].update(copy_stride=3),
    "outputs that exist twice": lambda n: n["fc2"].update(output_copies=2),
    "a negative constant": lambda n: n["fc2"].update(constant=-1.0),
    "a constant beyond float32": lambda n: n["fc2"].update(constant=1e39),
    "another constant": lambda n: n["fc2"].update(constant=2.0**20),
    "a constant for each output": lambda n: n["fc2"].update(constant=[1.0] * 4),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_copies_are_refused_or_broken(name: str, honest: Path, tmp_path: Path) -> None:
    header, tensors = read(honest)
    forged = copy.deepcopy(header)
    FORGERIES[name](nodes(forged))
    assert forged != header
    with contextlib.suppress(InputError):  # of what is no network
        forged = resourced(forged)
    path = forge(tmp_path / "forged", forged, tensors)
    try:
        found = verify(path, target=TARGET)
    except TicketError as error:
        assert "\n" not in str(error) and name != "another constant"
    else:
        assert found.outcome == "broken" and name == "another constant"


def test_an_honest_one_forged_again_holds(honest: Path, tmp_path: Path) -> None:
    again = forge(tmp_path / "again", *read(honest))
    assert again.read_bytes() == honest.read_bytes() and verify(again, target=TARGET).holds


@pytest.mark.parametrize(
    ("root", "given", "words"),
    [
        (
            Chain(
                (
                    ("fc1", ReplicatedGadget(Dense(3, 2), 4, U, U, copies=2)),
                    ("fc2", ReplicatedNeurons(Dense(2, 2), 2, 2, U)),
                )
            ),
            (3,),
            "must give each output once",
        ),
        (
            # Shapes fit: heads and their parts would be made of copies, and scores be twice as large.
            Chain(
                (
                    ("fc1", ReplicatedGadget(Dense(3, 2), 4, U, U, copies=2)),
                    (
                        "attn",
                        Attention(2, ReplicatedNeurons(Dense(2, 6), 2, 2, U), ReplicatedNeurons(Dense(2, 2), 2, 2, U)),
                    ),
                    ("fc2", ReplicatedNeurons(Dense(2, 2), 2, 1, U)),
                )
            ),
            (5, 3),
            "must have 2 copies of stride 1, got 1",
        ),
        (
            Chain(
                (
                    ("fc1", ReplicatedGadget(Dense(3, 2), 4, U, U, copies=2)),
                    ("fc2", CandidatesPerWeight(Dense(4, 2), 3, (U,))),
                )
            ),
            (3,),
            "the dense layer must have 4 features",
        ),
        (
            Chain(
                (
                    ("fc1", ReplicatedGadget(Dense(3, 2), 4, U, U, copies=2)),
                    ("fc2", ReplicatedGadget(Dense(4, 2), 4, U, U)),
                )
            ),
            (3,),
            "must have one copy of each input",
        ),
        (Chain((("fc", ReplicatedGadget(Dense(3, 2), 4, U, U, copies=2)), ("p", GlobalPool()))), (5, 3), "output once"),
    ],
    ids=["outputs", "attention", "a leaf without copies", "a second gadget", "nothing behind"],
)
def test_a_network_that_takes_copies_for_something_else_is_none(root: Chain, given: tuple, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Network(root, Spec(given))


def test_large_weights_that_cancel_over_copies_are_broken() -> None:
    """Every copy of every weight is within the tolerance; but copies differ, by far less, and large weights show it.

    f(x) = relu(x) / 2: copies of the neuron are 1/2 to within the tolerance, and of their huge weights pairs are kept
    whose sum is near to 1.
    """
    target = mlp_target([np.array([[0.5]], np.float32), np.array([[1.0]], np.float32)], nonnegative=True)
    copies, tolerance, outcomes = 64, 0.02, set()
    for size in (1.0, 2.0**9):
        huge = Sampler.uniform(-size, size)
        leaves = {
            "fc1": ReplicatedGadget(Dense(1, 1), 64, U, U, copies=copies),
            "fc2": ReplicatedNeurons(Dense(1, 1), copies, 1, huge),
        }
        network = target.network.map_layers(lambda path, node, leaves=leaves: leaves.get(path, node))
        drawn = {name: value.astype(np.float64) for name, value in network.draw(0).items()}
        first, second = drawn["fc1.first"][0], drawn["fc1.weight"].reshape(copies, 64)
        products = np.where(first > 0, first * second, 0)
        masks = {"fc1.first": np.ones((1, 64), bool), "fc1.weight": np.zeros((1, 1, copies, 64), bool)}
        for place, row in enumerate(products):
            masks["fc1.weight"][0, 0, place, _near(row, 0.5, tolerance)] = True
        masks["fc2.weight"] = np.zeros((1, 1, 1, copies), bool)
        masks["fc2.weight"][0, 0, 0, _near(drawn["fc2.weight"].reshape(-1), 1.0, tolerance)] = True
        ticket = make_ticket(network, seed=0, masks=masks, method="x", target=target, tolerance=tolerance)
        found = verify(ticket, target=target)
        assert found.within_tolerance == found.target_weights == 2
        assert (found.outcome, size) in (("holds", 1.0), ("broken", 2.0**9)), found
        assert not found.reasons or "copies of its neurons differ" in found.reasons[0]
        outcomes.add(found.outcome)
    assert outcomes == {"holds", "broken"}


def _near(values: np.ndarray, wanted: float, tolerance: float) -> list[int]:
    """A pair, or four, of these values whose sum is within the tolerance."""
    first, second = np.triu_indices(len(values), 1)
    pairs = values[first] + values[second]
    best = np.abs(pairs - wanted).argmin()
    if abs(pairs[best] - wanted) <= tolerance:
        return [int(first[best]), int(second[best])]
    order = np.argsort(pairs)
    for place, pair in enumerate(pairs):
        near = order[np.searchsorted(pairs[order], wanted - pair) % len(order)]
        chosen = {int(i) for at in (place, near) for i in (first[at], second[at])}
        if len(chosen) == 4 and abs(pair + pairs[near] - wanted) <= tolerance:
            return sorted(chosen)
    raise AssertionError("no such sum; take more copies")
