"""The verifier: what it finds, what it says it is about, and that it counts what is changed."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax import export_target, load_model
from lottery_jax.approximation import Budget, ToleranceObjective, approximate, plan_job, run_in_memory
from lottery_jax.constructions import Pensia, ScalarShared
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.forward import forward
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.tickets.reconstruct import collapse, effective_weights
from lottery_jax.tickets.size.description_length import description_bits
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.tickets.verify import verify, verify_with_weights
from tests.tickets.forging import small_target


def changed(ticket: Ticket, **changes: object) -> Ticket:
    """The same ticket with other masks or header fields."""
    header = ticket.header
    fields = {
        "network": header.network,
        "seed": header.seed,
        "masks": ticket.masks,
        "method": header.method,
        "redraws": {name: ticket.redraws(name) for name in header.network.random_tensors},
        "target": ticket.target,
        "tolerance": header.tolerance,
        "kept_budget": header.kept_budget,
        "stored": ticket.stored,
    }
    return make_ticket(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[True, False], ids=["never negative", "any sign"])
def target(request: pytest.FixtureRequest) -> Target:
    return small_target(nonnegative=request.param, biases=True)


@pytest.fixture(scope="module")
def ticket(target: Target) -> Ticket:
    return approximate(target, seed=3, candidates=8, tolerance=0.1)


def test_it_says_what_it_is_about(ticket: Ticket, target: Target) -> None:
    found = verify(ticket, target=target)
    assert target.network.input_spec is not None
    assert (found.outcome, found.reasons, found.holds) == ("holds", (), True)
    assert found.nonnegative_inputs == target.network.input_spec.nonnegative
    assert found.target_sha256 == target.digest and not found.own_target
    assert found.samplers == ("U[-1, 1]",)
    assert found.within_tolerance == found.target_weights == target.weights
    assert found.kept_weights == sum(found.kept_by_tensor.values()) == ticket.kept_weights
    assert found.float32_addition is not None and found.float32_addition < 1e-4
    own = verify(ticket)
    assert own.own_target and dataclasses.replace(own, own_target=False) == found


def test_residuals_against_a_plain_loop() -> None:
    target = small_target(nonnegative=False, biases=True)
    ticket = approximate(target, seed=0, candidates=8, tolerance=0.3)
    source, masks, worst = ticket.source(), ticket.masks, 0.0
    for layer in ("fc1", "fc2"):
        gain = ticket.network.sources[layer].gain
        first = np.where(masks[f"{layer}.first"], source[f"{layer}.first"], 0).astype(np.float64)
        weight, bias = target.array(f"{layer}.weight"), target.array(f"{layer}.bias")
        for o, i in np.ndindex(weight.shape):
            for sign in (1, -1) if layer == "fc1" else (1,):  # behind a ReLU nothing is negative
                total = sum(
                    float(source[f"{layer}.weight"][o, i, k]) * first[i, k]
                    for k in range(16)
                    if masks[f"{layer}.weight"][o, i, k] and sign * first[i, k] > 0
                )
                worst = max(worst, abs(gain * total - float(weight[o, i])))
        for o in range(len(bias)):
            total = sum(
                float(source[f"{layer}.bias"][o, k]) * first[-1, k]
                for k in range(16)
                if masks[f"{layer}.bias"][o, k] and first[-1, k] > 0
            )
            worst = max(worst, abs(gain * total - float(bias[o])))
    assert verify(ticket, target=target).worst_residual == pytest.approx(worst, rel=1e-12)


def test_a_changed_bit_is_counted(ticket: Ticket, target: Target) -> None:
    before = verify(ticket, target=target)
    source, mask = ticket.source(), ticket.mask("fc1.weight").copy()
    strong = np.abs(source["fc1.weight"]) * (source["fc1.first"][:9] > 0.5)
    place = np.unravel_index(np.argmax(strong), mask.shape)
    mask[place] = ~mask[place]
    after = verify(changed(ticket, masks={**ticket.masks, "fc1.weight": mask}), target=target)
    assert after.outcome == "broken" and "1 target weights are not within 0.1" in after.reasons[0]
    assert after.within_tolerance == (before.within_tolerance or 0) - 1
    assert (after.worst_tensor, after.worst_weight) == ("fc1.weight", tuple(map(int, place[:2])))


def test_a_pruned_edge_is_seen(ticket: Ticket, target: Target) -> None:
    """The subset's bits stay; the unit they go through is gone."""
    edges = ticket.mask("fc2.first").copy()
    edges[np.unravel_index(np.argmax(edges), edges.shape)] = False
    assert verify(changed(ticket, masks={**ticket.masks, "fc2.first": edges}), target=target).outcome == "broken"


def test_another_target_and_another_tolerance(ticket: Ticket, target: Target) -> None:
    assert target.network.input_spec is not None
    other = small_target(nonnegative=target.network.input_spec.nonnegative, biases=True, seed=1)
    assert verify(ticket, target=other).outcome == "broken"
    strict = verify(ticket, target=target, tolerance=1e-9)
    assert strict.outcome == "broken" and strict.tolerance == 1e-9
    assert verify(ticket, target=target, tolerance=0.3).holds
    with pytest.raises(InputError, match="tolerance"):
        verify(ticket, target=target, tolerance=float("inf"))


def test_a_network_of_other_layers_is_no_target(ticket: Ticket) -> None:
    wide = mlp_target([np.ones((6, 9), np.float32), np.ones((4, 6), np.float32)])
    found = verify(ticket, target=wide)
    assert found.outcome == "broken" and "other layers" in found.reasons[0]


def test_a_promise_for_pixels_is_none_for_inputs_of_any_sign() -> None:
    ticket = approximate(small_target(nonnegative=True), seed=0, candidates=8, tolerance=0.1)
    found = verify(ticket, target=small_target(nonnegative=False))
    assert found.outcome == "broken" and "never negative" in found.reasons[0]


def test_learned_masks_promise_nothing(ticket: Ticket, target: Target) -> None:
    bare = changed(ticket, target=None, tolerance=None)
    for found in (verify(bare), verify(bare, target=target)):
        assert found.outcome == "no guarantee" and not found.holds
        assert found.kept_weights == ticket.kept_weights and found.worst_residual is None
    assert verify(bare, target=target, tolerance=0.1).holds, "what is asked can be checked of any ticket"


def test_the_budget_is_counted() -> None:
    target = small_target()
    job = plan_job(target, Pensia(candidates=8), Budget(40, k_max=3), seed=0)
    ticket = run_in_memory(job)
    assert verify(ticket, target=target).holds and ticket.kept_weights <= 40
    found = verify(changed(ticket, kept_budget=ticket.kept_weights - 1), target=target)
    assert found.outcome == "broken" and "promises at most" in found.reasons[0]


def test_the_ticket_says_nothing_of_failures_that_the_verifier_counts() -> None:
    """A shared row that fails fails for some of its weights only; no number of them stands in the ticket."""
    target = mlp_target([np.random.default_rng(0).uniform(-0.5, 0.5, (5, 12)).astype(np.float32)])
    job = plan_job(target, ScalarShared(candidates=8), ToleranceObjective(0.005, max_redraws=1), seed=0)
    ticket = run_in_memory(job)
    found = verify(ticket, target=target)
    assert found.outcome == "broken" and "failures" not in ticket.header.settings


def test_the_collapsed_form_computes_what_the_network_does(ticket: Ticket, target: Target) -> None:
    assert target.network.input_spec is not None
    low = 0 if target.network.input_spec.nonnegative else -1
    x = np.random.default_rng(0).uniform(low, 1, (11, 9)).astype(np.float32)
    network, weights = collapse(ticket, effective_weights(ticket))
    exact = forward(network, {name: np.asarray(value, np.float32) for name, value in weights.items()})(jnp.asarray(x))
    np.testing.assert_allclose(ticket.forward()(jnp.asarray(x)), exact, atol=2e-5)


def test_stored_tensors_must_be_the_targets() -> None:
    """A normalisation of inputs or tokens is not approximated; it must be the target's own, bit for bit."""
    network = Network(Chain((("norm", LayerNorm(4)), ("fc", Dense(4, 2)))), Spec((4,)))
    arrays = {"norm.weight": np.ones(4), "norm.bias": np.zeros(4), "fc.weight": np.full((2, 4), 0.2)}
    target = Target(network, {name: value.astype(np.float32) for name, value in arrays.items()})  # type: ignore[arg-type]
    ticket = approximate(target, seed=0, candidates=8, tolerance=0.1)
    assert verify(ticket, target=target).holds
    assert description_bits(ticket)["stored"] == 32 * 8
    other = changed(ticket, stored={**ticket.stored, "norm.bias": np.full(4, 1e-6, np.float32)})
    found = verify(other, target=target)
    assert found.outcome == "broken" and "norm.bias" in found.reasons[0]


def test_batch_normalisations_are_folded_before_they_are_compared() -> None:
    network = Network(Chain((("conv", Conv(1, 2, (2, 2))), ("bn", BatchNorm(2)))), Spec((3, 3, 1), nonnegative=True))
    random = np.random.default_rng(0)
    arrays = {name: random.uniform(0.2, 0.6, shape).astype(np.float32) for name, shape in network.tensors.items()}
    target = Target(network, arrays)  # type: ignore[arg-type]
    ticket = approximate(target, seed=0, candidates=8, tolerance=0.1)
    assert set(ticket.network.approximated) == {"conv.weight", "conv.bias"}
    assert verify(ticket, target=target).holds
    other = Target(network, {**arrays, "bn.running_mean": arrays["bn.running_mean"] + 1})  # type: ignore[arg-type]
    assert verify(ticket, target=other).outcome == "broken"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 200))
def test_slices_do_not_show(seed: int, kept: int) -> None:
    """Whatever the size of the slices, the same certificate."""
    target = small_target(nonnegative=False, biases=True)
    ticket, found = _sparse(target, seed, kept), []
    for size in (1, 200, 1 << 18):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lottery_jax.tickets.effective_slices._SLICE", size)
            found.append(verify(ticket, target=target, tolerance=0.5))
    assert len({repr(dataclasses.replace(one, mean_residual=None)) for one in found}) == 1
    assert found[0].mean_residual == pytest.approx(found[-1].mean_residual, rel=1e-12)


def _sparse(target: Target, seed: int, kept: int) -> Ticket:
    """A ticket with random masks: nothing holds, every number must still be the same."""
    network = Pensia(candidates=5).source(target)
    random = np.random.default_rng(seed)
    masks = {
        name: random.permutation(drawn.size).reshape(drawn.shape) < kept
        for name, drawn in network.random_tensors.items()
    }
    return make_ticket(network, seed=seed, masks=masks, method="random", target=target, tolerance=0.01)


def test_progress_counts_all_weights(ticket: Ticket, target: Target) -> None:
    seen: list[tuple[int, int]] = []
    verify(ticket, target=target, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (target.weights, target.weights) and seen == sorted(seen)


def test_a_file_is_verified_like_what_it_holds(ticket: Ticket, target: Target, tmp_path: Path) -> None:
    ticket.save(tmp_path / "ticket")
    assert verify(tmp_path / "ticket", target=target) == verify(ticket, target=target)


def test_the_weights_of_a_verification_are_the_effective_weights(ticket: Ticket, target: Target) -> None:
    found = verify_with_weights(ticket, target=target)
    assert found.certificate == verify(ticket, target=target) and found.weights is not None
    effective = effective_weights(ticket)
    assert set(found.weights) == set(effective)
    for name, value in effective.items():
        np.testing.assert_array_equal(found.weights[name], value)
    bare = verify_with_weights(changed(ticket, target=None, tolerance=None))
    assert (bare.certificate.outcome, bare.target, bare.weights) == ("no guarantee", None, None)


def test_weights_of_a_model_without_a_graph_are_only_read_in_slices(target: Target, tmp_path: Path) -> None:
    export_target(target, tmp_path / "model.safetensors")
    model, _ = load_model(tmp_path / "model.safetensors")
    ticket = approximate(model, seed=0, construction="scalar", candidates=9, tolerance=0.1)
    found = verify_with_weights(ticket, target=model)
    assert (found.certificate.outcome, found.weights, found.certificate.float32_addition) == ("holds", None, None)
