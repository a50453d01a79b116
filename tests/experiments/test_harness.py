"""Rows of an experiment: kept unit after unit, put together in their order, by one process, shares or workers."""

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

from harness import Results
from harness.results import UnitsLeft
from lottery_jax.errors import InputError
from lottery_jax.io.locks import folder_lock
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.training.learner import TrainingRequest
from lottery_jax.workers.units import Share
from tests.cli.calling import as_process
from tests.mask_learning.sources import GADGET, small_data, stored

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


def opened(folder: Path, **more: Any) -> Results:
    return Results(folder / "rows.jsonl", **more)


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


def test_shares_and_a_last_one_put_all_together(tmp_path: Path) -> None:
    seen: list = []
    for number, left in ((2, ["letters 0", "letters 2", "letters 4"]), (1, [])):
        results = opened(tmp_path, share=Share(number, 2))
        if left:
            with pytest.raises(UnitsLeft) as others:
                run(results, seen)
            assert [unit.name for unit in others.value.units] == left
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
    results = opened(tmp_path, share=Share(2, 2))
    with pytest.raises(UnitsLeft):
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


def test_workers_share_the_trainings_of_a_task(tmp_path: Path) -> None:
    learner, found = EdgePopup(batch_size=8), list[list[dict]]()
    given = {"seeds": (5, 6), "keeps": (0.5,), "epochs": 2, "stored": stored(GADGET)}
    with ThreadPoolExecutor(2) as executor:
        for name, place in (("alone", None), ("shared", executor)):
            results = Results(tmp_path / name, executor=place)

            def one(task: str, results: Results = results) -> None:
                request = TrainingRequest(small_data(), **given, checkpoints=results.checkpoints)
                for ticket in learner.learn(GADGET, request):
                    results.keep(task=task, seed=ticket.seed, kept=ticket.kept_weights)

            results.each("tasks", ["one", "two"], one, splits=True)
            results.write()
            results.close()
            found.append(rows_of(results))
    assert found[0] == found[1] and len(found[0]) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "shared"]


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
def test_workers_run_a_script(script: Callable, tmp_path: Path) -> None:
    """The rows of its own module's tasks, in their order."""
    ran = script("--workers", 2, "--slow", 0.2)
    output, errors = ran.communicate(timeout=120)
    assert ran.returncode == 0 and "8 rows" in output and "Traceback" not in errors, errors
    assert [row["task"] for row in written(tmp_path / "rows.jsonl")] == list(range(8))
    assert {path.name for path in tmp_path.iterdir()} == {"script.py", "rows.jsonl"}
