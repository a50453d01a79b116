"""Units of any job: run by one process, as shares or by an executor, each after those that it needs."""

import contextlib
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.workers.executors import run_units
from lottery_jax.workers.units import Share, Unit


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lottery_jax.workers.executors.PAUSE", 0.0)


class Job:
    """Units by number, the numbers of those that each needs, and how often its finished result is not visible."""

    def __init__(self, needed: Sequence[set[int]], shared: Sequence[bool], hidden: Sequence[int]) -> None:
        self.needed, self.shared, self.hidden = needed, shared, list(hidden)
        self.finished, self.lock = list[int](), threading.Lock()

    def unit(self, number: int) -> Unit:
        return Unit(f"unit {number}", self.run, (number,), number if self.shared[number] else None)

    def units(self) -> list[Unit]:
        return [self.unit(number) for number in reversed(range(len(self.needed)))]

    def sees(self, number: int) -> bool:
        if number in self.finished:
            self.hidden[number] -= 1
        return number in self.finished and self.hidden[number] < 0

    def run(self, number: int) -> list[Unit]:
        with self.lock:
            missing = [other for other in self.needed[number] if not self.sees(other)]
            if not missing and number not in self.finished:
                self.finished.append(number)
            return [self.unit(other) for other in missing]

    def check(self) -> None:
        assert sorted(self.finished) == list(range(len(self.needed)))
        for place, number in enumerate(self.finished):
            assert self.needed[number] <= set(self.finished[:place])


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    size = draw(st.integers(1, 12))
    needed = [draw(st.sets(st.integers(0, max(number - 1, 0)), max_size=min(number, 3))) for number in range(size)]
    values = [draw(st.lists(kind, min_size=size, max_size=size)) for kind in (st.booleans(), st.integers(0, 2))]
    return Job(needed, *values)


class Twice:
    """An executor that runs each call twice, and returns results in any order."""

    def __init__(self, seed: int) -> None:
        self.random, self.waiting = random.Random(seed), list[tuple[Future, Any]]()

    def submit(self, function: Any, *arguments: Any) -> Future:
        future = Future[Any]()
        function(*arguments)
        self.waiting.append((future, function(*arguments)))
        threading.Timer(0.0, self.end).start()
        return future

    def end(self) -> None:
        future, result = self.waiting.pop(self.random.randrange(len(self.waiting)))
        future.set_result(result)


@contextlib.contextmanager
def executors(kind: int | None) -> Iterator[Any]:
    if kind is None:
        yield None
    elif kind < 3:
        with ThreadPoolExecutor(kind) as executor:
            yield executor
    else:
        yield Twice(kind)


@settings(deadline=None, max_examples=60)
@given(job=jobs(), kind=st.sampled_from([None, 1, 2, 3, 4]), some=st.integers(0, 11))
def test_needed_units_run_first(job: Job, kind: int | None, some: int) -> None:
    """Also if only some units of the job are known at first."""
    seen = list[tuple[int, int]]()
    with executors(kind) as executor:
        for units in (job.units()[some:], job.units()):
            assert run_units(units, executor=executor, progress=lambda *done: seen.append(done)) == []
    job.check()
    assert seen[-1] == (len(job.needed), len(job.needed)) and all(done <= total for done, total in seen)


@settings(deadline=None, max_examples=60)
@given(job=jobs(), order=st.permutations([1, 2, 3]))
def test_shares_leave_the_units_of_other_shares(job: Job, order: list[int]) -> None:
    job.hidden = [0] * len(job.hidden)
    for number in order:
        before, share = set(job.finished), Share(number, 3)
        left = run_units(job.units(), share=share)
        assert {unit.name for unit in left} >= {f"unit {n}" for n in range(len(job.needed)) if n not in job.finished}
        for unit in left:
            assert not share.has(unit) or job.run(*unit.arguments)
        if all(job.shared):
            assert all(new % 3 == number - 1 for new in set(job.finished) - before)
    run_units(job.units())
    job.check()


@pytest.mark.parametrize("kind", [None, 2, 3])
def test_results_that_stay_invisible_are_refused(kind: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lottery_jax.workers.executors.VISIBILITY_TIMEOUT", 0.01)
    job = Job([set(), {0}], [True, True], [10**9, 0])
    with executors(kind) as executor, pytest.raises(InputError, match="unit 1 does not see the results of other units"):
        run_units(job.units(), executor=executor)
