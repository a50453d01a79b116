"""Planted tickets: as many weights as the known network, of the drawn ones, with the accuracy that is promised."""

import numpy as np
import pytest

from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.base import random_network
from lottery_jax.tickets.ticket import load_ticket
from planted.planting import plant, planting_source
from planted.tasks import PLANTED_DATA
from planted.truths import TRUTHS, circle_truth, relu_unit_truth

PROMISED = {"relu-unit": (128, 0.98), "circle": (512, 0.9), "helix": (2048, 0.9)}
"""Hidden units, and the accuracy of each of the first seeds."""


@pytest.mark.parametrize("name", TRUTHS)
def test_the_ticket_alone_solves_the_task(name: str, tmp_path) -> None:
    truth, data, (width, promised) = TRUTHS[name](), PLANTED_DATA[name](), PROMISED[name]
    majority = np.bincount(np.asarray(data.test.labels)).max() / len(data.test)
    for seed in range(3):
        planted = plant(truth, planting_source(truth, width), seed=seed)
        planted.ticket.save(tmp_path / "planted.ticket")
        correct = accuracy(load_ticket(tmp_path / "planted.ticket").forward(), data.test)
        assert correct >= promised > majority + 0.3
        # Any unit is the known one's in what it keeps, and no two share one.
        assert len(set(planted.units)) == len(planted.units)
        known = [truth.array(tensor) != 0 for tensor in truth.network.tensors]
        masks = planted.masks
        np.testing.assert_array_equal(masks["fc1.weight"][planted.units], known[0])
        np.testing.assert_array_equal(masks["fc2.weight"][:, planted.units], known[1])
        kept = planted.ticket.kept_weights
        assert kept == sum(int(mask.sum()) for mask in known) == planted.keep * planted.ticket.network.source_weights


def test_wider_is_nearer_and_refining_helps() -> None:
    truth = circle_truth()

    def errors(width: int, refine: bool) -> list[float]:
        return [plant(truth, planting_source(truth, width), seed=seed, refine=refine).error for seed in range(2)]

    narrow, wide, rough = errors(64, True), errors(1024, True), errors(1024, False)
    assert max(wide) < min(narrow) and max(wide) < min(rough)


def test_the_error_is_that_of_the_logits() -> None:
    truth = relu_unit_truth(inputs=3)
    planted = plant(truth, planting_source(truth, 32), seed=5)
    x = np.random.default_rng(8).uniform(-1, 1, (4000, 3)).astype(np.float32)
    x[:, -1] = 1
    known = np.stack([np.full(len(x), 0.2), np.maximum(x[:, 0], 0)], axis=1)
    known -= known.mean(axis=1, keepdims=True)
    logits = np.asarray(planted.ticket.forward()(x), np.float64) / planted.factor  # type: ignore[arg-type]
    logits -= logits.mean(axis=1, keepdims=True)
    found = np.sqrt(np.mean((logits - known) ** 2) / np.mean(known**2))
    assert abs(found - planted.error) < 0.15 * planted.error + 1e-3


def test_a_network_that_is_there_is_found() -> None:
    """Three units of the random network itself, scaled as a ReLU may be, are the nearest by far."""
    source = planting_source(relu_unit_truth(), 40)
    drawn = source.draw(3)
    units, scales = [31, 4, 17], np.array([2.0, 0.25, 1.0], np.float32)
    truth = mlp_target([drawn["fc1.weight"][units] * scales[:, None], drawn["fc2.weight"][:, units] / scales])
    planted = plant(truth, source, seed=3)
    assert planted.units.tolist() == units and planted.error < 1e-5


def test_magnitude_pruning_begins_with_the_same_weights() -> None:
    """So its masks may be compared with the planted ones: each layer has a scale of its own, which moves no class."""
    truth = relu_unit_truth(inputs=2)
    source = planting_source(truth, 9)
    random = random_network(source.target, trained=True)
    assert random.random_tensors.keys() == source.random_tensors.keys()
    for name, value in source.draw(6).items():
        ratio = value / random.draw(6)[name]
        np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: planting_source(circle_truth(), 17), "width must be an integer from 18 .*, got 17"),
        (lambda: plant(circle_truth(), planting_source(relu_unit_truth(), 40), seed=0), "got shapes"),
        (lambda: plant(circle_truth(), mlp((3, 40, 3), Spec((3,))), seed=0), "must be made by planting_source"),
        (
            lambda: plant(mlp_target([np.ones((2, 2))]), planting_source(circle_truth(), 40), seed=0),
            "a planted network must have one hidden layer",
        ),
        (lambda: planting_source(mlp_target([np.eye(2), np.array([[1, 0]])]), 9), "must have input and output weights"),
    ],
)
def test_refusals(refused, words: str) -> None:
    with pytest.raises(InputError, match=words):
        refused()
