"""What a client makes of an executor that loses calls or ends, and of the words of its workers."""

import concurrent.futures
import logging
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from lottery_jax import environment
from lottery_jax.errors import ClusterError, InputError
from lottery_jax.progress import log
from lottery_jax.workers import executors
from lottery_jax.workers.executors import run_group, run_units
from lottery_jax.workers.units import Unit

KilledWorker = type("KilledWorker", (Exception,), {})
LOST = "the scheduler or its workers are lost"


def nothing() -> None:
    """A unit without work."""


def units(count: int) -> list[Unit]:
    return [Unit(f"unit {number}", nothing) for number in range(count)]


class Fake:
    """An executor whose calls after the first end with an error, or never."""

    def __init__(self, error: BaseException | None = None, *, at_submit: bool = False) -> None:
        self.error, self.at_submit, self.calls = error, at_submit, list[Future]()

    def submit(self, function: Any, *arguments: Any) -> Future:
        future = Future[Any]()
        if self.error is None or not self.calls:
            future.set_result(function(*arguments))
        elif self.at_submit:
            raise self.error
        elif len(self.calls) == 1:
            future.set_exception(self.error)
        self.calls.append(future)
        return future


@pytest.mark.parametrize("at_submit", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (CancelledError(), ClusterError, f"^{LOST}; finished units are kept"),
        (BrokenProcessPool("a process ended"), ClusterError, rf"^{LOST} \(a process ended\); finished"),
        (ConnectionError("in <TCP>"), ClusterError, f"^{LOST}; finished units are kept"),
        (TimeoutError("30 s"), ClusterError, f"^{LOST}; finished units are kept"),
        (KilledWorker("it"), ClusterError, "each worker that ran 'unit 1' was killed, which usually means too little"),
        (ModuleNotFoundError("no", name="my_method"), InputError, "cannot import my_method; install the same packages"),
        (InputError("refused"), InputError, "^refused$"),
        (ZeroDivisionError("a fault of the program"), ZeroDivisionError, "a fault"),
    ],
)
def test_a_lost_call_ends_the_job(error: BaseException, kind: type, words: str, *, at_submit: bool) -> None:
    """In one sentence; the calls that have not begun are cancelled."""
    executor = Fake(error, at_submit=at_submit)
    with pytest.raises(kind, match=words):
        run_units(units(9), executor=executor)
    assert all(call.done() for call in executor.calls)


def test_many_units_are_few_calls() -> None:
    executor, seen = Fake(), list[tuple[int, int]]()
    run_units(units(10_000), executor=executor, progress=lambda *done: seen.append(done))
    assert len(executor.calls) <= 1_120 and seen[0] == (0, 10_000) and seen[-1] == (10_000, 10_000)


@pytest.fixture
def worker() -> Iterator[None]:
    """This process is a worker of another one, whose messages are sent; afterwards it is none."""
    before = log.level, log.propagate
    yield
    log.removeHandler(executors._MESSAGES)
    log.level, log.propagate = before


@pytest.mark.usefixtures("worker")
def test_messages_of_a_worker_are_sent_once() -> None:
    unit = Unit("it", lambda: log.warning("one of %d", 2))
    for _ in range(2):
        assert run_group([unit, unit], "another process") == ([(), ()], [(logging.WARNING, "one of 2")] * 2)
    assert run_group([unit], executors._PROCESS) == ([()], [])


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("error", [InputError("no"), OSError("no")])
def test_a_refusal_names_the_host(error: Exception) -> None:
    def refuse() -> None:
        raise error

    with pytest.raises(InputError, match=f"^worker on {environment.host()}: no$"):
        run_group([Unit("it", refuse)], "another process")


def test_the_error_of_a_unit_is_not_that_of_its_executor() -> None:
    """A full disk in a thread of this process."""

    def full() -> None:
        raise OSError(28, "No space left on device")

    with concurrent.futures.ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match="No space left"):
        run_units([Unit("it", full)], executor=executor)


def test_a_unit_whose_results_were_invisible_is_submitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next call takes longer than the pause; meanwhile it is not submitted again."""
    monkeypatch.setattr(executors, "PAUSE", 0.02)
    calls, need = list[str](), Unit("need", lambda: None)

    def work() -> list[Unit]:
        calls.append("work")
        if len(calls) < 3:  # the second time, the need is finished and not visible
            return [need]
        time.sleep(0.3)
        return []

    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        run_units([Unit("work", work)], executor=executor)
    assert calls == ["work"] * 3
