"""What all commands have in common: help, exit codes, one sentence in place of a traceback."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from lottery_jax.cli import bars as bars_module
from lottery_jax.cli import compile_cache
from lottery_jax.errors import ClusterError
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


def stopping(error: BaseException) -> Callable[..., None]:
    def stop(*_: object, **__: object) -> None:
        raise error

    return stop


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "the same command goes on from there"),
        (ClusterError("process 1 died"), 3, "start every process again"),
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
        compile_cache.switch_on()
        place = Path(jax.config.jax_compilation_cache_dir)
        assert place.parent == tmp_path / "compiled" and re.fullmatch("[0-9a-f]{12}", place.name)
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
        compile_cache.switch_on()
        assert jax.config.jax_compilation_cache_dir == "elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *times: float) -> str:
    """What two bars show when the clock reads these times."""
    now = iter(times)
    monkeypatch.setattr(bars_module, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    with bars_module.bars("reading") as bars:
        bars.whole(1, 4, "pensia, seed 0")
        bars.begin("solving")
        bars.part(2_000, 8_000)  # found from before: no part of the speed
        bars.part(3_000, 8_000)
    return re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)


def test_the_bars_tell_the_speed_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    text = shown(monkeypatch, capsys, 9.0, 10.0, 10.0, 12.0)
    assert re.search(r"pensia, seed 0 .* 1/4", text)
    assert re.search(r"solving .* 3000/8000 500/s, 0:00:10 left", text)


def test_where_nobody_looks_there_are_no_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert shown(monkeypatch, capsys, 9.0, 10.0, 10.0, 12.0) == ""
