"""Who does which unit: alone, shares, and processes that meet; whoever dies, comes late or comes again."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lottery_jax.errors import ClusterError, InputError
from lottery_jax.workers.cluster import Cluster
from lottery_jax.workers.workers import FOUND, SERIAL, Pending, Share, Workers, unit_of
from tests.workers.memory import MemoryBoard, dies, member


@pytest.fixture
def board() -> MemoryBoard:
    return MemoryBoard()


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No thread outlives its test."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if isinstance(owner := getattr(thread, "_target", None), object) and hasattr(owner, "__self__"):
            owner.__self__.stop()


def done_by(workers: Workers, count: int, seconds: float = 0.0) -> list[int]:
    """What a process does of a list, each unit taking so long."""
    found = []
    for number in workers.units("list", count):
        if number is not None:
            time.sleep(seconds)
            found.append(number)
            workers.done(unit_of("list", number))
    return found


def side_by_side(*crews: Workers, count: int, seconds: tuple[float, ...] = ()) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in crews]

    def work(place: int) -> None:
        found[place] = done_by(crews[place], count, seconds[place] if seconds else 0.0)

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(crews))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return found


def test_alone_everything_is_its_own(tmp_path: Path) -> None:
    assert done_by(SERIAL, 3) == [0, 1, 2] and list(SERIAL.own(3)) == [0, 1, 2]
    assert SERIAL.begin({"target": "a"}, tmp_path, "so") == "so" and not list(tmp_path.iterdir())
    assert SERIAL.note("list/0") is None and SERIAL.standing() is None


@given(st.integers(1, 9), st.integers(0, 30))
def test_shares_are_the_whole(of: int, count: int) -> None:
    shares = [Share(number, of) for number in range(1, of + 1)]
    assert sorted(number for share in shares for number in done_by(share, count)) == list(range(count))
    assert all(done_by(share, count) == list(share.own(count)) and share.take("needed by all") for share in shares)


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 500])
def test_each_unit_is_done_once(processes: int, count: int, board: MemoryBoard) -> None:
    crews = [member(board, process, processes) for process in range(processes)]
    found = side_by_side(*crews, count=count)
    assert sorted(number for own in found for number in own) == list(range(count))
    assert sorted(crews[0].notes("list")) == list(range(count)) and crews[0].note("list/nowhere") is None


@pytest.mark.clock
def test_a_slow_process_holds_nobody_up(board: MemoryBoard) -> None:
    """What it was handed in one go, and has not begun, is done by the other."""
    crews = member(board, 0), member(board, 1)
    fast, slow = side_by_side(*crews, count=200, seconds=(0.0, 0.1))
    assert len(fast) > 190 and len(slow) < 10 and sorted(fast + slow) == list(range(200))


@pytest.mark.clock
def test_what_a_dead_process_had_begun_is_done_by_the_others(board: MemoryBoard) -> None:
    first, other = member(board, 0, patience=0.3), member(board, 1, patience=0.3)
    begun = other.units("list", 5)
    taken = next(begun)
    dies(other)
    assert sorted(done_by(first, 5)) == list(range(5))
    assert first.take(unit_of("list", taken or 0)) is False, "it is done"


def test_a_process_that_says_so_is_not_waited_for(board: MemoryBoard) -> None:
    first, other = member(board, 0), member(board, 1)
    assert other.take("it") and not first.take("it")
    other.abandon()
    first._heartbeats.look()
    first.wait(["it"])
    assert first.take("it")


def test_a_process_that_ends_at_once_does_not_wait_for_who_is_gone(board: MemoryBoard) -> None:
    workers, over = member(board, 1), threading.Event()
    board.put = lambda key, value: over.wait(60)  # type: ignore[method-assign]
    start = time.monotonic()
    workers.abandon()
    assert time.monotonic() - start < 1
    over.set()


@pytest.mark.clock
def test_a_process_that_was_only_held_up_is_no_longer_lost(board: MemoryBoard) -> None:
    first, other = member(board, 0, patience=0.3), member(board, 1, patience=0.3)
    dies(other)
    end = time.monotonic() + 10
    while "1.1" not in first._heartbeats.lost:
        assert time.monotonic() < end
        time.sleep(0.01)
    while "1.1" in first._heartbeats.lost:
        assert time.monotonic() < end
        other._heartbeats.beat()
        time.sleep(0.01)


def test_a_process_that_comes_again_finds_what_it_had_begun_free(board: MemoryBoard) -> None:
    first, before = member(board, 0), member(board, 1)
    assert before.take("it")
    dies(before)
    again = member(board, 1)
    assert again.take("it") and not again.take("it")
    first._heartbeats.look()
    assert first._heartbeats.alive() == {"0.1", "1.2"}


def test_what_is_given_back_is_free(board: MemoryBoard) -> None:
    first, other = member(board, 0), member(board, 1)
    assert first.take("it") and not other.take("it")
    first.release("it")
    assert other.take("it") and not first.take("it")


def test_waiting_ends_when_something_is_done(board: MemoryBoard) -> None:
    first, other = member(board, 0), member(board, 1)
    assert other.take("a") and other.take("b")
    threading.Timer(0.2, lambda: other.done("b", "so it is")).start()
    first.wait(["a", "b"])
    assert (first.note("a"), first.note("b"), first.hear("b")) == (None, "so it is", "so it is")
    first.wait([])


def test_the_same_job_in_the_same_folder(board: MemoryBoard, tmp_path: Path) -> None:
    first, other = member(board, 0), member(board, 1)
    facts = {"version": "1", "target": "a"}
    assert first.begin(facts, tmp_path, "hello") == other.begin(facts, tmp_path) == "hello"
    assert first.begin(facts, tmp_path / "none") == other.begin(facts, tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"version": "2", "target": "b"}, "another version than process 0 on h0: 2, not 1"),
        ({"version": "1", "target": "b"}, "another target than process 0 on h0: b, not a"),
        ({"version": "1"}, "another target than process 0 on h0: none, not a"),
    ],
)
def test_another_job_is_refused_by_all(
    facts: dict, said: str, board: MemoryBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crews = []
    for process in (0, 1):
        monkeypatch.setenv("SLURMD_NODENAME", f"h{process}")
        crews.append(member(board, process))
    first, other = crews
    first.begin({"version": "1", "target": "a"}, tmp_path)
    with pytest.raises(InputError, match=f"^process 1 on h1 has {said}; give every process the same$"), other:
        other.begin(facts, tmp_path)
    first._heartbeats.look()
    with pytest.raises(InputError, match=f"^process 1 on h1 has {said}"):
        done_by(first, 1)


def test_a_folder_that_is_not_seen_is_refused(
    board: MemoryBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lottery_jax.workers.cluster.VISIBILITY_TIMEOUT", 0.0)
    first, other = member(board, 0), member(board, 1)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    first.begin({}, tmp_path / "here")
    with pytest.raises(InputError, match=r"process 1 on .* does not see what process 0 on .* name a folder that all"):
        other.begin({}, tmp_path / "there")


def test_a_refusal_ends_all(board: MemoryBoard) -> None:
    """The first one is said by everybody."""
    first, other = member(board, 0), member(board, 1)
    with pytest.raises(InputError, match=r"^the disk is full$"), other:
        raise InputError("the disk is full")
    first._heartbeats.look()
    with pytest.raises(InputError, match=r"^process 1 on .*: the disk is full$"), first:
        first.take("it")
    with pytest.raises(InputError, match="the disk is full"):
        member(board, 1).take("it")


def test_the_loss_of_process_0_is_no_refusal(board: MemoryBoard) -> None:
    workers = member(board, 1)
    with pytest.raises(ClusterError), workers:
        raise ClusterError("process 0 is gone")
    assert board.get("state/failed") is None


@pytest.mark.clock
def test_process_0_leaves_last(board: MemoryBoard) -> None:
    left = list[int]()
    crews = [
        Cluster(board, process, 3, patience=60, close=lambda process=process: left.append(process))
        for process in range(3)
    ]
    threads = [threading.Thread(target=workers.leave, daemon=True) for workers in (crews[2], crews[0], crews[1])]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(20)
    assert left[-1] == 0 and sorted(left) == [0, 1, 2]
    crews[0].leave()
    assert len(left) == 3


def test_how_far_all_are(board: MemoryBoard) -> None:
    first, other = member(board, 0), member(board, 1)
    first.expect("list", 40)
    for number in range(4):
        assert first.take(unit_of("list", number))
    first.done("list/0", FOUND)
    first.done("list/1")
    assert other.take("something else")
    other.done("something else")
    standing = first.standing()
    assert (standing.total, standing.done, standing.found, standing.running) == (40, 2, 1, 2)
    assert standing.hosts == (first.host, other.host)
    assert "38 left, 0:00:38 left; 2 processes on" in standing.words(1.0)
    assert "left;" in dataclasses.replace(standing, found=2).words(1.0), "nothing was done yet, and no time is known"
    dies(other)
    board.put("state/lost/1.1", "no heartbeat")
    first._heartbeats.look()
    assert first.standing().hosts == (first.host,)


def test_what_is_elsewhere_is_named() -> None:
    assert Pending(["a", "b"]).units == ("a", "b") and str(Pending(["a"])) == "a"


def test_few_words_are_asked_for(board: MemoryBoard) -> None:
    """Of the service, which answers some thousands in a second."""
    workers = member(board, 0, 1)
    before = board.asked
    done_by(workers, 1000)
    assert board.asked - before < 2.2 * 1000
