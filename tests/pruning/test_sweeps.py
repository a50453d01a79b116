"""Trained tickets: sweeps over numbers as one program, and trainings that are killed and go on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lottery_jax.pruning import retraining as dense
from lottery_jax.pruning.at_initialisation import Snip
from lottery_jax.pruning.base import PruningLearner
from lottery_jax.pruning.magnitude import IterativeMagnitude, Magnitude
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training import checkpoints
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.training.learner import Learner, TrainingRequest
from tests.pruning.test_magnitude import DATA, NETWORK

ASKED = {"seeds": (5, 6), "keeps": (0.3,), "epochs": 3}
GRID = {"learning_rate": (0.01, 0.05), "weight_decay": (0.0, 1e-2)}


def contents(tickets: list[Ticket]) -> list[bytes]:
    return [ticket.to_bytes() for ticket in tickets]


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_MAX_BYTES", 0)


@pytest.mark.parametrize("learner", [Magnitude(batch_size=8, rewind=1), Snip(batch_size=8)], ids=lambda x: x.name)
def test_a_sweep_is_its_points_one_by_one(learner: PruningLearner) -> None:
    swept = learner.sweep(NETWORK, TrainingRequest(DATA, **ASKED), GRID)
    assert contents(swept) == contents(Learner.sweep(learner, NETWORK, TrainingRequest(DATA, **ASKED), GRID))
    rates = [(ticket.header.settings["learning_rate"], ticket.seed) for ticket in swept[::2]]
    assert rates == [(rate, 5) for rate in GRID["learning_rate"] for _ in GRID["weight_decay"]]
    history = swept[0].header.settings["by_epoch"]
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("loss", "validation_loss", "validation_accuracy"), 3 - swept[0].header.settings["rewound_to"]
    )


def test_a_rate_that_diverges_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    learner = Magnitude(batch_size=8, optimizer="sgd")
    found = learner.sweep(NETWORK, TrainingRequest(DATA, **ASKED), {"learning_rate": (0.05, 1e38)})
    assert [ticket.header.settings["learning_rate"] for ticket in found] == [0.05, 0.05]
    assert caplog.messages == [
        f"magnitude, seed {seed}, keep 0.3, learning rate 1e+38 diverged: no ticket; lower the learning rate"
        for seed in (5, 6)
    ]


class KilledError(Exception):
    """As if the process had ended."""


@pytest.mark.parametrize("last", [2, 3, 6, 8])
def test_a_killed_training_goes_on_and_ends_the_same(
    last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the dense training, right after it, in the first round, and in the second."""
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    learner, seen = IterativeMagnitude(batch_size=8, rounds=2, rewind=1), []

    def until(last: int) -> Callable[[int, int], None]:
        def told(epoch: int, epochs: int) -> None:
            assert epochs == 3 + 2 + 2
            seen.append(epoch)
            if epoch >= last:
                raise KilledError

        return told

    asked = {**ASKED, "seeds": (5,)}
    whole = learner.learn(NETWORK, TrainingRequest(DATA, **asked))
    if last < 8:
        with pytest.raises(KilledError):
            learner.learn(
                NETWORK, TrainingRequest(DATA, **asked, progress=until(last), checkpoints=Checkpoints(tmp_path))
            )
        assert seen[-1] == last
    del seen[:]
    assert contents(
        learner.learn(NETWORK, TrainingRequest(DATA, **asked, progress=until(8), checkpoints=Checkpoints(tmp_path)))
    ) == contents(whole)
    assert len(list(tmp_path.iterdir())) == 3  # the dense training and two rounds
    assert seen[-1] == 7
