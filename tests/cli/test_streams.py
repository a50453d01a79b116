"""Closed, full and narrow outputs, and settings of JAX in the environment: never the exit code of a broken ticket."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.cli.calling import as_process, lottery_jax, matrices, refusal
from tests.comparison import tiny

NAME = "tïcket 日"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.masked(tiny.task().target, 0.5, seed=0, promise=True).save(tmp_path / NAME)
    matrices(tmp_path / "model.safetensors", **{"a.weight": (4, 4)})
    return tmp_path


def shell(folder: Path, words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command with the redirections of its words."""
    command = f'"{sys.executable}" -m lottery_jax {words}'
    environment = {**as_process(), **environment}
    environment.pop("PYTHONUNBUFFERED", None)  # output is written at the end, as usual
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
    )


def test_a_closed_stdout_is_the_null_device(folder: Path) -> None:
    expected = shell(folder, f"verify '{NAME}' >/dev/null")
    assert expected.returncode in (0, 4)
    for closed in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        ended = shell(folder, f"verify '{NAME}' {closed}")
        assert (ended.returncode, ended.stdout, ended.stderr) == (expected.returncode, "", "")
    for words in ("--help", "--version"):
        assert shell(folder, f"{words} >&-").returncode == 0


def test_text_of_closed_streams_is_not_written_into_files(folder: Path) -> None:
    """A file opened first would get the number of the closed stream."""
    closed = shell(folder, f"export '{NAME}' --out closed.safetensors <&- >&- 2>&-")
    assert closed.returncode == 0 and shell(folder, f"export '{NAME}' --out whole.safetensors").returncode == 0
    assert (folder / "closed.safetensors").read_bytes() == (folder / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("words", [f"verify '{NAME}'", "--help", "--version"])
def test_a_full_stdout_is_refused_in_a_sentence(folder: Path, words: str) -> None:
    ended = shell(folder, f"{words} >/dev/full")
    assert ended.returncode == 2 and "No space left" in ended.stderr and ended.stderr.count("\n") == 1


def test_a_full_stderr_keeps_the_exit_code(folder: Path) -> None:
    assert shell(folder, "verify nowhere 2>/dev/full").returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1:strict"])
def test_names_that_an_output_cannot_write(folder: Path, encoding: str) -> None:
    ended = shell(folder, f"verify '{NAME}'", PYTHONIOENCODING=encoding)
    assert ended.returncode in (0, 4) and "bytes, made by masked" in ended.stdout and "Traceback" not in ended.stderr


@pytest.mark.parametrize("platforms", ["cuda", "tpu", "nonsense"])
def test_a_platform_without_a_device_is_named(folder: Path, platforms: str) -> None:
    ended = shell(folder, "approximate --model model.safetensors --out t", JAX_PLATFORMS=platforms)
    assert ended.returncode == 2 and ended.stderr.count("Traceback") == 0
    assert f"JAX_PLATFORMS must name platforms with a device, got '{platforms}'. Unset it" in ended.stderr


def test_rank_promotion_is_that_of_the_command(folder: Path) -> None:
    words = "approximate --model model.safetensors --construction scalar --tolerance 0.5 --candidates 8 --quiet --out t"
    assert shell(folder, words, JAX_NUMPY_RANK_PROMOTION="raise").returncode == 0


def test_a_setting_that_stops_jax_is_an_error_of_the_program(folder: Path) -> None:
    ended = shell(folder, "approximate --model model.safetensors --out t", JAX_ENABLE_X64="perhaps")
    assert ended.returncode == 70 and "JAX_ENABLE_X64" in ended.stderr and "Traceback" not in ended.stderr


def test_export_never_replaces_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticket, model = tmp_path / "t", matrices(tmp_path / "m.safetensors", **{"fc1.weight": (3, 4), "fc2.weight": (2, 3)})
    tiny.masked(tiny.task().target, 0.5, seed=0).save(ticket)
    (tmp_path / "link").symlink_to(model)
    before = ticket.read_bytes(), model.read_bytes()
    for out, more in ((model, ("--into", model)), (tmp_path / "link", ("--into", model)), (ticket, ())):
        sentence = refusal(capsys, 2, "export", ticket, *more, "--out", out, "--force")
        assert "--out must be" in sentence or "must be a" in sentence or "link" in sentence
    assert (ticket.read_bytes(), model.read_bytes()) == before
    assert lottery_jax("export", ticket, "--into", model, "--out", tmp_path / "new.safetensors") == 0


def test_a_tensor_without_a_name_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = np.random.default_rng(0).normal(0, 0.5, (4, 4)).astype(np.float32)
    save_file({"": weights, "b.weight": weights}, tmp_path / "m.safetensors")
    options = ("--construction", "scalar", "--tolerance", 0.5, "--candidates", 8)
    assert lottery_jax("approximate", "--model", tmp_path / "m.safetensors", *options, "--out", tmp_path / "t") == 0
    assert "skipped '': its name is empty" in capsys.readouterr().out
    save_file({"": weights}, tmp_path / "m.safetensors")
    assert "its name is empty" in refusal(
        capsys, 2, "approximate", "--model", tmp_path / "m.safetensors", *options, "--out", tmp_path / "u"
    )
