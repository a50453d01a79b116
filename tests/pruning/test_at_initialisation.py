"""Pruning at initialisation: scores beside finite differences and closed forms, counts, and what the ticket says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.node import Spec
from lottery_jax.pruning import TRAINED
from lottery_jax.pruning.at_initialisation import (
    SALIENCIES,
    PruningAtInitialisation,
    PruningFromScratch,
    RandomPruning,
    SaliencyPruning,
    SmartRatio,
    Snip,
    grasp,
    smart_counts,
    snip,
    synflow,
)
from lottery_jax.pruning.base import initial_tensors, random_network
from lottery_jax.pruning.criteria import pruned
from lottery_jax.tickets.verify import verify
from lottery_jax.training.learner import TrainingRequest
from lottery_jax.training.loop import network_loss
from lottery_jax.training.losses import KIND_LOSSES
from tests.mask_learning.sources import small_data

DATA = small_data()
NETWORK = mlp((4, 5, 2), Spec((2, 2, 1), True), bias=True)
TENSORS = initial_tensors(random_network(NETWORK, trained=True), 3)
LOSS = network_loss(NETWORK, KIND_LOSSES["classification"])
IMAGES, LABELS = jnp.asarray(DATA.train.images), jnp.asarray(DATA.train.labels)
METHODS = [kind for kind in TRAINED.values() if issubclass(kind, PruningAtInitialisation)]


def loss(tensors) -> jax.Array:
    logits, _ = NETWORK.train(tensors, IMAGES)
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


def test_every_saliency_is_a_method() -> None:
    assert {kind.name for kind in METHODS if issubclass(kind, SaliencyPruning)} == set(SALIENCIES)


def test_snip_is_what_the_loss_minds() -> None:
    """The derivative for a factor of the weight, at 1."""
    scores = snip(NETWORK, LOSS, TENSORS, IMAGES, LABELS)["fc1.weight"]
    for place in ((0, 0), (2, 3), (4, 1)):
        changed = [TENSORS["fc1.weight"].copy() for _ in range(2)]
        for weight, factor in zip(changed, (1.05, 0.95), strict=True):
            weight[place] *= factor
        up, down = (float(loss({**TENSORS, "fc1.weight": jnp.asarray(weight)})) for weight in changed)
        assert float(scores[place]) == pytest.approx(abs(up - down) / 0.1, rel=0.05, abs=1e-4)


def test_grasp_is_the_weight_times_the_hessian_times_the_gradient() -> None:
    """By differentiating the gradient's product with itself, held fixed, once more backwards."""
    descend = jax.grad(loss)
    fixed = descend(TENSORS)

    def product(tensors) -> jax.Array:
        return sum(jnp.vdot(fixed[name], value) for name, value in descend(tensors).items())

    expected = jax.grad(product)(TENSORS)
    for name, score in grasp(NETWORK, LOSS, TENSORS, IMAGES, LABELS).items():
        np.testing.assert_allclose(score, TENSORS[name] * expected[name], rtol=1e-3, atol=1e-6)


def test_synflow_is_the_flow_over_all_paths_of_a_weight() -> None:
    tensors = {name: np.zeros_like(value) if "bias" in name else value for name, value in TENSORS.items()}
    scores = synflow(NETWORK, LOSS, tensors, IMAGES, LABELS)
    first, second = np.abs(tensors["fc1.weight"]), np.abs(tensors["fc2.weight"])
    np.testing.assert_allclose(scores["fc1.weight"], first * second.sum(0)[:, None], rtol=1e-5)
    np.testing.assert_allclose(scores["fc2.weight"], second * first.sum(1), rtol=1e-5)


@pytest.mark.parametrize("keep", [0.0, 0.3, 1.0])
def test_the_largest_are_kept_exactly_and_nothing_comes_back(keep: float) -> None:
    random = np.random.default_rng(0)
    scores = {"a": np.round(random.normal(size=(6, 5)), 1), "b": random.normal(size=9)}
    scores["b"][:2] = np.nan, np.inf
    masks = {name: random.random(score.shape) < 0.6 for name, score in scores.items()}
    found = pruned(scores, masks, keep, scope="global")
    alive = sum(mask.sum() for mask in masks.values())
    assert sum(mask.sum() for mask in found.values()) == min(round(keep * 39), alive)
    assert not any((found[name] & ~masks[name]).any() for name in masks)


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_tickets_keep_what_was_asked_and_are_trained(kind: type[PruningAtInitialisation]) -> None:
    learner = kind(batch_size=8, learning_rate=0.02)
    tickets, again = (
        learner.learn(NETWORK, TrainingRequest(DATA, seeds=[5], keeps=[0.4, 1.0], epochs=2)) for _ in range(2)
    )
    for ticket, other, keep in zip(tickets, again, (0.4, 1.0), strict=True):
        assert ticket.kept_weights == round(keep * 30) and ticket.to_bytes() == other.to_bytes()
        assert (ticket.header.method, ticket.header.settings["keep"]) == (kind.name, keep)
        found = verify(ticket)
        assert (found.outcome, found.trained) == ("no guarantee", True)
        for name, mask in ticket.masks.items():
            stored = ticket.stored[ticket.network.trained_tensors[name]]
            assert not stored[~mask].any() and (stored[mask] != ticket.source()[name][mask]).any()
    with pytest.raises(InputError, match=r"keep must be .* got 1\.5"):
        learner.learn(NETWORK, TrainingRequest(DATA, seeds=[5], keeps=[1.5], epochs=1))


LAYERS = {"a": 600, "b": 6000, "c": 6000, "d": 100}


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.02, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_smart_ratios_are_exact_and_fall_as_published(keep: float) -> None:
    total = round(keep * sum(LAYERS.values()))
    found = smart_counts(LAYERS, total, 0.3)
    assert sum(found.values()) == total and all(0 <= found[name] <= size for name, size in LAYERS.items())
    assert found["d"] == (30 if 120 <= total <= 12_630 else min(total // 4, 30) if total < 120 else total - 12_600)
    if keep in (0.02, 0.1):  # nothing is full: (L - l + 1)**2 + (L - l + 1) for L = 4
        densities = [found[name] / LAYERS[name] for name in "abc"]
        np.testing.assert_allclose(np.divide(densities, densities[2]), [20 / 6, 12 / 6, 1], rtol=0.05)
    assert smart_counts({"a": 10}, 4, 0.3) == {"a": 4}


def masks(learner: PruningAtInitialisation, seed: int = 3, keep: float = 0.4) -> dict[str, np.ndarray]:
    random = random_network(NETWORK, trained=True)
    return learner.masks(random, DATA, initial_tensors(random, seed), seed, keep, KIND_LOSSES["classification"])


@pytest.mark.parametrize("learner", [RandomPruning(), RandomPruning(scope="global"), SmartRatio()])
def test_chance_is_of_the_seed_and_knows_no_weights(learner: PruningAtInitialisation) -> None:
    one, same, other = masks(learner), masks(learner), masks(learner, seed=4)
    assert all((one[name] == same[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)
    assert sum(mask.sum() for mask in one.values()) == 12
    wide = random_network(mlp((100, 200, 2), Spec((100,))), trained=True)
    tensors = initial_tensors(wide, 1)
    found = learner.masks(wide, DATA, tensors, 1, 0.5, KIND_LOSSES["classification"])["fc1.weight"]
    assert abs(np.corrcoef(found.ravel(), np.abs(tensors["fc1.weight"]).ravel())[0, 1]) < 0.03
    assert found.sum(1).min() > 25 and found.sum(1).max() < 75


def test_whole_units_are_kept_from_scratch() -> None:
    """Whole units are kept, but for the last one, of which a part is."""
    learner = PruningFromScratch(batch_size=8, gate_epochs=20, gate_rate=0.05, balance=0.01)
    found = masks(learner, keep=0.6)
    rows, columns = found["fc1.weight"].sum(1), found["fc2.weight"].sum(0)
    parts = sum(0 < count < 4 for count in rows) + sum(0 < count < 2 for count in columns)
    assert parts <= 1 and rows.sum() + columns.sum() == 18
    assert all((found[name] == mask).all() for name, mask in masks(learner, keep=0.6).items())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (RandomPruning, {"scope": "rows"}, "`scope` must be one of layer, global, erk, got 'rows'"),
        (SmartRatio, {"output_keep": 1.5}, "`output_keep` must be in .*, got 1.5"),
        (PruningFromScratch, {"gate_epochs": 0}, "`gate_epochs` must be at least 1, .*, got 0"),
        (Snip, {"schedule": "linear"}, "`schedule` must be one of constant, cosine, steps, got 'linear'"),
        (Snip, {"warmup": -1}, "`warmup` must be at least 0, got -1"),
    ],
)
def test_bad_options_are_refused(kind: type[PruningAtInitialisation], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**options)


def test_runs_that_diverge_are_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """Biases alone cannot overflow."""
    steep = RandomPruning(batch_size=8, optimizer="sgd", momentum=0.0, learning_rate=1e30)
    (ticket,) = steep.learn(NETWORK, TrainingRequest(DATA, seeds=[5], keeps=[1.0, 0.0], epochs=2))
    assert ticket.header.settings["keep"] == 0.0
    assert "random-pruning, seed 5, keep 1 diverged: no ticket" in caplog.text
    with pytest.raises(InputError, match="random-pruning diverged in every run"):
        steep.learn(NETWORK, TrainingRequest(DATA, seeds=[5], keeps=[1.0], epochs=2))
