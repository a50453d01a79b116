"""Trainings of one sweep, shared by processes: the tickets that one alone finds, and nothing is trained twice."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lottery_jax.workers.workers import Pending, Share, Workers

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.evolution import Evolution
from lottery_jax.networks.network import Network
from lottery_jax.pruning.at_initialisation import RandomPruning
from lottery_jax.pruning.magnitude import IterativeMagnitude
from lottery_jax.training import checkpoints
from lottery_jax.training.checkpoints import Checkpoint, Checkpoints, Snapshot
from lottery_jax.training.learner import Learner, TrainingRequest
from tests.mask_learning.sources import GADGET, PLAIN, small_data, stored
from tests.mask_learning.test_sweeps import contents
from tests.workers.memory import MemoryBoard, dies, member

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


def learn(learner: Learner, source: Network, place: Path | None, workers: Workers, data: Any = None) -> list[bytes]:
    """Each time with data of its own, of which nothing is remembered."""
    kept = None if place is None else Checkpoints(place / "sweep", workers)
    given = {**ASKED, "stored": stored(source), "checkpoints": kept}
    return contents(workers.finish(lambda: learner.learn(source, TrainingRequest(data or small_data(), **given))))


@pytest.mark.parametrize(("learner", "source", "trainings"), LEARNERS)
def test_processes_share_a_sweep(
    learner: Learner, source: Network, trainings: int, tmp_path: Path, trained: Counter
) -> None:
    board = MemoryBoard()
    crews, alone = [member(board, process) for process in (0, 1)], learn(learner, source, None, Workers())
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda workers: learn(learner, source, tmp_path, workers), crews))
    assert found == [alone, alone]
    assert len(trained) == trainings and set(trained.values()) == {1}


@pytest.mark.parametrize(("learner", "source", "trainings"), LEARNERS)
def test_shares_never_meet_and_a_last_process_joins_them(
    learner: Learner, source: Network, trainings: int, tmp_path: Path, trained: Counter
) -> None:
    """What all shares need, the dense trainings, each finds that one of them has made."""
    for number in (2, 3):
        with pytest.raises(Pending) as left:
            learn(learner, source, tmp_path, Share(number, 3))
        assert left.value.units
    assert learn(learner, source, tmp_path, Share(1, 3)) == learn(learner, source, None, Workers())
    assert len(trained) == trainings and set(trained.values()) == {1}
    assert learn(learner, source, tmp_path, Workers()) == learn(learner, source, tmp_path, Share(3, 3))
    assert set(trained.values()) == {1}, "nothing is trained again"


def test_a_training_of_a_dead_process_goes_on_where_it_was(
    tmp_path: Path, trained: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    board, learner, seen = MemoryBoard(), EdgePopup(batch_size=8), list[int]()
    first, other = member(board, 0, patience=0.5), member(board, 1, patience=0.5)

    class KilledError(Exception):
        pass

    def killed(done: int, total: int) -> None:
        raise KilledError

    given = {**ASKED, "stored": stored(GADGET), "seeds": (5,), "keeps": (0.35,)}
    with pytest.raises(KilledError):
        learner.learn(
            GADGET, TrainingRequest(small_data(), **given, progress=killed, checkpoints=Checkpoints(tmp_path, other))
        )
    dies(other)
    place = Checkpoints(tmp_path, first)
    told = lambda done, total: seen.append(done)  # noqa: E731
    found = first.finish(
        lambda: learner.learn(GADGET, TrainingRequest(small_data(), **given, progress=told, checkpoints=place))
    )
    assert contents(found) == contents(learner.learn(GADGET, TrainingRequest(small_data(), **given)))
    assert seen[:2] == [1, 2] and set(trained.values()) == {1}  # its first epoch was kept


def test_who_waits_is_told_for_what(tmp_path: Path) -> None:
    board, learner = MemoryBoard(), EdgePopup(batch_size=8)
    first, other = member(board, 0), member(board, 1)
    begun, over = threading.Event(), threading.Event()

    def slow(done: int, total: int) -> None:
        begun.set()
        assert over.wait(60)

    given = {**ASKED, "stored": stored(GADGET), "seeds": (5,), "keeps": (0.35,)}
    with ThreadPoolExecutor(1) as pool:
        request = TrainingRequest(small_data(), **given, progress=slow, checkpoints=Checkpoints(tmp_path, other))
        learning = pool.submit(learner.learn, GADGET, request)
        assert begun.wait(60)
        with pytest.raises(Pending) as left:
            learner.learn(GADGET, TrainingRequest(small_data(), **given, checkpoints=Checkpoints(tmp_path, first)))
        (unit,) = left.value.units
        assert not first.ready([unit])
        over.set()
        found = learning.result(60)
    assert first.ready([unit])
    again = learner.learn(GADGET, TrainingRequest(small_data(), **given, checkpoints=Checkpoints(tmp_path, first)))
    assert contents(again) == contents(found)


def test_where_all_diverge_all_processes_say_so(tmp_path: Path) -> None:
    board, learner = MemoryBoard(), EdgePopup(batch_size=8, learning_rate=1e38)
    crews = [member(board, process) for process in (0, 1)]

    def refused(workers: Workers) -> str:
        with pytest.raises(InputError) as error:
            learn(learner, GADGET, tmp_path, workers)
        return str(error.value)

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(refused, crews)) == {
            "training of edge-popup diverged in every run; lower the learning rate"
        }
