"""Constructions, end to end on small targets: the masked network computes what the target computes."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from lottery_jax.certificate import approximated_weights, verify
from lottery_jax.networks.architecture import draw_source, unroll, unroll_masks

from lottery_jax.constructions import CONSTRUCTIONS, approximate
from lottery_jax.errors import InputError
from lottery_jax.networks.network import fixed_network
from lottery_jax.subset_sum import MeetInTheMiddle


def target(sizes=(9, 6, 4), scale=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-scale, scale, shape).astype(np.float32) for shape in itertools.pairwise(sizes)]


def relu_network(weights, x):
    for weight in weights[:-1]:
        x = np.maximum(x @ weight.astype(np.float64), 0)
    return x @ weights[-1].astype(np.float64)


@pytest.mark.parametrize("construction", CONSTRUCTIONS)
@pytest.mark.parametrize("objective", ["least-error", "smallest"])
def test_the_pruned_random_network_is_the_target(construction, objective):
    weights = target()
    ticket = approximate(weights, seed=1, construction=construction, candidates=14, objective=objective)
    found = verify(ticket)
    assert found.holds and found.within_tolerance == found.target_weights == 9 * 6 + 6 * 4
    assert 0 < found.worst_residual <= 0.01 and found.tolerance == 0.01
    x = np.random.default_rng(5).uniform(0, 1, (20, 9)).astype(np.float32)
    deviation = np.abs(np.asarray(ticket.network()(jnp.asarray(x))) - relu_network(weights, x)).max()
    # Each layer's error is at most (sum of inputs) * worst residual, carried through the next layer's weights.
    first = 9 * found.worst_residual
    assert deviation <= first * 6 * 0.51 + 6 * (9 * 0.51 + first) * found.worst_residual + 1e-4
    kept = found.kept_weights
    assert kept == sum(found.kept_by_tensor.values()) == ticket.kept_weights


def test_the_collapsed_form_equals_the_masked_network():
    ticket = approximate(target(), seed=3, candidates=10, tolerance=0.05)
    x = np.random.default_rng(0).uniform(0, 1, (11, 9)).astype(np.float32)
    collapsed = relu_network([sums[0].astype(np.float64) for sums in approximated_weights(ticket)], x)
    masked = ticket.network()(jnp.asarray(x))
    np.testing.assert_allclose(masked, collapsed, atol=2e-5)


def test_the_full_depth_2l_network_is_the_target():
    """Theorem 1's network itself: every first matrix is full and random, its mask block-column."""
    weights = target()
    tickets = (approximate(weights, seed=seed, candidates=14, tolerance=0.05) for seed in range(20))
    ticket = next(t for t in tickets if not any(len(rows) for rows in t.redraws.values()))
    source = {
        name.replace("second", "kernel"): tensor.reshape(-1, tensor.shape[-1])
        for name, tensor in ticket.source.items()
        if "second" in name
    }
    plain = unroll(ticket.architecture)
    full = draw_source(plain, ticket.seed)
    np.testing.assert_array_equal(full["1.kernel"], source["0.kernel"])
    network = fixed_network(plain, full, unroll_masks(ticket.architecture, dict(ticket.masks)))
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (5, 9)).astype(np.float32))
    np.testing.assert_allclose(network(x), ticket.network()(x), atol=2e-5)


def test_inputs_of_both_signs():
    weights = target(scale=0.3)
    ticket = approximate(weights, seed=2, candidates=14, nonnegative=False)
    assert verify(ticket).holds
    assert ticket.architecture[0].signed and not ticket.architecture[1].signed
    x = np.random.default_rng(5).uniform(-1, 1, (20, 9)).astype(np.float32)
    assert np.abs(np.asarray(ticket.network()(jnp.asarray(x))) - relu_network(weights, x)).max() < 0.05


def test_failures_are_redrawn_recorded_and_counted():
    weights = target((20, 12), scale=0.5)
    few = approximate(weights, seed=0, candidates=7, max_redraws=0)
    found = verify(few)
    assert found.within_tolerance < 240 and not found.holds
    assert few.settings["failures"] == 240 - found.within_tolerance
    mended = approximate(weights, seed=0, candidates=7, max_redraws=30)
    assert verify(mended).holds and mended.settings["failures"] == 0
    assert verify(mended).redrawn_blocks >= few.settings["failures"]


def test_shared_candidates_are_redrawn_by_output():
    weights = target((12, 5), scale=0.5)
    ticket = approximate(weights, seed=0, construction="scalar-shared", candidates=7, tolerance=0.02, max_redraws=400)
    assert verify(ticket).holds
    rows = ticket.redraws["0.kernel"]
    assert len(rows) and (rows[:, 0] == 0).all() and len(np.unique(rows[:, 1])) == len(rows)


def test_same_seed_same_ticket_and_another_seed_another():
    weights = target()
    first, second, third = (approximate(weights, seed=s, candidates=8, tolerance=0.05).to_bytes() for s in (0, 0, 1))
    assert first == second != third


def test_the_verifier_counts_a_changed_bit():
    ticket = approximate(target(), seed=0, candidates=8, tolerance=0.02)
    before = verify(ticket)
    mask = ticket.masks["0.second"].copy()
    strong = np.abs(ticket.source["0.second"]) * (ticket.source["0.first"] > 0.5)[..., None]
    place = np.unravel_index(np.argmax(strong), mask.shape)
    mask[place] = ~mask[place]
    after = verify(dataclasses.replace(ticket, masks={**ticket.masks, "0.second": mask}))
    assert after.within_tolerance == before.within_tolerance - 1
    assert after.worst_weight == (0, place[0], place[2])


def test_zeros_and_constant_layers():
    weights = [np.zeros((3, 2), np.float32), np.full((2, 2), 0.125, np.float32)]
    for construction in CONSTRUCTIONS:
        found = verify(approximate(weights, seed=0, construction=construction, candidates=12))
        assert found.holds


def test_the_verifier_against_a_plain_loop():
    ticket = approximate(target((3, 2)), seed=0, candidates=6, tolerance=0.1, solver=MeetInTheMiddle())
    u, v = ticket.source["0.first"], ticket.source["0.second"]
    keep_u, keep_v = ticket.masks["0.first"], ticket.masks["0.second"]
    worst = 0.0
    for i in range(3):
        for j in range(2):
            total = sum(
                float(u[i, k]) * float(v[i, k, j])
                for k in range(u.shape[1])
                if keep_u[i, k] and keep_v[i, k, j] and u[i, k] > 0
            )
            worst = max(worst, abs(ticket.architecture[0].gain * total - float(ticket.target[0][i, j])))
    assert verify(ticket).worst_residual == pytest.approx(worst, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"construction": "penzia"}, "did you mean 'pensia'"),
        ({"objective": "smalest"}, "did you mean 'smallest'"),
        ({"candidates": 0}, "candidates"),
        ({"candidates": 41, "objective": "smallest"}, "40"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("inf")}, "tolerance"),
        ({"max_redraws": -1}, "max_redraws"),
        ({"weights": []}, "no layers"),
        ({"weights": [np.zeros((0, 3), np.float32)]}, "matrix"),
        ({"weights": [np.full((2, 3), np.nan, np.float32)]}, "NaN"),
        ({"weights": [np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)]}, "3 outputs .* 4 inputs"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_input_is_refused(change, words):
    arguments = {"weights": target(), "seed": 0, **change}
    with pytest.raises(InputError, match=words):
        approximate(arguments.pop("weights"), **arguments)
