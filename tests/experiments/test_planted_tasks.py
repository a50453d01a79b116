"""The planted tasks' data are the same for a seed, hold all classes, and are solved by the hand-built networks."""

import numpy as np
import pytest

from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.networks.forward import forward
from lottery_jax.networks.target import Target
from planted.tasks import PLANTED_DATA, circle, helix, relu_unit
from planted.truths import TRUTHS, circle_truth, helix_truth, relu_unit_truth

SOLVED = {"relu-unit": 1.0, "circle": 0.94, "helix": 1.0}
WEIGHTS = {"relu-unit": 4, "circle": 44, "helix": 44}


def correct(truth: Target, dataset: Dataset) -> float:
    return accuracy(forward(truth.network, {name: truth.array(name) for name in truth.network.tensors}), dataset.test)


@pytest.mark.parametrize("name", PLANTED_DATA)
def test_data_are_those_of_the_seed_and_hold_all_classes(name: str) -> None:
    small = (60, 40, 50)
    data, again, other = (PLANTED_DATA[name](seed=seed, examples=small) for seed in (1, 1, 2))
    assert data.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(data.test.images, again.test.images)
    more = PLANTED_DATA[name](seed=1, examples=(90, 40, 50))
    np.testing.assert_array_equal(data.test.images, more.test.images)
    parts = (data.train, data.validation, data.test)
    assert tuple(map(len, parts)) == small
    for part in parts:
        images, labels = np.asarray(part.images), np.asarray(part.labels)
        assert (images.dtype, labels.dtype) == (np.float32, np.int32)
        assert (images[:, -1] == 1).all() and np.abs(images).max() <= 1 and images.min() < 0
        assert set(labels) == set(range(data.classes))


@pytest.mark.parametrize("name", PLANTED_DATA)
def test_noise_is_in_the_labels_that_are_trained_on_alone(name: str) -> None:
    clean, noisy = (PLANTED_DATA[name](noise=noise) for noise in (0.0, 0.5))
    np.testing.assert_array_equal(clean.train.images, noisy.train.images)
    np.testing.assert_array_equal(clean.test.labels, noisy.test.labels)
    changed = np.mean(np.asarray(clean.train.labels) != np.asarray(noisy.train.labels))
    assert abs(changed - 0.5 * (1 - 1 / clean.classes)) < 0.06


def test_labels_are_what_the_docstrings_say() -> None:
    data = relu_unit(distractors=2)
    assert data.shape == (4,)
    for images, labels in ((part.images, part.labels) for part in (data.train, data.test)):
        np.testing.assert_array_equal(labels, images[:, 0] > 0.2)
    x, rings = circle().test.images, circle().test.labels
    radii = np.sqrt((np.asarray(x)[:, :2] ** 2).sum(axis=1))
    assert [np.count_nonzero(radii < radius) for radius in ((4 / 3 / np.pi) ** 0.5, (8 / 3 / np.pi) ** 0.5)] == [
        np.count_nonzero(np.asarray(rings) <= ring) for ring in (0, 1)
    ]
    angle = 1.5 * np.pi * np.asarray(helix().test.images)[:, 0].astype(np.float64)
    waves = np.stack([np.cos(angle), np.sin(angle), -np.cos(angle), -np.sin(angle)], axis=1)
    np.testing.assert_array_equal(helix().test.labels, waves.argmax(axis=1))


@pytest.mark.parametrize("name", TRUTHS)
def test_the_hand_built_network_solves_its_task(name: str) -> None:
    truth, data = TRUTHS[name](), PLANTED_DATA[name]()
    assert correct(truth, data) >= SOLVED[name]
    assert sum(np.count_nonzero(truth.array(tensor)) for tensor in truth.network.tensors) == WEIGHTS[name]
    # Every unit feeds one class.
    assert (np.count_nonzero(truth.array("fc2.weight"), axis=0) == 1).all()


def test_options_of_the_hand_built_networks() -> None:
    assert correct(relu_unit_truth(inputs=3), relu_unit(distractors=1)) == 1
    assert correct(circle_truth(directions=4), circle()) < correct(circle_truth(directions=16), circle()) > 0.98
    assert helix_truth().network.tensors == {"fc1.weight": (18, 2), "fc2.weight": (4, 18)}


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: relu_unit(seed=-1), r"seed must be .*, got -1"),
        (lambda: helix(examples=(1, 0, 1)), r"three positive integers .*, got \(1, 0, 1\)"),
        (lambda: circle(noise=1.5), "noise must be .*, got 1.5"),
        (lambda: circle(noise=float("nan")), "noise must be .*, got nan"),
        (lambda: relu_unit(distractors=-1), "distractors must be .*, got -1"),
        (lambda: relu_unit_truth(inputs=1), "inputs must be .*, got 1"),
        (lambda: circle_truth(directions=6), "positive multiple of 4, got 6"),
    ],
)
def test_refusals(refused, words: str) -> None:
    with pytest.raises(InputError, match=words):
        refused()
