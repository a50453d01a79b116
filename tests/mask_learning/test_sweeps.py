"""Sweeps over options as one program; runs that are killed and go on; many devices."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup, IteRand
from lottery_jax.mask_learning.evolution import Evolution
from lottery_jax.networks.network import Network
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training import checkpoints
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.training.learner import Learner, TrainingRequest
from tests.mask_learning.sources import GADGET, PLAIN, small_data, stored

DATA = small_data()
RATES, DECAYS = (0.5, 2.0), (0.0, 0.1)
ASKED = {"seeds": (5, 6), "keeps": (0.35,), "epochs": 3}


def contents(tickets: list[Ticket]) -> list[bytes]:
    return [ticket.to_bytes() for ticket in tickets]


def test_a_sweep_is_its_points_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    learner, seen = EdgePopup(batch_size=8, weight_decay=0.0), []
    grid = {"learning_rate": RATES, "weight_decay": DECAYS}
    swept = learner.sweep(GADGET, TrainingRequest(DATA, **ASKED, progress=lambda *at: seen.append(at)), grid)
    alone = [ticket for point in learner.points(grid) for ticket in point.learn(GADGET, TrainingRequest(DATA, **ASKED))]
    assert contents(swept) == contents(alone)
    assert contents(Learner.sweep(learner, GADGET, TrainingRequest(DATA, **ASKED), grid)) == contents(swept)
    made = [ticket.header.settings for ticket in swept]
    assert [(own["learning_rate"], own["weight_decay"]) for own in made[::2]] == [(r, d) for r in RATES for d in DECAYS]
    assert (made[0]["by_epoch"]["loss"] != made[2]["by_epoch"]["loss"]) and len(made[0]["by_epoch"]["loss"]) == 3
    assert seen == sorted(seen) and seen[-1] == (12, 12)
    (one,) = learner.sweep(GADGET, TrainingRequest(DATA, **{**ASKED, "seeds": (5,)}), {"learning_rate": (2.0, 1e38)})
    assert one.to_bytes() == swept[4].to_bytes()
    assert caplog.messages == [
        "edge-popup, seed 5, keep 0.35, learning rate 1e+38 diverged: no ticket; lower the learning rate"
    ]


@pytest.mark.slow
def test_a_sweep_may_change_programs() -> None:
    learner = EdgePopup(batch_size=8, learning_rate=2.0)
    layer, everywhere = learner.sweep(
        GADGET, TrainingRequest(DATA, **{**ASKED, "seeds": (5,)}), {"scope": ("layer", "global")}
    )
    assert (layer.header.settings["scope"], everywhere.header.settings["scope"]) == ("layer", "global")
    assert contents(
        EdgePopup(batch_size=8, learning_rate=2.0, scope="global").learn(GADGET, TrainingRequest(DATA, **ASKED))
    )[0] == (everywhere.to_bytes())


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"learning_rte": (1.0,)}, "edge-popup has no option 'learning_rte'; did you mean 'learning_rate'"),
        ({"learning_rate": ()}, r"values of learning_rate must be different, at least one, got \(\)"),
        ({"learning_rate": (1.0, 1.0)}, r"got \(1.0, 1.0\)"),
        ({"learning_rate": (1.0, -1.0)}, "`learning_rate` must be positive and finite, got -1.0"),
    ],
)
def test_bad_grids_are_refused(grid: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EdgePopup(batch_size=8).sweep(GADGET, TrainingRequest(DATA, **ASKED), grid)


class KilledError(Exception):
    """As if the process had ended."""


@pytest.mark.parametrize(
    ("learner", "source"),
    [
        (EdgePopup(batch_size=8), GADGET),
        pytest.param(IteRand(batch_size=8, renewal=0.5), GADGET, marks=pytest.mark.slow),
        pytest.param(Evolution(batch_size=8, population=8), PLAIN, marks=pytest.mark.slow),
    ],
    ids=["edge-popup", "iterand", "evolution"],
)
def test_a_killed_training_goes_on_and_ends_the_same(
    learner: Learner, source: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    asked = {**ASKED, "stored": stored(source)}
    whole = learner.learn(source, TrainingRequest(DATA, **asked))

    def until(last: int, seen: list[int]) -> Callable[[int, int], None]:
        def told(epoch: int, epochs: int) -> None:
            seen.append(epoch)
            if epoch == last:
                raise KilledError

        return told

    with pytest.raises(KilledError):
        learner.learn(source, TrainingRequest(DATA, **asked, progress=until(1, []), checkpoints=Checkpoints(tmp_path)))
    assert len(list(tmp_path.iterdir())) >= 1
    assert contents(
        learner.learn(source, TrainingRequest(DATA, **asked, checkpoints=Checkpoints(tmp_path)))
    ) == contents(whole)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2  # one for each group of runs
    # Everything is done: nothing is trained again. Other settings have other files; a damaged one counts as none.
    seen: list[int] = []
    learner.learn(source, TrainingRequest(DATA, **asked, progress=until(9, seen), checkpoints=Checkpoints(tmp_path)))
    assert seen == [1, 3]  # the mean of both runs
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert contents(
        learner.learn(source, TrainingRequest(DATA, **asked, checkpoints=Checkpoints(tmp_path)))
    ) == contents(whole)
    assert "damaged and will be rebuilt" in caplog.text
    learner.learn(source, TrainingRequest(DATA, **{**asked, "epochs": 2}, checkpoints=Checkpoints(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 4


_OF_ALL = """
from tests.mask_learning.test_sweeps import digest_of_a_sweep
print(digest_of_a_sweep())
"""


def digest_of_a_sweep() -> str:
    found = EdgePopup(batch_size=8).sweep(
        GADGET, TrainingRequest(DATA, **{**ASKED, "seeds": (5, 6, 7)}), {"learning_rate": (0.5, 1.0, 2.0)}
    )
    return hashlib.sha256(b"".join(contents(found))).hexdigest()


@pytest.mark.slow
def test_eight_devices_find_what_one_finds() -> None:
    """Nine runs: eight and one of them."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    found = subprocess.run([sys.executable, "-c", _OF_ALL], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == digest_of_a_sweep()


def test_histories_are_of_the_ticket() -> None:
    """What is recorded of the last epoch is what the ticket does on the validation split."""
    for ticket in EdgePopup(batch_size=8).learn(GADGET, TrainingRequest(DATA, **ASKED)):
        logits = np.asarray(ticket.forward()(DATA.validation.images))
        last = ticket.header.settings["by_epoch"]["validation_accuracy"][-1]
        assert last == pytest.approx(np.mean(logits.argmax(1) == DATA.validation.labels), abs=1e-6)
