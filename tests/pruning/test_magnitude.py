"""Magnitude pruning end to end: what is rewound, what is kept, what supermasks compute, and what is refused."""

import dataclasses
import itertools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import load
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import digest
from lottery_jax.networks.architectures import architecture, mlp
from lottery_jax.networks.forward import forward, outputs
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.base import initial_tensors, random_network
from lottery_jax.pruning.criteria import criterion, pruned
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.pruning.mask_actions import Mask0Action, Mask1Action, MaskKind
from lottery_jax.pruning.retraining import Retraining
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify
from lottery_jax.training.learner import TrainingRequest
from lottery_jax.training.losses import TaskLoss
from tests.mask_learning import sources

DATA = sources.small_data()
NETWORK = mlp((4, 5, 2), Spec((2, 2, 1), True), bias=True)
PLAIN = mlp((4, 5, 2), Spec((2, 2, 1), True))
WEIGHTS = ("fc1.weight", "fc2.weight")
MASKS: tuple[MaskKind, ...] = ("found", "shuffled", "inverted")
SEEDS, KEEPS = (5, 2**63), (0.35, 1.0)
BRIEF = Magnitude(batch_size=8, learning_rate=0.02)


def learn(learner: Magnitude = BRIEF, source: Network = NETWORK, **changes: object) -> list[Ticket]:
    return learner.learn(source, TrainingRequest(DATA, **{"seeds": SEEDS, "keeps": KEEPS, "epochs": 2, **changes}))  # type: ignore[arg-type]


def brief(**options: object) -> Magnitude:
    return dataclasses.replace(BRIEF, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", ["layer", "global", "erk"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_tickets_keep_what_was_asked_and_are_the_same_again(scope: str, rounds: int, tmp_path: Path) -> None:
    learner = brief(scope=scope, rounds=rounds)
    tickets = learn(learner)
    for ticket, again, (seed, keep) in zip(tickets, learn(learner), itertools.product(SEEDS, KEEPS), strict=True):
        settings = ticket.header.settings
        assert (ticket.header.method, ticket.seed, settings["keep"]) == ("magnitude", seed, keep)
        assert ticket.network.target == NETWORK and ticket.kept_weights == round(keep * 30)
        assert settings["kept"] == {name: np.count_nonzero(mask) for name, mask in ticket.masks.items()}
        for name, mask in ticket.masks.items():
            stored = ticket.stored[ticket.network.trained_tensors[name]]
            np.testing.assert_array_equal(stored[~mask], 0)
            assert (stored[mask] != ticket.source()[name][mask]).any()
        assert ticket.to_bytes() == again.to_bytes()
        found = verify(ticket)
        assert (found.outcome, found.trained, found.reasons) == ("no guarantee", True, ())
        assert found.description_bits["stored"] == 32 * (round(keep * 30) + 7)
    tickets[0].save(tmp_path / "ticket")
    loaded, images = load_ticket(tmp_path / "ticket"), jnp.asarray(DATA.test.images)
    assert loaded.header == tickets[0].header
    np.testing.assert_array_equal(loaded.forward()(images), tickets[0].forward()(images))
    np.testing.assert_allclose(loaded.module()(images), tickets[0].forward()(images), rtol=1e-5)  # type: ignore[operator]


def test_weights_rewound_to_the_beginning_are_those_of_the_seed() -> None:
    for ticket in learn():
        settings, drawn = ticket.header.settings, ticket.source()
        assert settings["rewound_to"] == 0
        assert settings["rewound_sha256"] == digest("", {name: drawn[name] for name in WEIGHTS})


def test_a_run_does_not_depend_on_the_others_and_seeds_differ() -> None:
    runs_per_step = {(ticket.seed, ticket.header.settings["keep"]): ticket for ticket in learn()}
    (alone,) = learn(seeds=(5,), keeps=(0.35,))
    assert alone.to_bytes() == runs_per_step[5, 0.35].to_bytes()
    assert (
        runs_per_step[2**63, 1.0].stored["fc1.trained_weight"] != runs_per_step[5, 1.0].stored["fc1.trained_weight"]
    ).all()


def test_all_kept_is_the_dense_training_and_nothing_kept_is_its_biases() -> None:
    whole, nothing = learn(seeds=(5,), keeps=(1.0, 0.0))
    assert whole.header.settings["loss"] == whole.header.settings["dense_loss"]
    assert nothing.kept_weights == 0 and np.ptp(outputs(nothing.forward(), DATA.test.images), axis=0).max() == 0


def test_rewinding_to_a_later_epoch_keeps_the_weights_of_then() -> None:
    late, early = learn(brief(rewind=1), epochs=3)[0], learn(epochs=1, keeps=(1.0,))[0]
    dense = {name: early.stored[early.network.trained_tensors[name]] for name in WEIGHTS}
    assert late.header.settings["rewound_sha256"] == digest("", dense)
    assert late.header.settings["early_stop_epoch"] in (2, 3)
    with pytest.raises(InputError, match="`rewind` must be an epoch from 0 to 1, got 2"):
        learn(brief(rewind=2))


@pytest.mark.parametrize("kind", ["reinit", "reshuffle", "constant"])
def test_kept_weights_begin_elsewhere(kind: Mask1Action) -> None:
    """Read off before training: a learning rate too small to move a weight."""
    still = brief(mask_1_action=kind, learning_rate=1e-30)
    random = random_network(NETWORK, trained=True)
    initial = initial_tensors(random, 5)
    for same_sign in (False, True):
        ticket = learn(dataclasses.replace(still, same_sign=same_sign), seeds=(5,), keeps=(0.8,))[0]
        signs = []
        for name in WEIGHTS:
            mask, began = ticket.mask(name), ticket.stored[random.trained_tensors[name]]
            kept, old = began[mask], initial[name][mask]
            assert (began[~mask] == 0).all() and (kept != old).any()
            signs += list(np.sign(kept) == np.sign(old))
            if kind == "reshuffle":
                np.testing.assert_array_equal(np.sort(np.abs(kept)), np.sort(np.abs(old)))
            if kind == "constant":
                np.testing.assert_allclose(
                    np.abs(kept), random.random_tensors[name].sampler.standard_deviation, rtol=1e-6
                )
        assert all(signs) == same_sign


@pytest.mark.parametrize("constant", [False, True])
def test_a_supermask_is_the_drawn_weights_under_a_mask(constant: bool) -> None:
    options = {"mask_1_action": "constant", "same_sign": True} if constant else {}
    (ticket,) = learn(brief(retrain=False, **options), seeds=(5,), keeps=(0.5,))
    random = random_network(NETWORK, trained=False)
    initial = initial_tensors(random, 5)
    whole = {name: np.where(ticket.masks.get(name, False), value, 0) for name, value in initial.items()}
    if constant:
        scales = {name: random.random_tensors[name].sampler.scale for name in WEIGHTS}
        whole |= {name: np.sign(whole[name]) * np.float32(scales[name]) for name in WEIGHTS}
        samplers = {drawn.sampler for drawn in ticket.network.random_tensors.values()}
        assert samplers == set(map(Sampler.signed_constant, scales.values()))
    expected = outputs(forward(NETWORK, whole), DATA.test.images)
    np.testing.assert_allclose(outputs(ticket.forward(), DATA.test.images), expected, rtol=1e-6)
    assert np.abs(expected).max() > 0.1
    found = verify(ticket)
    assert (found.trained, found.kept_weights, found.description_bits["stored"]) == (False, 15, 0)


@pytest.mark.parametrize("action", ["freeze", "movement"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_pruned_weights_stay_as_they_were_drawn(action: Mask0Action, rounds: int, tmp_path: Path) -> None:
    (dense,) = learn(seeds=(5,), keeps=(1.0,))
    (ticket,) = learn(brief(mask_0_action=action, rounds=rounds), seeds=(5,), keeps=(0.35,))
    settings, tensors = ticket.header.settings, {}
    assert settings["kept"] == {name: np.count_nonzero(mask) for name, mask in ticket.masks.items()}
    for name, own in ticket.network.trained_tensors.items():
        mask, frozen = ticket.mask(name), ticket.mask(ticket.network.frozen_tensors[name])
        initial, final = dense.source()[name], dense.stored[own]
        assert not (mask & frozen).any()
        if action == "freeze":
            assert (mask | frozen).all()
        elif rounds == 1:
            np.testing.assert_array_equal(frozen, ~mask & (np.abs(final) >= np.abs(initial)))
        tensors[name] = np.where(frozen, initial, ticket.stored[own])
        assert (ticket.stored[own][mask] != initial[mask]).any() and not ticket.stored[own][~mask].any()
    tensors |= {name: value for name, value in ticket.stored.items() if name in NETWORK.tensors}
    expected = outputs(forward(NETWORK, tensors), DATA.test.images)
    ticket.save(tmp_path / "ticket")
    np.testing.assert_array_equal(outputs(load_ticket(tmp_path / "ticket").forward(), DATA.test.images), expected)
    found = verify(tmp_path / "ticket")
    assert (found.outcome, found.reasons, found.source_weights) == ("no guarantee", (), 30)
    assert settings["revived_steps"] == 0 and sum(ticket.mask(name).sum() for name in WEIGHTS) == round(0.35 * 30)


def test_what_is_frozen_of_an_untrained_ticket_is_in_its_one_mask() -> None:
    (trained,), (untrained,) = (
        learn(brief(mask_0_action="movement", retrain=retrain), source=PLAIN, seeds=(5,), keeps=(0.5,))
        for retrain in (True, False)
    )
    for name, mask in untrained.masks.items():
        np.testing.assert_array_equal(mask, trained.mask(name) | trained.mask(trained.network.frozen_tensors[name]))
    assert untrained.header.settings["kept"] == {name: mask.sum() for name, mask in untrained.masks.items()}
    assert untrained.kept_weights > 14 and not verify(untrained).trained


def test_other_masks_are_of_the_one_that_was_found() -> None:
    (found,), (shuffled,), (inverted,) = (learn(brief(mask=kind), seeds=(5,), keeps=(0.35,)) for kind in MASKS)
    for name in WEIGHTS:
        mask = found.mask(name)
        assert shuffled.mask(name).sum() == mask.sum()
        np.testing.assert_array_equal(inverted.mask(name), ~mask)
    assert any((shuffled.mask(name) != found.mask(name)).any() for name in WEIGHTS)
    assert sum(inverted.header.settings["kept"].values()) == inverted.kept_weights == 30 - round(0.35 * 30)
    assert {verify(ticket).reasons for ticket in (found, shuffled, inverted)} == {()}
    assert inverted.header.settings["keep"] == 0.35


def test_dense_and_pruned_networks_see_the_same_batches() -> None:
    early, late, other = (
        learn(brief(rewind=rewind), seeds=(seed,), keeps=(0.35,), epochs=3)[0].header.settings
        for rewind, seed in ((0, 5), (1, 5), (0, 6))
    )
    for settings in (early, late, other):
        assert settings["batches_sha256"] == settings["dense_batches_sha256"]
    assert len({settings["batches_sha256"] for settings in (early, late, other)}) == 3


def test_a_dense_network_is_trained_once_for_all_that_begin_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data, trained = sources.small_data(), []  # an object of which nothing is remembered
    plain = Retraining.runs

    def counting(self: Retraining, starts: list, *arguments: object, **options: object) -> list:
        trained.append(len(starts))
        return plain(self, starts, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Retraining, "runs", counting)
    progress: list[int] = []
    options = {"keeps": (0.5,), "epochs": 2}
    first = BRIEF.learn(NETWORK, TrainingRequest(data, seeds=(5,), **options))  # type: ignore[arg-type]
    again = BRIEF.learn(
        NETWORK, TrainingRequest(data, seeds=(5, 6), progress=lambda done, total: progress.append(done), **options)
    )  # type: ignore[arg-type]
    assert trained == [1, 1, 1, 1, 1] and progress == sorted(set(progress)) and progress[-1] == 4
    assert first[0].to_bytes() == again[0].to_bytes()
    BRIEF.learn(NETWORK, TrainingRequest(sources.small_data(), seeds=(5,), **options))  # type: ignore[arg-type]
    assert trained == [1, 1, 1, 1, 1, 1, 1]


def test_masks_follow_the_criterion() -> None:
    """The dense weights are those of a ticket that keeps all."""
    whole = learn(seeds=(5,), keeps=(1.0,))[0]
    final = {name: whole.stored[whole.network.trained_tensors[name]] for name in WEIGHTS}
    initial, every = whole.source(), {name: np.ones_like(mask) for name, mask in whole.masks.items()}
    for name in ("large_final", "movement", "random"):
        scores = {weight: criterion(name)(initial[weight], final[weight]) for weight in WEIGHTS}
        expected = pruned(scores, every, 0.4, scope="layer", rates={"fc2.weight": 0.5})
        found = learn(brief(criterion=name), seeds=(5,), keeps=(0.4,))[0].masks
        assert all((found[weight] == expected[weight]).all() for weight in WEIGHTS)


@pytest.mark.slow
def test_convolutions_and_the_output_lose_less() -> None:
    nodes = (("conv", Conv(1, 8, (2, 2))), ("relu", Relu()), ("flatten", Flatten()), ("fc1", Dense(8, 40)))
    network = Network(Chain((*nodes, ("fc2", Dense(40, 2)))), Spec((2, 2, 1), True))
    (ticket,) = learn(brief(convolution_rate=0.5), network, seeds=(1,), keeps=(0.64,))
    kept = {name: mask.mean() for name, mask in ticket.masks.items()}
    assert kept["fc1.weight"] < 0.64 < kept["conv.weight"] == pytest.approx(kept["fc2.weight"], abs=0.02)


def test_normalisations_are_trained_and_not_pruned() -> None:
    source = sources.SOURCES["convolutions and a stored norm"]
    (ticket,) = learn(source=source, seeds=(5,), keeps=(0.5,))
    assert ticket.network.target == source.target and ticket.kept_weights == 8
    assert {name for name in ticket.stored if name.startswith("bn.")} == set(source.tensors)
    assert (ticket.stored["bn.running_mean"] != 0).all() and (ticket.stored["bn.running_var"] != 1).all()
    assert verify(ticket).outcome == "no guarantee"


def test_progress_counts_the_epochs_of_all_rounds() -> None:
    seen: list[tuple[int, int]] = []
    learn(brief(rounds=2, rewind=1), epochs=3, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (7, 7) and seen == sorted(set(seen))


def test_the_digits_are_learned_with_a_fifth_of_the_weights() -> None:
    digits = load("digits")
    network = architecture("mlp-32", Spec(digits.shape, nonnegative=True), 10)
    dense, sparse = Magnitude(learning_rate=5e-3).learn(
        network, TrainingRequest(digits, seeds=(1,), keeps=(1.0, 0.2), epochs=25)
    )
    assert sparse.kept_weights == round(0.2 * dense.kept_weights)
    whole, fifth = (accuracy(ticket.forward(), digits.validation) for ticket in (dense, sparse))
    assert whole > 0.93 and fifth > whole - 0.03


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({}, {"keeps": (0.5, 1.5)}, r"keep must be .*\[0, 1\].* got 1.5"),
        ({}, {"keeps": ()}, "`keeps` must not be empty"),
        ({}, {"seeds": ()}, "`seeds` must not be empty"),
        ({}, {"seeds": (-1,)}, "seed must be in"),
        ({}, {"epochs": 0}, "`epochs` must be at least 1, got 0"),
        ({}, {"source": mlp((64, 3, 10), Spec((8, 8, 1)))}, r"maps \[8, 8, 1\] to \[10\] but small has"),
        ({"runs_per_step": 0}, {}, "`runs_per_step` must be at least 1, got 0"),
        ({"batch_size": 0}, {}, "batch size of 0"),
        ({"learning_rate": -1.0}, {}, "`learning_rate` must be positive and finite, got -1.0"),
        ({"rounds": 0}, {}, "`rounds` must be from 1 to 4096, got 0"),
        ({"output_rate": 0.0}, {}, r"`output_rate` must be in \(0, 1\], got 0.0"),
        ({"convolution_rate": 2.0}, {}, r"`convolution_rate` must be in \(0, 1\], got 2.0"),
        ({"scope": "rows"}, {}, "`scope` must be one of layer, global, erk, got 'rows'"),
        ({"mask_1_action": "zero"}, {}, "`mask_1_action` must be one of rewind, .*, got 'zero'"),
        ({"mask_0_action": "keep"}, {}, "`mask_0_action` must be one of zero, freeze, movement, got 'keep'"),
        ({"mask": "found it"}, {}, "`mask` must be one of found, shuffled, inverted, got 'found it'"),
        ({"criterion": "largest"}, {}, "criterion 'largest' is unknown"),
        ({"retrain": False, "rewind": 1}, {}, "without `retrain`, `rewind` must be 0"),
        ({"retrain": False, "mask_1_action": "constant"}, {}, "without `retrain`"),
    ],
)
def test_bad_input_is_refused(options: dict, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learn(brief(**options), **changes)


def test_a_training_that_diverges_is_refused() -> None:
    broken = TaskLoss(lambda outputs, labels: np.nan * outputs)
    with pytest.raises(InputError, match="diverged"):
        BRIEF.learn(NETWORK, TrainingRequest(DATA, seeds=SEEDS, keeps=KEEPS, epochs=2, loss=broken))
