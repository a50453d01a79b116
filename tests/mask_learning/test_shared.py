"""Trainings of one sweep as units of work: the tickets of one process, and nothing is trained twice."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.evolution import Evolution
from lottery_jax.networks.network import Network
from lottery_jax.pruning.at_initialisation import RandomPruning
from lottery_jax.pruning.magnitude import IterativeMagnitude
from lottery_jax.training import checkpoints
from lottery_jax.training.checkpoints import Checkpoint, Checkpoints, Group, Pending, Snapshot
from lottery_jax.training.learner import Learner, TrainingRequest
from lottery_jax.workers.executors import run_units
from lottery_jax.workers.units import Share, Unit
from tests.mask_learning.sources import GADGET, PLAIN, small_data, stored
from tests.mask_learning.test_sweeps import contents

ASKED: dict[str, Any] = {"seeds": (5, 6), "keeps": (0.35, 0.7), "epochs": 3}
LEARNERS = [
    (EdgePopup(batch_size=8), GADGET, 4),
    pytest.param(IterativeMagnitude(batch_size=8, rounds=2), GADGET, 2 + 4 * 2),  # two of them dense
    pytest.param(RandomPruning(batch_size=8), GADGET, 4),
    pytest.param(Evolution(batch_size=8, population=8), PLAIN, 4, marks=pytest.mark.slow),
]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each training came to its end."""
    counts, save = Counter[str](), Checkpoint.save

    def counting(self: Checkpoint, kept: Snapshot, *, now: bool = False) -> None:
        counts[self.path.name] += now
        save(self, kept, now=now)

    monkeypatch.setattr(Checkpoint, "save", counting)
    return counts


def request(source: Network, checkpoints: Checkpoints | None = None, **more: Any) -> TrainingRequest:
    """Each time with data of its own, of which nothing is remembered."""
    return TrainingRequest(small_data(), **{**ASKED, "stored": stored(source), "checkpoints": checkpoints, **more})


def learn(learner: Learner, source: Network, folder: Path | None, **how: Any) -> list[bytes]:
    """The tickets, whose groups of runs are units; none if some are left to other shares."""
    if folder is None:
        return contents(learner.learn(source, request(source)))
    found = list[bytes]()

    def train(group: Group | None = None) -> list[Unit]:
        groups = () if group is None else (group,)
        try:
            tickets = learner.learn(source, request(source, Checkpoints(folder / "sweep", groups)))
        except Pending as pending:
            if group is not None and group.name in pending.trained:
                return []
            return [Unit(other.name, train, (other,), other.number) for other in pending.groups]
        if group is None:
            found.extend(contents(tickets))
        return []

    left = run_units([Unit("sweep", train)], **how)
    assert bool(left) == (not found)
    return found


@pytest.mark.parametrize(("learner", "source", "trainings"), LEARNERS)
def test_units_train_the_groups_of_a_sweep(
    learner: Learner, source: Network, trainings: int, tmp_path: Path, trained: Counter
) -> None:
    """Shares one after the other: what all of them need, the dense trainings, is trained by the first."""
    alone = learn(learner, source, None)
    with ThreadPoolExecutor(2) as executor:
        assert learn(learner, source, tmp_path / "workers", executor=executor) == alone
    assert len(trained) == trainings and set(trained.values()) == {1}
    trained.clear()
    for number in (2, 3):
        assert learn(learner, source, tmp_path, share=Share(number, 3)) == []
    assert learn(learner, source, tmp_path, share=Share(1, 3)) == alone
    assert len(trained) == trainings and set(trained.values()) == {1}
    assert learn(learner, source, tmp_path, share=Share(3, 3)) == learn(learner, source, tmp_path) == alone
    assert set(trained.values()) == {1}, "nothing is trained again"


def test_a_killed_training_resumes(tmp_path: Path, trained: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    learner, seen, one = EdgePopup(batch_size=8), list[int](), {"seeds": (5,), "keeps": (0.35,)}

    class KilledError(Exception):
        pass

    def killed(done: int, total: int) -> None:
        raise KilledError

    with pytest.raises(Pending) as pending:
        learner.learn(GADGET, request(GADGET, Checkpoints(tmp_path, ()), **one))
    place = Checkpoints(tmp_path, pending.value.groups)
    with pytest.raises(KilledError):
        learner.learn(GADGET, request(GADGET, place, **one, progress=killed))
    with pytest.raises(Pending) as pending:
        learner.learn(GADGET, request(GADGET, place, **one, progress=lambda done, total: seen.append(done)))
    assert pending.value.trained and not pending.value.groups
    found = learner.learn(GADGET, request(GADGET, Checkpoints(tmp_path), **one))
    assert contents(found) == contents(learner.learn(GADGET, request(GADGET, **one)))
    assert seen[:2] == [1, 2] and set(trained.values()) == {1}  # its first epoch was kept


def test_runs_that_all_diverge_are_refused(tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(2) as executor,
        pytest.raises(InputError, match=r"^training of edge-popup diverged in every run; lower the learning rate$"),
    ):
        learn(EdgePopup(batch_size=8, learning_rate=1e38), GADGET, tmp_path, executor=executor)


def test_other_devices_are_refused(tmp_path: Path) -> None:
    learner = EdgePopup(batch_size=8)
    with pytest.raises(Pending) as pending:
        learner.learn(GADGET, request(GADGET, Checkpoints(tmp_path, ())))
    group = pending.value.groups[0]._replace(devices="8 gpu H200", host="node7")
    with pytest.raises(InputError, match=r"^the devices are 1 cpu \w+ here and 8 gpu H200 on node7; give all workers"):
        learner.learn(GADGET, request(GADGET, Checkpoints(tmp_path, (group,))))
