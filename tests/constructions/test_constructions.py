"""What must hold for every construction, target, objective and sign of inputs: end to end, from a seed to a file."""

import functools
import itertools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.constructions import CONSTRUCTIONS, Promise, plan_job, run_in_memory, run_to_file
from lottery_jax.constructions.promise import OBJECTIVES
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.layer_norm import LayerNorm
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.tickets.certificate import verify
from lottery_jax.tickets.ticket import load_ticket
from tests.constructions.catalogue import CHUNK, COVERED, NETWORKS, TARGETS, random_target
from tests.constructions.oracles import check_against_all_subsets, sensitivity

BATCH = 4
"""As many examples as the verifier runs a network on, so that it is compiled once."""

CASES = [
    (name, target)
    for name, target in itertools.product(CONSTRUCTIONS, TARGETS)
    if name not in COVERED or target not in COVERED[name].refusals
]
REFUSED = [(name, target, words) for name, entry in COVERED.items() for target, words in entry.refusals.items()]


@functools.cache
def bound(network: str):
    """The sensitivity of a target that does not depend on whether its inputs are said to be never negative."""
    return sensitivity(random_target(NETWORKS[network](False)))


def test_every_construction_is_covered() -> None:
    assert set(COVERED) == set(CONSTRUCTIONS)
    assert all(isinstance(entry.construction, CONSTRUCTIONS[name]) for name, entry in COVERED.items())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("name", "of"), CASES)
def test_the_pruned_random_network_is_the_target(
    name: str, of: str, objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    construction, tolerance, target = COVERED[name].construction, COVERED[name].tolerance, TARGETS[of]()
    goal = Promise(tolerance, objective)
    ticket = run_in_memory(plan_job(target, construction, goal, seed=5, chunk_weights=CHUNK))
    found = verify(ticket, target=target)
    assert found.outcome == "holds" and found.reasons == () and not found.own_target
    assert found.target_weights == found.within_tolerance == sum(
        int(np.prod(shape)) for shape in ticket.network.approximated.values()
    )
    assert 0 < found.worst_residual <= tolerance == found.tolerance
    assert found.method == ticket.header.method == name + ("" if objective == "least-error" else f"-{objective}")
    assert found.kept_weights == sum(found.kept_by_tensor.values()) == ticket.kept_weights > 0

    # The real network, random weights from the seed and masks alone, beside the target.
    if target.network.given is not None:
        low = 0.0 if target.network.given.nonnegative else -1.0
        x = np.random.default_rng(5).uniform(low, 1, (BATCH, *target.network.given.shape)).astype(np.float32)
        deviation = np.abs(ticket.forward()(jnp.asarray(x)) - target.forward()(jnp.asarray(x)))
        assert (deviation <= 1.5 * found.worst_residual * bound(of.split(",")[0])(x) + 1e-4).all()

    # Its file holds the same, and however the work is cut, it is the same file.
    out = tmp_path / "ticket"
    ticket.save(out)
    content = out.read_bytes()
    loaded = load_ticket(out)
    assert loaded.header == ticket.header and loaded.to_bytes() == content
    assert not any(tensor.startswith("source") for tensor in loaded.content.tensors)
    monkeypatch.setattr("lottery_jax.constructions.solve.PIECE", 16)
    run_to_file(plan_job(TARGETS[of](), construction, goal, seed=5, chunk_weights=24), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content
