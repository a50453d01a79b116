"""Edge-popup learns from real data, keeps exact counts, and does not depend on how runs are grouped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.data import Dataset, Split, load
from lottery_jax.errors import InputError
from lottery_jax.comparison.evaluation import accuracy
from lottery_jax.learned.architectures import redundant_architecture, wide_architecture
from lottery_jax.learned.edge_popup import edge_popup, initial_scores, score_network, unit_gains, with_gains
from lottery_jax.networks.architecture import (
    Architecture,
    Gadget,
    Linear,
    Parallel,
    draw_source,
    source_tensors,
    source_weights,
)
from lottery_jax.networks.network import fixed_network
from lottery_jax.sampler import Sampler
from lottery_jax.ticket import Ticket

UNIFORM = Sampler.uniform(-1, 1)
SMALL: Architecture = (Gadget(4, 3, 5, UNIFORM, UNIFORM), Linear(5, 2, Sampler.signed_constant(0.5)))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def small() -> Dataset:
    """Forty examples of four inputs, two classes that one input tells apart."""
    images = np.random.default_rng(3).uniform(size=(40, 4)).astype(np.float32)
    split = Split(images, (images[:, 1] > 0.5).astype(np.int32))
    return Dataset("small", split, split, split, image_shape=(2, 2, 1), classes=2, nonnegative=True)


def learn(architecture: Architecture, dataset: Dataset, **changes: object) -> list[Ticket]:
    settings = {"seeds": (0,), "keeps": (0.5,), "epochs": 2, "batch_size": 8, **changes}
    return edge_popup(architecture, dataset, **settings)  # pyright: ignore


def test_learns_the_digits(digits: Dataset) -> None:
    wide = wide_architecture(redundant_architecture((64, 40, 10)))
    learned, scarce = edge_popup(wide, digits, seeds=(1,), keeps=(0.3, 0.06), epochs=12)
    random = np.random.default_rng(0)
    shuffled = {name: random.permutation(m.ravel()).reshape(m.shape) for name, m in learned.masks.items()}
    assert accuracy(learned.network(), digits.validation) > 0.9
    assert accuracy(scarce.network(), digits.validation) > 0.5
    chance = fixed_network(learned.architecture, learned.source, shuffled)
    assert accuracy(chance, digits.validation) < 0.5
    assert learned.settings["loss"] < 0.5


def test_learns_on_the_source_of_a_construction(digits: Dataset) -> None:
    source: Architecture = (Gadget(64, 42, 30, UNIFORM, UNIFORM), Gadget(30, 42, 10, UNIFORM, UNIFORM))
    (ticket,) = edge_popup(source, digits, seeds=(2,), keeps=(0.5,), epochs=15)
    assert accuracy(ticket.network(), digits.validation) > 0.9


def test_counts_are_exact_and_grouping_does_not_matter(small: Dataset) -> None:
    keeps, seeds = (0.35, 1.0), (5, 2**63)
    alone = learn(SMALL, small, seeds=seeds, keeps=keeps, together=1)
    grouped = learn(SMALL, small, seeds=seeds, keeps=keeps, together=2)
    order = [(ticket.seed, ticket.settings["keep"]) for ticket in alone]
    assert order == [(seed, keep) for seed in seeds for keep in keeps]
    for one, other in zip(alone, grouped, strict=True):
        for tensor in source_tensors(SMALL):
            mask = one.masks[tensor.name]
            assert np.count_nonzero(mask) == round(one.settings["keep"] * mask.size)
            np.testing.assert_array_equal(mask, other.masks[tensor.name])


def test_training_is_repeatable_and_a_run_does_not_depend_on_the_others(small: Dataset) -> None:
    many = learn(SMALL, small, seeds=(7, 8), keeps=(0.2, 0.6))
    again = learn(SMALL, small, seeds=(8, 7), keeps=(0.6, 0.2))
    for one, other in zip(many, reversed(again), strict=True):
        assert (one.seed, one.architecture) == (other.seed, other.architecture)
        for name, mask in one.masks.items():
            np.testing.assert_array_equal(mask, other.masks[name])
    assert any((many[0].masks[name] != many[2].masks[name]).any() for name in many[0].masks)


def test_nothing_kept_is_a_ticket_too_and_shared_copies_train(small: Dataset) -> None:
    architecture = (Parallel(4, 3, 2, UNIFORM, shared=True),)
    none, some = learn(architecture, small, keeps=(0.0, 0.5), epochs=1)
    assert (none.kept_weights, some.kept_weights) == (0, 12)
    np.testing.assert_array_equal(none.network()(jnp.asarray(small.test.images)), 0)


def test_a_ticket_survives_its_file(small: Dataset, tmp_path) -> None:
    (ticket,) = learn(SMALL, small)
    ticket.save(tmp_path / "ticket")
    again = Ticket.load(tmp_path / "ticket")
    images = jnp.asarray(small.test.images)
    np.testing.assert_array_equal(ticket.network()(images), again.network()(images))
    assert again.settings == ticket.settings


def test_progress_counts_all_epochs(small: Dataset) -> None:
    seen = []
    learn(SMALL, small, epochs=3, progress=lambda done, total, history: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_gains_make_every_layer_a_unit() -> None:
    source = {name: jnp.asarray(weight) for name, weight in draw_source(SMALL, seed=1).items()}
    scores = {name: jnp.asarray(score) for name, score in initial_scores(SMALL, 1).items()}
    counts = {name: jnp.int32(score.size * 2 // 3) for name, score in scores.items()}
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 4)), jnp.float32)
    gains = unit_gains(score_network(SMALL, source, scores, counts), images)
    network = score_network(with_gains(SMALL, gains.tolist()), source, scores, counts)
    hidden = network.layers[0](images)
    np.testing.assert_allclose(jnp.mean(hidden**2), 1, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(network(images) ** 2), 1, rtol=1e-5)
    dead = unit_gains(score_network(SMALL, source, scores, jax.tree.map(lambda c: c * 0, counts)), images)
    np.testing.assert_array_equal(dead, [1, 1])


def test_published_gains_stay_where_wanted(small: Dataset) -> None:
    (ticket,) = learn(SMALL, small, normalise=False, epochs=1)
    assert ticket.architecture == SMALL


def test_scores_are_kaiming_uniform_and_not_the_source() -> None:
    architecture: Architecture = (Linear(400, 300, UNIFORM),)
    score = initial_scores(architecture, 0)["0.kernel"]
    assert np.abs(score).max() <= 0.05
    assert abs(score.std() - 0.05 / 3**0.5) < 1e-4
    weight = draw_source(architecture, 0)["0.kernel"]
    assert abs(np.corrcoef(score.ravel(), weight.ravel())[0, 1]) < 0.02


def test_equal_parameter_networks_of_the_paper() -> None:
    redundant = redundant_architecture((784, 500, 500, 500, 10))
    assert source_weights(redundant) == 4_496_420
    assert [layer.outputs for layer in wide_architecture(redundant)] == [1314, 1314, 1314, 10]
    assert [layer.outputs for layer in wide_architecture((Linear(7, 3, UNIFORM),))] == [3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keeps": (0.5, 1.5)}, r"keep is 1.5.*\[0, 1\]"),
        ({"keeps": (float("nan"),)}, "keep is nan"),
        ({"keeps": ()}, "0 keeps"),
        ({"seeds": (-1,)}, "seed must be in"),
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": 0.0}, "learning rate is 0.0"),
        ({"batch_size": 41}, "batch size of 41"),
        ({"together": 0}, "together=0"),
    ],
)
def test_bad_input_is_refused(changes: dict, message: str, small: Dataset) -> None:
    with pytest.raises(InputError, match=message):
        learn(SMALL, small, **changes)


def test_an_architecture_of_other_sizes_is_refused(small: Dataset) -> None:
    with pytest.raises(InputError, match=r"maps 64 inputs to 10 outputs but small has 4 and 2"):
        learn(redundant_architecture((64, 5, 10)), small)
