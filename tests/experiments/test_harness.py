"""Rows of an experiment: kept unit after unit, put together in their order, by one process or by many."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lottery_jax.workers.workers import SERIAL, Pending, Share, Workers

from harness import Results
from lottery_jax.errors import InputError
from lottery_jax.io.locks import folder_lock
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.training.learner import TrainingRequest
from tests.cli.calling import as_process
from tests.mask_learning.sources import GADGET, small_data, stored
from tests.workers.memory import MemoryBoard, member
from tests.workers.test_cluster import address

ROOT = Path(__file__).parents[2]
TASKS = ["a", "b", "c", "d", "e"]
WHOLE = [{"kind": "letter", "name": name, "copy": copy} for name in TASKS for copy in (1, 2)]
WHOLE += [{"kind": "number", "name": 7}]


def rows_of(results: Results) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in ("device", "versions")} for row in results]


def run(results: Results, seen: list, stop: Callable[[str], bool] = lambda name: False) -> None:
    """An experiment of two kinds of tasks; the second needs the rows of the first."""

    def letter(name: str) -> None:
        seen.append(name)
        for copy in (1, 2):
            results.keep(kind="letter", name=name, copy=copy)
        if stop(name):
            raise KeyboardInterrupt

    def number(value: int) -> None:
        assert rows_of(results) == WHOLE[:-1]
        seen.append(value)
        results.keep(kind="number", name=value)

    results.each("letters", TASKS, letter)
    results.each("numbers", [7], number)


def opened(folder: Path, workers: Workers = SERIAL, **more: Any) -> Results:
    return Results(folder / "rows.jsonl", workers=workers, **more)


def written(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(row.pop("device") and row.pop("versions")["jax"] for row in rows)
    return rows


def test_a_script_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("of before\n")
    seen: list = []
    results = opened(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(results, seen, stop=lambda name: name == "c")
    results.close()
    assert results.finished() == 2 and (tmp_path / "rows.jsonl").read_text() == "of before\n"
    results = opened(tmp_path)
    run(results, seen)
    results.write()
    results.close()
    assert seen == ["a", "b", "c", "c", "d", "e", 7]  # the one that was stopped is done again
    assert written(results.path) == WHOLE and [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_processes_share_the_tasks(tmp_path: Path) -> None:
    board, seen = MemoryBoard(), list[Any]()
    crews = [member(board, process, 3) for process in range(3)]

    def work(workers: Workers) -> Results:
        with workers:
            results = opened(tmp_path, workers)
            run(results, seen)
            workers.gather("rows")
            if workers.leads:
                results.write()
            results.close()
        return results

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, crews))
    assert all(rows_of(each) == WHOLE for each in found) and sorted(map(str, seen)) == ["7", *TASKS]
    assert written(tmp_path / "rows.jsonl") == WHOLE and [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_shares_and_a_last_one_put_all_together(tmp_path: Path) -> None:
    seen: list = []
    for number, left in ((2, ("letters/0", "letters/2", "letters/4")), (1, ())):
        results = opened(tmp_path, Share(number, 2))
        if left:
            with pytest.raises(Pending) as others:
                run(results, seen)
            assert others.value.units == left
        else:
            run(results, seen)
        results.close()
    assert sorted(map(str, seen)) == ["7", *TASKS]
    results = opened(tmp_path, join_only=True)
    run(results, seen)
    results.write()
    results.close()
    assert len(seen) == 6 and written(results.path) == WHOLE


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    results = opened(tmp_path, Share(2, 2))
    with pytest.raises(Pending):
        run(results, [])
    results.close()
    results = opened(tmp_path, join_only=True)
    with pytest.raises(InputError, match=r"^3 of 5 letters are missing \(number 0, 2, 4, from 0\)\. Start"):
        run(results, [])
    results.close()


def test_a_damaged_unit_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results, seen = opened(tmp_path), list[Any]()
    run(results, [])
    results.close()
    (results.folder / "letters-0001.json").write_bytes(b'{"made_by": ')
    (results.folder / "letters-0003.json").write_bytes(b"[]")
    results = opened(tmp_path)
    run(results, seen)
    results.close()
    assert rows_of(results) == WHOLE and seen == ["b", "d"]
    assert {line.split("letters-")[1] for line in caplog.messages} == {
        f"{number}.json' is damaged and is computed again" for number in ("0001", "0003")
    }


@pytest.mark.parametrize("more", [{"facts": {"setting scale": "0.1"}}, {"facts": {"program": "another"}}])
def test_units_of_another_run_are_refused(more: dict, tmp_path: Path) -> None:
    results = opened(tmp_path)
    run(results, [])
    results.close()
    results = opened(tmp_path, **more)
    with pytest.raises(
        InputError, match=r"belongs to a run with other settings, versions or program\. Finish that run"
    ):
        run(results, [])
    results.close()


def test_a_second_run_beside_it_is_refused(tmp_path: Path) -> None:
    results = opened(tmp_path)
    results.folder.mkdir()
    with (
        folder_lock(results.folder, "it"),
        pytest.raises(InputError, match=r"folder of finished units .* is in use by"),
    ):
        run(results, [])


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_learners_of_one_task_share_their_trainings(processes: int, tmp_path: Path) -> None:
    """Two processes enter the same task."""
    board, learner = MemoryBoard(), EdgePopup(batch_size=8)
    given = {"seeds": (5, 6), "keeps": (0.5,), "epochs": 2, "stored": stored(GADGET)}

    def work(workers: Workers) -> list[dict]:
        results = opened(tmp_path, workers)

        def one(task: str) -> None:
            for ticket in learner.learn(
                GADGET, TrainingRequest(small_data(), **given, checkpoints=results.checkpoints)
            ):
                results.keep(task=task, seed=ticket.seed, kept=ticket.kept_weights)

        results.each("tasks", ["one", "two"], one, shares=True)
        results.close()
        return rows_of(results)

    crews = [member(board, process, processes) for process in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(work, crews))
    kept = found[0][0]["kept"]
    assert found == [[{"task": t, "seed": s, "kept": kept} for t in ("one", "two") for s in (5, 6)]] * processes


SCRIPT = """
import dataclasses, sys, time
from rich.console import Console
from harness import Results, Scaled, run_script

@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    '''Some tasks.'''
    slow: float = 0.0
    '''Seconds of a task.'''

def run(settings: Settings, rows: Results) -> None:
    def one(task: int) -> None:
        time.sleep(settings.slow)
        rows.keep(task=task)
    rows.each("tasks", list(range(8)), one)

def show(rows: Results, console: Console) -> None:
    print(len(rows), "rows")

if __name__ == "__main__":
    run_script(Settings, run, show)
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    environment = as_process()
    environment["PYTHONPATH"] += f"{os.pathsep}{ROOT / 'experiments'}"

    def start(*words: object) -> subprocess.Popen:
        command = [sys.executable, str(path), *map(str, words), "--out", str(tmp_path / "rows.jsonl")]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes)  # type: ignore[call-overload]

    return start


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_script_obeys_signals(number: signal.Signals, script: Callable, tmp_path: Path) -> None:
    ran = script("--slow", 0.5)
    while not list(tmp_path.glob("rows.jsonl.units/*.json")):
        assert ran.poll() is None
        time.sleep(0.01)
    start = time.monotonic()
    ran.send_signal(number)
    output, errors = ran.communicate(timeout=60)
    assert ran.returncode == 128 + number and time.monotonic() - start < 5 and output == ""
    assert "finished units are kept in" in errors.splitlines()[-1]
    output, errors = script("--slow", 0.5).communicate(timeout=60)
    assert "8 rows" in output and len(written(tmp_path / "rows.jsonl")) == 8


@pytest.mark.slow
def test_two_processes_run_a_script(script: Callable, tmp_path: Path) -> None:
    where = ("--coordinator", address(), "--processes", 2, "--slow", 0.2, "--process")
    pair = [script(*where, process) for process in (0, 1)]
    (output, errors), (nothing, silence) = (each.communicate(timeout=120) for each in pair)
    assert [each.returncode for each in pair] == [0, 0], errors + silence
    assert "8 rows" in output and (nothing, silence) == ("", "")
    assert [row["task"] for row in written(tmp_path / "rows.jsonl")] == list(range(8))
    assert {path.name for path in tmp_path.iterdir()} == {"script.py", "rows.jsonl"}
