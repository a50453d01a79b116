"""The evolution strategy learns from real data, the same again, and says what it needs."""

import sys

import numpy as np
import pytest

from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import load
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.evolution import Evolution
from lottery_jax.mask_learning.learner_sources import plain_source
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.learner import TrainingRequest
from tests.mask_learning import sources

DATA, PLAIN = sources.small_data(), sources.PLAIN
LEARNER = Evolution(batch_size=20, population=8, learning_rate=1.0)  # as in `test_learners`


def learn(learner: Evolution = LEARNER, **changes: object) -> list[Ticket]:
    given = {"seeds": (5,), "keeps": (0.35,), "epochs": 2, "stored": sources.stored(PLAIN), **changes}
    return learner.learn(PLAIN, TrainingRequest(DATA, **given))  # type: ignore[arg-type]


@pytest.mark.slow
def test_learns_the_digits() -> None:
    digits = load("digits")
    plain = plain_source(architecture("mlp-30", Spec(digits.shape, nonnegative=True), 10))
    (ticket,) = Evolution().learn(plain, TrainingRequest(digits, seeds=(1,), keeps=(0.5,), epochs=10))
    assert accuracy(ticket.forward(), digits.validation) > 0.6


@pytest.mark.slow
def test_progress_and_other_runs_change_nothing() -> None:
    seen: list[tuple[int, int]] = []
    (alone,) = learn()
    found = learn(seeds=(8, 5), keeps=(0.0, 0.35), progress=lambda done, total: seen.append((done, total)))
    assert found[3].to_bytes() == alone.to_bytes() and found[0].kept_weights == found[2].kept_weights == 0
    assert seen == [(1, 2), (2, 2)]
    assert alone.header.settings["loss"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"population": 7}, "`population` must be an even number from 2 up, got 7"),
        ({"population": 0}, "got 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive and finite, got 0.0"),
        ({"learning_rate": float("nan")}, "got nan"),
    ],
)
def test_bad_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Evolution(**options)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "evosax"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "evosax", None)
    with pytest.raises(InputError, match=r"needs evosax. Run pip install 'lottery_jax\[evolution\]'"):
        learn()


@pytest.mark.slow
def test_losses_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="training of evolution diverged in every run"):
        learn(stored={name: np.full(shape, np.nan, np.float32) for name, shape in PLAIN.tensors.items()})
