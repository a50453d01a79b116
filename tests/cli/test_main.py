"""What all commands have in common: help, exit codes, one sentence in place of a traceback."""

import errno
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from lottery_jax.cli import progress_bars as bars_module
from lottery_jax.errors import ClusterError
from lottery_jax.io.cache import enable_compile_cache
from lottery_jax.io.locks import folder_lock, read_lock_status
from lottery_jax.progress import log
from tests.cli.calling import as_process, lottery_jax, refusal
from tests.comparison import tiny


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert lottery_jax("--help") == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("compare", "approximate", "verify", "export"))


@pytest.mark.parametrize(
    ("words", "named"),
    [("compare --seeds one", "--seeds"), ("verify", "PATH"), ("prune", "prune"), ("export t", "--out"), ("", "{")],
)
def test_what_does_not_parse_is_exit_2(words: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lottery_jax(*words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and named in captured.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--fold-layers", "--share-layers"),
        ("--edge-popup.together", "--edge-popup.runs-per-step"),
        ("--edge_popup.together", "--edge-popup.runs-per-step"),
        ("--random-at-start.scope", "--random-pruning.scope"),
        ("--random-at-start.together", "--random-pruning.runs-per-step"),
        ("--magnitude.kept-weights", "--magnitude.mask-1-action"),
    ],
)
def test_an_old_option_is_answered_with_the_new_one(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"is now {new}; use the new name" in refusal(capsys, 2, "compare", f"{old}=2")


def stopping(error: BaseException) -> Callable[..., None]:
    def stop(*_: object, **__: object) -> None:
        raise error

    return stop


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped; nothing was written yet"),
        (ClusterError("the scheduler is lost"), 3, "is lost; finished units are kept, and the same command resumes"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/records.jsonl"), 2, "runs/records.jsonl: No space"),
    ],
)
def test_a_stop_half_way_is_told_without_a_traceback(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lottery_jax.cli.verify.load_ticket", stopping(error))
    assert words in refusal(capsys, code, "verify", "t")


def test_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lottery_jax", "verify", "nowhere"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=as_process())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("lottery-jax: ") and ended.stderr.count("\n") == 1


def test_approximate_imports_no_learners_and_no_plots() -> None:
    code = "import sys; from lottery_jax.cli import options, approximate; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=as_process(), check=True)
    names = ("mask_learning", "pruning", "comparison.methods", "comparison.registry", "comparison.report")
    slow = {*(f"lottery_jax.{name}" for name in names), "matplotlib", "sklearn", "pandas"}
    assert slow & set(ended.stdout.split()) == set()


@pytest.mark.parametrize("words", ["verify t", "--help"])
def test_a_reader_that_has_seen_enough_is_no_error(words: str, tmp_path: Path) -> None:
    tiny.masked(tiny.task().target, 0.5, seed=0).save(tmp_path / "t")
    read, write = os.pipe()
    os.close(read)
    command, environment = [sys.executable, "-m", "lottery_jax", *words.split()], as_process()
    environment.pop("PYTHONUNBUFFERED", None)  # what is printed goes out at the end, as usual
    with os.fdopen(write, "w") as closed:
        ended = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_compiled_programs_are_kept_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, least = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        monkeypatch.setenv("LOTTERY_JAX_CACHE", str(tmp_path))
        jax.config.update("jax_compilation_cache_dir", None)
        enable_compile_cache()
        place = Path(jax.config.jax_compilation_cache_dir)
        assert place.parent == tmp_path / "compiled" and re.fullmatch("[0-9a-f]{12}", place.name)
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
        enable_compile_cache()
        assert jax.config.jax_compilation_cache_dir == "elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, quiet: bool = False) -> str:
    """What is shown of some work while the clock goes on by a second at each look."""
    now = itertools.count(9.0)
    monkeypatch.setattr(bars_module, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    with bars_module.progress_bars(quiet=quiet) as progress_bars:
        progress_bars.part("reading")
        progress_bars.whole(1, 4, 70.0)
        told = progress_bars.part("solving")
        told(2_000, 8_000)  # found from before: no part of the speed
        told(3_000, 8_000)
        told(2_500, 8_000)  # a bar does not go back
        assert progress_bars.line().startswith("1 of 4 done, 0:01:10 left; solving, 3,000 of 8,000, ")
        log.info("a note")
    return re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)


def test_the_bars_tell_the_speed_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    text = shown(monkeypatch, capsys)
    assert re.search(r"comparing .* 1/4 .*0:01:10 left", text)
    assert re.search(r"solving .* 3000/8000 .*\d+/s, \d:\d\d:\d\d left", text)
    assert "2500/8000" not in text and "lottery-jax: a note" in text


@pytest.mark.clock
def test_where_there_is_no_terminal_a_line_is_printed_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert shown(monkeypatch, capsys) == "lottery-jax: a note\n"
    monkeypatch.setattr(bars_module, "_INTERVAL", 0.01)
    with bars_module.progress_bars() as progress_bars:
        progress_bars.part("compiling")
        time.sleep(0.1)  # nothing is told meanwhile
    said = set(capsys.readouterr().err.splitlines())
    assert said - {"lottery-jax: starting"} == {"lottery-jax: compiling"}  # the first only where a moment was long


@pytest.mark.clock
def test_the_workers_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """On a line a minute, and in the folder more often; only while the client is open."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(bars_module, "_INTERVAL", 0.01)
    workers = ["a", "b"]
    client = SimpleNamespace(dashboard_link="http://d", scheduler_info=lambda n_workers: {"workers": workers})
    with bars_module.progress_bars() as progress_bars, folder_lock(tmp_path, "it"):
        with progress_bars.following(client):
            progress_bars.part("solving")(1, 4)
            time.sleep(0.2)
            status = read_lock_status(tmp_path)
            said = capsys.readouterr().err
            workers.pop()
            assert progress_bars.line() == "solving, 1 of 4; 1 worker"
        assert progress_bars.line() == "solving, 1 of 4"
    assert said == "lottery-jax: 2 workers; dashboard: http://d\n"
    assert status is not None and status.startswith("solving, 1 of 4; 2 workers (at ")


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert shown(monkeypatch, capsys, quiet=True) == ""


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert lottery_jax("--version") == 0
    text = capsys.readouterr().out
    assert f"jax {jax.__version__}" in text and "lottery_jax " in text and len(text.splitlines()) == 1
