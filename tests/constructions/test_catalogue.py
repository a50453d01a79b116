"""What must hold for every construction, target, objective and sign of inputs: end to end, from a seed to a file."""

import functools
import hashlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.approximation import Budget, ToleranceObjective, plan_job, run_in_memory, run_to_file
from lottery_jax.approximation.tolerance import OBJECTIVES
from lottery_jax.constructions import CONSTRUCTIONS
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.rewrites import merge_attention
from lottery_jax.networks.target import Target
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, COVERED, NETWORKS, TARGETS, random_target
from tests.constructions.oracles import check_against_all_subsets, sensitivity

SEED = 2**33 + 5
BATCH = 4
"""As many examples as the verifier runs a network on, so that it is compiled once."""

CASES = [
    (name, of, objective)
    for name, of in itertools.product(CONSTRUCTIONS, TARGETS)
    if name not in COVERED or of not in COVERED[name].refusals
    for objective in CONSTRUCTIONS[name].objectives
]
DENSE = [name for name, entry in COVERED.items() if entry.dense]
REFUSED = [(name, of, words) for name, entry in COVERED.items() for of, words in entry.refusals.items()]


def approximated(name: str, of: str, objective: str, part: float = 1.0) -> tuple[Target, Ticket]:
    entry = COVERED[name]
    target = entry.takes(TARGETS[of]())
    job = plan_job(target, entry.construction, entry.objective(objective, part), seed=SEED, chunk_weights=CHUNK)
    return target, run_in_memory(job)


def quick_first(name: str, of: str, objective: str) -> Any:
    """A case, slow where the fast tests do without."""
    quick = COVERED[name].quick if name in COVERED else None
    slow = objective == "first" or (of.startswith(("residual", "rotations")) if quick is None else of not in quick)
    slow |= of.startswith("transformer") and name != "scalar"
    return pytest.param(name, of, objective, marks=pytest.mark.slow if slow else ())


@functools.cache
def slopes(network: str, merging: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The sensitivity of a target, which does not depend on what is said of its inputs; merging: of its products."""
    target = random_target(NETWORKS[network](False))
    return sensitivity(merge_attention(target) if merging else target)


def test_every_construction_is_covered() -> None:
    assert set(COVERED) == set(CONSTRUCTIONS)
    assert all(isinstance(entry.construction, CONSTRUCTIONS[name]) for name, entry in COVERED.items())


@pytest.mark.parametrize(("name", "of", "objective"), [quick_first(*case) for case in CASES])
def test_the_pruned_random_network_is_the_target(
    name: str, of: str, objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, ticket = approximated(name, of, objective)
    found = verify(ticket, target=target)
    assert (found.outcome, found.reasons, found.own_target) == ("holds", (), False)
    assert found.target_weights == found.within_tolerance
    assert found.target_weights == sum(math.prod(shape) for shape in ticket.network.approximated.values())
    assert found.worst_residual is not None and found.worst_residual <= COVERED[name].tolerance == found.tolerance
    assert (found.worst_residual > 0) == (found.tolerance > 0)
    assert found.method == ticket.header.method == name + ("" if objective == "least-error" else f"-{objective}")
    assert found.kept_weights == sum(found.kept_by_tensor.values()) == ticket.kept_weights > 0
    if target.network.input_spec is not None:
        # The network itself, random weights from the seed and masks alone, beside the target.
        low = 0.0 if target.network.input_spec.nonnegative else -1.0
        x = np.random.default_rng(5).uniform(low, 1, (BATCH, *target.network.input_spec.shape)).astype(np.float32)
        wanted = np.asarray(target.forward()(jnp.asarray(x)))
        allowed = 2 * found.worst_residual * slopes(of.partition(",")[0], name == "otsuka")(x) + 1e-4
        assert (np.abs(ticket.forward()(jnp.asarray(x)) - wanted) <= allowed).all()
        assert allowed.mean() < np.ptp(wanted) / 2, "a bound that anything would keep"

    # Its file holds the same; however the work is cut, and whoever keeps what is finished, it is the same file.
    out = tmp_path / "ticket"
    ticket.save(out)
    content = out.read_bytes()
    loaded = load_ticket(out)
    assert loaded.header == ticket.header and loaded.to_bytes() == content
    monkeypatch.setattr("lottery_jax.approximation.solve_weights.MAX_HOST_WEIGHTS", 16)
    job = plan_job(target, COVERED[name].construction, COVERED[name].objective(objective), seed=SEED, chunk_weights=24)
    run_to_file(job, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


@pytest.mark.parametrize(
    ("name", "of", "objective"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case[2] == "first" else ())
        for case in CASES
        if case[1] in ("mlp with biases, inputs of any sign", "convolutions, inputs of any sign", "bag")
    ],
)
def test_every_weight_is_solved_as_by_trying_all_subsets(name: str, of: str, objective: str) -> None:
    # Half of the tolerance, so that some blocks are redrawn.
    target, ticket = approximated(name, of, objective, part=0.5)
    assert check_against_all_subsets(ticket, target, objective), "no redraw: the test is too easy"


@pytest.mark.parametrize(("name", "of", "words"), REFUSED)
def test_what_a_construction_does_not_cover_is_refused(name: str, of: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_job(TARGETS[of](), COVERED[name].construction, ToleranceObjective(), seed=0)


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_an_objective_that_makes_no_sense_is_refused(name: str) -> None:
    kind, known = CONSTRUCTIONS[name], set(OBJECTIVES)
    assert kind.objectives[0] == "least-error" and set(kind.objectives) <= known
    for objective in known - set(kind.objectives):
        with pytest.raises(InputError, match=rf"{name} does not support objective {objective}.*use least-error"):
            COVERED[name].objective(objective).check(kind())


@pytest.mark.parametrize("name", DENSE)
def test_another_seed_is_another_ticket(name: str) -> None:
    target = COVERED[name].takes(TARGETS["mlp, inputs never negative"]())
    tickets = [
        run_in_memory(plan_job(target, COVERED[name].construction, COVERED[name].objective(), seed=seed))
        for seed in (0, 0, 1)
    ]
    first, second, third = (ticket.to_bytes() for ticket in tickets)
    assert first == second != third


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ((("norm", LayerNorm(3)),), "no layer with weights"),
        ((("relu", Relu()), ("bn", BatchNorm(3)), ("fc", Dense(3, 2))), "'bn' must follow a dense layer"),
    ],
)
def test_a_target_that_no_construction_takes_is_refused(name: str, nodes: tuple, words: str) -> None:
    target = random_target(Network(Chain(nodes), Spec((3,))))
    with pytest.raises(InputError, match=words):
        plan_job(target, COVERED[name].construction, ToleranceObjective(), seed=0)


@pytest.mark.parametrize("name", DENSE)
def test_zeros_and_constant_layers(name: str) -> None:
    target = mlp_target([np.zeros((2, 3), np.float32), np.full((2, 2), 0.125, np.float32)])
    construction = COVERED[name].construction
    ticket = run_in_memory(plan_job(target, construction, COVERED[name].objective(), seed=0))
    found = verify(ticket, target=target)
    assert found.holds and ticket.mask("fc2.weight").any()
    assert ticket.mask("fc1.weight").any() == (name == "natale"), "which keeps as many for a zero too"


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("size", [1e-16, 1e16])
def test_weights_of_any_size_are_met_in_proportion(name: str, size: float) -> None:
    random, entry = np.random.default_rng(0), COVERED[name]
    target = entry.takes(mlp_target([(size * random.uniform(-0.3, 0.3, (6, 9))).astype(np.float32)]))
    objective = ToleranceObjective(size * entry.tolerance, max_redraws=entry.max_redraws)
    ticket = run_in_memory(plan_job(target, entry.construction, objective, seed=0, chunk_weights=CHUNK))
    assert verify(ticket, target=target).holds
    huge = mlp_target([np.full((6, 9), 1e30, np.float32)])
    with pytest.raises(InputError, match=r"1\.8.*e\+19"):
        plan_job(huge, entry.construction, objective, seed=0)


GOLDEN = {
    ("pensia", True, "least-error"): "81dcfe23fa2bad86",
    ("pensia", True, "smallest"): "c5739b223d5f9037",
    ("pensia", True, "budget"): "d4637f4487eb506c",
    ("pensia", False, "least-error"): "66435402c8d66409",
    ("pensia", False, "smallest"): "23a8c086b46cb17b",
    ("pensia", False, "budget"): "aa93ec4f2b5c67ed",
    ("scalar", True, "least-error"): "48190bf45100e593",
    ("scalar", True, "smallest"): "80ec0b345daf0a51",
    ("scalar-shared", True, "least-error"): "139d02e4ba71f804",
    ("scalar-shared", True, "smallest"): "39a35b1ac86301f5",
}
"""SHA-256 of the masks that version 0.1 found, of scalar in a model's file. By name, whether inputs are never negative,
and what is asked."""


@pytest.mark.parametrize(("name", "nonnegative", "asked"), GOLDEN)
def test_the_masks_of_a_seed_stay_what_they_were(name: str, nonnegative: bool, asked: str) -> None:
    random = np.random.default_rng(7)
    first, second = (random.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((6, 9), (4, 6)))
    if name != "pensia":
        second = second.astype(np.float16).astype(np.float32)
    target = mlp_target([first, second], nonnegative=nonnegative)
    objective = Budget(100, k_max=3) if asked == "budget" else ToleranceObjective(0.03, asked, max_redraws=100)
    ticket = run_in_memory(plan_job(target, CONSTRUCTIONS[name](8), objective, seed=2**33 + 5, chunk_weights=CHUNK))
    sha = hashlib.sha256()
    for tensor in sorted(ticket.masks):
        sha.update(np.packbits(ticket.mask(tensor), bitorder="little").tobytes())
    assert sha.hexdigest()[:16] == GOLDEN[name, nonnegative, asked]
