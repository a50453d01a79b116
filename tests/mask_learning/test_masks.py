"""What each learner does with its scores, beside plain NumPy: one step, one freezing, one gate; nothing is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup, IteRand
from lottery_jax.mask_learning.gem_miner import GemMiner
from lottery_jax.mask_learning.learner_sources import plain_source
from lottery_jax.mask_learning.score_learner import RunInputs
from lottery_jax.mask_learning.scores import straight_through
from lottery_jax.mask_learning.supermask import HardConcrete, RescaledSupermask, Supermask
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.network import NO_REDRAWS
from lottery_jax.networks.node import Spec
from lottery_jax.rng.random_tensor import block_attempts
from lottery_jax.tickets.ticket import make_ticket
from lottery_jax.training.initialisers import INITS, reinitialised
from lottery_jax.training.learner import TrainingRequest
from tests.mask_learning.sources import GADGET, small_data

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
SCORES = {"a": RANDOM.normal(size=(40, 50)).astype(np.float32), "b": RANDOM.normal(size=(7, 3)).astype(np.float32)}


def run(keep: float) -> RunInputs:
    counts = {name: jnp.int32(round(keep * score.size)) for name, score in SCORES.items()}
    return RunInputs(
        jnp.int32(0), counts, jnp.int32(round(keep * sum(score.size for score in SCORES.values()))), {}, {}
    )


def test_straight_through_is_the_hard_value_exactly() -> None:
    soft = jnp.asarray(RANDOM.normal(size=1000), jnp.float32)
    np.testing.assert_array_equal(straight_through(soft > 0, soft), np.asarray(soft) > 0)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1))
def test_global_edge_popup_ranks_all_tensors_together(keep: float) -> None:
    masks = EdgePopup(scope="global").masks(jax.tree.map(jnp.asarray, SCORES), run(keep), KEY)
    flat = np.concatenate([np.abs(score).ravel() for score in SCORES.values()])
    expected = np.zeros(flat.size, bool)
    expected[np.argsort(-flat, kind="stable")[: int(run(keep).total)]] = True
    np.testing.assert_array_equal(np.concatenate([np.ravel(mask) for mask in masks.values()]) > 0, expected)
    with pytest.raises(InputError, match="did you mean 'global'"):
        EdgePopup(scope="globl")


def test_a_supermask_keeps_with_the_probability_of_its_score() -> None:
    learner, scores = Supermask(), {"a": jnp.full((200, 200), -1.0), "b": jnp.full((200, 200), 2.0)}
    masks = learner.masks(scores, run(1), KEY)
    for name, score in scores.items():
        assert set(np.unique(masks[name])) == {0.0, 1.0}
        assert np.mean(masks[name]) == pytest.approx(float(jax.nn.sigmoid(score[0, 0])), abs=0.01)
    assert (masks["a"] != learner.masks(scores, run(1), jax.random.key(1))["a"]).any()
    gradient = jax.grad(lambda scores: sum(m.sum() for m in learner.masks(scores, run(1), KEY).values()))(scores)
    likely = np.asarray(jax.nn.sigmoid(scores["a"]))
    np.testing.assert_allclose(gradient["a"], likely * (1 - likely), rtol=1e-5)
    left = dataclasses.replace(learner, threshold=True).final_masks(scores, run(1), KEY)
    assert not left["a"].any() and left["b"].all()


def test_gem_miner_rounds_and_never_revives() -> None:
    learner = GemMiner(freeze_every=2)
    old = {"a": np.array([-1.0, 0.2, 0.9], np.float32)}
    new = learner.project_scores(old, {"a": jnp.array([0.7, -0.3, 1.4])})
    assert new["a"].tolist() == [-1.0, 0.0, 1.0]
    masks = learner.masks({"a": jnp.array([-1.0, 0.49, 0.5, 1.0])}, run(1), KEY)
    assert masks["a"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("keep", [0.0, 0.013, 0.3, 1.0])
def test_gem_miner_freezes_the_least_until_so_many_are_left(keep: float) -> None:
    """Geometrically, every other epoch; after the last freezing no more than what is asked for."""
    learner, epochs, asked = GemMiner(freeze_every=2), 7, run(keep)
    scores = {name: jnp.abs(jnp.asarray(score)) for name, score in SCORES.items()}
    for epoch in range(epochs):
        before = scores
        scores = learner.on_epoch_end(scores, asked, jnp.int32(epoch), epochs)
        for name, score in scores.items():
            alive, was = np.asarray(score) >= 0, np.asarray(before[name]) >= 0
            assert not (alive & ~was).any()
            if epoch % 2 == 0 or epoch == epochs - 1:
                assert (alive == was).all()
                continue
            step, count = (epoch + 1) // 2, int(asked.counts[name])
            kept = max(int(np.floor(score.size * (count / score.size) ** (step / 3))), count)
            assert abs(int(alive.sum()) - min(kept, int(was.sum()))) <= 1  # float32 may round the power
            assert np.asarray(before[name])[alive].min(initial=np.inf) >= np.asarray(before[name])[was & ~alive].max(
                initial=0.0
            )
    assert {name: int((score >= 0).sum()) for name, score in scores.items()} == {
        name: int(count) for name, count in asked.counts.items()
    }


def test_hard_concrete_gates_are_clipped_logistic_variables() -> None:
    learner = HardConcrete(penalty_factor=2.0)
    scores = {"a": jnp.full((300, 300), 0.4)}
    gates = np.asarray(learner.masks(scores, run(1), KEY)["a"])
    assert gates.min() == 0 and gates.max() == 1 and 0.2 < np.mean((gates > 0) & (gates < 1)) < 0.8
    # The penalty is the probability that a gate is not zero.
    assert float(learner.penalty(scores, run(1))) == pytest.approx(2 * np.mean(gates > 0), abs=0.02)
    left = learner.final_masks({"a": jnp.array([-1.0, -0.01, 0.01, 1.0])}, run(1), KEY)
    assert left["a"].tolist() == [False, False, True, True]


def test_hard_concrete_gates_have_no_options_of_sgd() -> None:
    options = {field.name for field in dataclasses.fields(HardConcrete)}
    assert not options & {"momentum", "weight_decay"}


@pytest.mark.parametrize("learner", [EdgePopup(), Supermask(threshold=True), GemMiner(), HardConcrete()])
def test_what_a_start_keeps_comes_first(learner) -> None:
    """At the kept counts of the start, the first masks are those of the start."""
    first = learner.initial(GADGET, 3)
    start = {name: RANDOM.random(score.shape) < 0.4 for name, score in first.items()}
    scores = {name: jnp.asarray(score, jnp.float32) for name, score in learner.warm_start_scores(first, start).items()}
    counts = {name: jnp.int32(mask.sum()) for name, mask in start.items()}
    final_masks = learner.final_masks(scores, RunInputs(jnp.int32(0), counts, jnp.int32(0), {}, {}), KEY)
    for name, mask in start.items():
        np.testing.assert_array_equal(final_masks[name], mask)


def test_a_training_goes_on_from_a_ticket_with_its_redraws() -> None:
    """At a rate too small to change a mask it is the start itself, redraws included; another source is refused."""
    masks = {name: RANDOM.random(drawn.shape) < 0.5 for name, drawn in GADGET.random_tensors.items()}
    redraws = {"fc1.weight": np.array([[2, 7]])}
    start = make_ticket(GADGET, seed=4, masks=masks, method="start", redraws=redraws)
    learner = Supermask(learning_rate=1e-9, threshold=True)
    (ticket,) = learner.learn(
        GADGET, TrainingRequest(small_data(), seeds=[4], keeps=[], epochs=1), warm_start={4: start}
    )
    for name, mask in masks.items():
        np.testing.assert_array_equal(ticket.mask(name), mask)
        np.testing.assert_array_equal(ticket.source()[name], start.source()[name])
    with pytest.raises(InputError, match=r"`warm_start` must have a ticket on this source for each seed of \(5,\)"):
        learner.learn(GADGET, TrainingRequest(small_data(), seeds=[5], keeps=[], epochs=1), warm_start={4: start})


def test_iterand_draws_again_what_is_pruned_and_nothing_else() -> None:
    masks = {name: RANDOM.random(drawn.shape) < 0.5 for name, drawn in GADGET.random_tensors.items()}
    before = {"fc1.weight": np.array([[0, 3], [7, 255]])}
    again = IteRand(renewal=1.0).resample(GADGET, 0, 1, masks, before)
    for name, drawn in GADGET.random_tensors.items():
        pruned = ~masks[name].reshape(drawn.blocks, -1).any(1)
        expected = block_attempts(before.get(name, NO_REDRAWS), 0, drawn.blocks)
        expected = np.minimum(expected + pruned, 255)
        np.testing.assert_array_equal(block_attempts(again[name], 0, drawn.blocks), expected)
        drawn.check_redraws(name, again[name])
    kept = IteRand(renewal=0.0).resample(GADGET, 0, 1, masks, before)
    np.testing.assert_array_equal(kept["fc1.weight"], before["fc1.weight"])
    with pytest.raises(InputError, match=r"`renewal` must be in \[0, 1\], got 1.5"):
        IteRand(renewal=1.5)


@pytest.mark.slow
def test_the_weights_that_iterand_keeps_are_those_of_its_redraws() -> None:
    """Pruned weights are new ones after each epoch, and the ticket draws them again from its rows."""
    source = plain_source(GADGET.target)
    (ticket,) = IteRand(renewal=1.0, batch_size=8).learn(
        source, TrainingRequest(small_data(), seeds=[0], keeps=[0.3], epochs=3)
    )
    rows = {name: ticket.redraws(name) for name in source.random_tensors}
    assert sum(map(len, rows.values())) > 0.3 * source.source_weights
    (still,) = IteRand(renewal=0.0, batch_size=8).learn(
        source, TrainingRequest(small_data(), seeds=[0], keeps=[0.3], epochs=3)
    )
    (popup,) = EdgePopup(batch_size=8).learn(source, TrainingRequest(small_data(), seeds=[0], keeps=[0.3], epochs=3))
    assert all((still.mask(name) == popup.mask(name)).all() for name in source.random_tensors), (
        "without draws it is edge-popup"
    )


def test_a_rescaled_leaf_is_multiplied_by_size_over_kept() -> None:
    masks = {name: np.zeros(drawn.shape, bool) for name, drawn in GADGET.random_tensors.items()}
    masks["fc1.first"][0, 0] = True
    masks["fc1.weight"][:, :, 0] = True
    factors = RescaledSupermask().gain_factors(GADGET, 0, masks)
    assert set(Supermask().gain_factors(GADGET, 0, masks).values()) == {1.0}
    assert factors == {"fc1.gain": masks["fc1.first"].size * 3.0, "fc2.gain": float(masks["fc2.weight"].size)}


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("kaiming-normal", (2 / 64) ** 0.5),
        ("kaiming-uniform", (2 / 64) ** 0.5),
        ("xavier-normal", (2 / 364) ** 0.5),
        ("xavier-uniform", (2 / 364) ** 0.5),
        ("signed-constant", (2 / 64) ** 0.5),
    ],
)
def test_distributions_have_their_usual_deviations(init: str, deviation: float) -> None:
    source = plain_source(mlp((64, 300, 10), Spec((8, 8, 1)), bias=True))
    drawn = reinitialised(source, init).draw(0)["fc1.weight"]
    assert drawn.std() == pytest.approx(deviation, rel=0.02) and abs(drawn.mean()) < 0.01
    if init == "signed-constant":
        np.testing.assert_allclose(np.abs(drawn), deviation, rtol=1e-6)


def test_an_init_is_for_plain_sources() -> None:
    assert "xavier-normal" in INITS
    with pytest.raises(InputError, match=r"'fc1' is a gadget. .*learn on the wide source"):
        reinitialised(GADGET, "xavier-normal")
    with pytest.raises(InputError, match="did you mean 'kaiming-normal'"):
        reinitialised(GADGET, "kaiming_normal")
