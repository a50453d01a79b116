"""The command line as a user and a script see it: output, exit codes, one sentence where it refuses."""

import dataclasses
import errno
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax import cli, model_command
from lottery_jax.constructions.model import chunks
from lottery_jax.comparison.methods import METHODS
from lottery_jax.networks.architecture import Linear
from lottery_jax.sampler import Sampler
from lottery_jax.cli.settings import Compare
from lottery_jax.ticket import Ticket

RECORD_FIELDS = {
    "method",
    "task",
    "seed",
    "accuracy",
    "target_accuracy",
    "agreement",
    "max_deviation",
    "source_weights",
    "kept_weights",
    "target_weights",
    "kept_per_target_weight",
    "within_tolerance",
    "worst_residual",
    "ticket_bytes",
    "seconds",
}


def lottery_jax(*arguments: str | Path) -> int:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def ticket(target: Path) -> Path:
    path = target.with_name("ticket.safetensors")
    code = lottery_jax("approximate", "--target", target, "--candidates", 8, "--tolerance", 0.2, "--out", path)
    assert code == 0
    return path


def test_help_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert lottery_jax("compare", "--help") == 0
    text = capsys.readouterr().out
    assert all(method in text for method in METHODS)


def test_approximate_prints_what_the_verifier_finds(
    ticket: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "ticket.safetensors"
    arguments = ("--target", target, "--candidates", 8, "--tolerance", 0.2, "--out", out, "--json")
    assert lottery_jax("approximate", *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert out.read_bytes() == ticket.read_bytes()  # the same seed gives the same file
    assert lottery_jax("verify", out, "--json") == 0
    verified = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in verified} == verified
    assert verified["within_tolerance"] == verified["target_weights"] == 64 * 4 + 4 * 10
    assert 0 <= verified["worst_residual"] <= 0.2
    assert verified["ticket_bytes"] == out.stat().st_size
    assert {"accuracy", "target_accuracy", "agreement", "max_deviation", "seconds"} <= found.keys()


def test_a_model_is_approximated_tensor_by_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random, out = np.random.default_rng(0), tmp_path / "new" / "ticket.safetensors"
    named = {"conv.weight": random.normal(size=(4, 2, 3, 3)).astype(np.float16), "conv.bias": np.ones(4, np.float32)}
    save_file(named, tmp_path / "model.safetensors")
    arguments = ("--model", tmp_path / "model.safetensors", "--candidates", 8, "--tolerance", 0.5, "--out", out)
    assert lottery_jax("approximate", *arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["within_tolerance"], found["solved_weights"], found["found_weights"]) == (72, 72, 0)
    assert found["skipped"] == {"conv.bias": "it is 1-D"} and found["worst_tensor"] == "conv.weight"
    assert found["kept_by_tensor"] == {"conv.weight": found["kept_weights"]} and found["source_weights"] == 72 * 8
    assert lottery_jax("verify", out, "--json") == 0
    verified = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in verified} == verified
    content = out.read_bytes()
    assert lottery_jax("approximate", *arguments) == 0  # the ticket is there: nothing is solved
    text = capsys.readouterr().out
    assert "skipped conv.bias: it is 1-D" in text and "0 weights were solved" in text
    assert "72 of 72 target weights are within 0.5" in text and "(tensor conv.weight, index [" in text
    assert out.read_bytes() == content and list(out.parent.iterdir()) == [out]
    assert lottery_jax("approximate", *arguments, "--pattern", "*.bias", "--seed", 1) == 0
    assert "4 of 4 target weights" in capsys.readouterr().out


def a_model(folder: Path, rows: int) -> tuple[str | Path | float, ...]:
    """Arguments that approximate a matrix of `rows` times 250 weights."""
    weights = np.random.default_rng(0).uniform(-1, 1, (rows, 250)).astype(np.float32)
    save_file({"w": weights}, folder / "model.safetensors")
    return "--model", folder / "model.safetensors", "--candidates", 8, "--tolerance", 2.0, "--out", folder / "t" / "t"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Past the first check, which writes 64 KiB, but not enough for the bits of 75,000 weights."""
    arguments = a_model(tmp_path, 300)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
    try:
        code = lottery_jax("approximate", *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    captured = capsys.readouterr()
    (message,) = captured.err.splitlines()
    assert (code, captured.out) == (2, "") and "free some space" in message
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["model.safetensors"]


def test_an_interrupt_is_130_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = a_model(tmp_path, 2100)  # two chunks of 2**18, and a bit
    solve_chunk, solved = chunks.solve_chunk, []

    def interrupted(job, chunk, file):
        if len(solved) == 1:
            raise KeyboardInterrupt
        solved.append(chunk.number)
        return solve_chunk(job, chunk, file)

    monkeypatch.setattr(chunks, "solve_chunk", interrupted)
    assert lottery_jax("approximate", *arguments) == 130
    assert "goes on from there" in capsys.readouterr().err and solved == [0]
    monkeypatch.setattr(chunks, "solve_chunk", solve_chunk)
    assert lottery_jax("approximate", *arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["found_weights"], found["solved_weights"]) == (2**18, 525_000 - 2**18)
    content = (tmp_path / "t" / "t").read_bytes()
    (tmp_path / "t" / "t").unlink()
    assert lottery_jax("approximate", *arguments) == 0
    assert (tmp_path / "t" / "t").read_bytes() == content


def test_the_bar_tells_the_speed_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    now = iter([10.0, 10.0, 10.0, 12.0])
    monkeypatch.setattr(model_command, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    with model_command.bar("reading") as begin:
        step = begin("solving", 8_000)
        step(2_000, False)  # found from before: no part of the speed
        step(1_000, True)
    assert "3000/8000 weights 500/s, 0:00:10 left" in re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)


def test_a_ticket_of_a_model_that_does_not_hold_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 18)).astype(np.float32)
    save_file({"w": weights}, tmp_path / "model.safetensors")
    arguments = ("--candidates", 8, "--tolerance", 1e-7, "--out", tmp_path / "ticket")
    assert lottery_jax("approximate", "--model", tmp_path / "model.safetensors", *arguments) == 1
    assert "NOT VALID" in capsys.readouterr().out


def test_verify_says_it_in_words(ticket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lottery_jax("verify", ticket) == 0
    text = capsys.readouterr().out
    assert "296 of 296 target weights are within 0.2" in text
    assert "the worst" in text


def test_a_residual_outside_the_tolerance_is_exit_1(ticket: Path, tmp_path: Path, capsys) -> None:
    kept = Ticket.load(ticket)
    strict = Ticket(kept.architecture, kept.seed, kept.masks, kept.method, kept.redraws, kept.target, tolerance=1e-9)
    strict.save(tmp_path / "strict.safetensors")
    assert lottery_jax("verify", tmp_path / "strict.safetensors") == 1
    assert "NOT VALID" in capsys.readouterr().out


def test_approximate_within_a_budget(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ticket.safetensors"
    asked = ("--target", target, "--candidates", 8, "--construction", "scalar", "--kept", 200, "--out", out)
    errors = {}
    for importance in ("uniform", "fisher"):
        assert lottery_jax("approximate", *asked, "--importance", importance) == 0
        assert "at most 200 weights" in capsys.readouterr().out
        assert lottery_jax("verify", out, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["kept_weights"] == found["kept_budget"] == 200 and found["holds"] and found["within_budget"]
        errors[importance] = Ticket.load(out).settings["importance"], found["mean_residual"]
    assert errors["uniform"][0] == "uniform" and errors["fisher"][0].startswith("given")
    assert errors["uniform"][1] < errors["fisher"][1]  # Fisher information cares less for the plain residuals
    made = Ticket.load(out)
    dataclasses.replace(made, kept_budget=199).save(out)
    assert lottery_jax("verify", out) == 1
    assert "NOT VALID: it keeps more" in capsys.readouterr().out


def test_a_ticket_without_target_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = {"0.kernel": np.ones((3, 2), bool)}
    Ticket((Linear(3, 2, Sampler.uniform(-1, 1)),), 0, mask, "random").save(tmp_path / "t")
    assert lottery_jax("verify", tmp_path / "t", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kept_weights"], found["worst_residual"], found["kept_per_target_weight"]) == (
        6,
        None,
        None,
    )


def damaged(content: bytes, how: str) -> bytes:
    return {
        "changed": content[:-1] + bytes([content[-1] ^ 1]),
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "foreign": b"\x89PNG" + bytes(100),
    }[how]


@pytest.mark.parametrize("how", ["changed", "truncated", "empty", "foreign"])
def test_a_damaged_ticket_is_refused(
    how: str, ticket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damaged(ticket.read_bytes(), how))
    assert lottery_jax("verify", path) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lottery-jax: ") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("verify nowhere.safetensors", "nowhere.safetensors"),
        ("compare --data mnits", "did you mean 'mnist'?"),
        ("compare --methods pensai", "did you mean 'pensia'?"),
        ("compare --tolerance 0", "tolerance 0.0"),
        ("compare --candidates 0", "candidates 0"),
        ("compare --keeps 1.5", "1.5"),
        ("compare --target nowhere.safetensors", "nowhere.safetensors"),
        ("compare --out file/runs", "file/runs"),
        ("approximate --data digit", "did you mean 'digits'?"),
        ("approximate --construction pensja", "did you mean 'pensia'?"),
        ("approximate --objective least", "least"),
        ("approximate --tolerance nan", "nan"),
        ("approximate --candidates -1", "-1"),
        ("approximate --kept -1", "-1"),
        ("approximate --kept 5 --objective smallest", "--objective smallest"),
        ("approximate --kept 5 --importance fischer", "did you mean 'fisher'?"),
        ("approximate --kept 5 --candidates 41", "41"),
        ("approximate --importance fisher", "--kept"),
        ("approximate --seed -1", "-1"),
        ("approximate --target nan.safetensors", "nan.safetensors"),
        ("approximate --target shape.safetensors", "64"),
        ("approximate --out file/ticket.safetensors", "file"),
        ("approximate --out folder", "folder"),
        ("approximate --pattern *.weight", "--model"),
        ("approximate --model nowhere.safetensors", "nowhere.safetensors"),
        ("approximate --model file", "no readable safetensors file"),
        ("approximate --model nan.safetensors", "tensor 'fc1.weight'"),
        ("approximate --model shape.safetensors --pattern *.bias", "'*.bias'"),
        ("approximate --model shape.safetensors --construction pensia", "pensia"),
        ("approximate --model shape.safetensors --target shape.safetensors", "--target"),
        ("approximate --model shape.safetensors --data mnist", "--data"),
        ("approximate --model shape.safetensors --kept 5", "--kept"),
        ("approximate --model shape.safetensors --out folder", "folder"),
        ("approximate --model shape.safetensors --out shape.safetensors", "own file"),
        ("approximate --model shape.safetensors --out file/ticket", "file"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    arguments: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    bad, wide = np.full((4, 64), np.nan, np.float32), np.ones((4, 63), np.float32)
    last = np.ones((10, 4), np.float32)
    save_file({"fc1.weight": bad, "fc2.weight": last}, tmp_path / "nan.safetensors")
    save_file({"fc1.weight": wide, "fc2.weight": last}, tmp_path / "shape.safetensors")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert lottery_jax(*arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (message,) = captured.err.splitlines()
    assert message.startswith("lottery-jax: ")
    assert words in message
    assert sorted(tmp_path.rglob("*")) == before


def test_an_option_that_does_not_parse_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert lottery_jax("compare", "--seeds", "one") == 2
    assert "--seeds" in capsys.readouterr().err


def test_compare_prints_records_and_nothing_else(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--target",
        target,
        "--tolerance",
        0.2,
        "--candidates",
        8,
        "--seeds",
        0,
        "--keeps",
        0.2,
        0.5,
    )
    arguments += ("--epochs", 1, "--out", tmp_path)
    assert lottery_jax("compare", *arguments, "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    records = [json.loads(line) for line in lines]
    assert {record["method"] for record in records} == set(METHODS)
    assert all(record.keys() >= RECORD_FIELDS for record in records)
    assert len(records) == len(METHODS) + 2  # two methods sweep over two keeps
    assert lottery_jax("compare", *arguments) == 0
    text = capsys.readouterr().out
    assert all(method in text for method in METHODS)
    (folder,) = tmp_path.iterdir()
    assert str(folder / "report.html") in text.replace("\n", "")
    assert {path.name for path in folder.iterdir()} == {
        "configuration.json",
        "figure.png",
        "records.jsonl",
        "report.html",
        "tickets",
    }


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "goes on from there"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/records.jsonl"),
            2,
            "runs/records.jsonl: No space",
        ),
    ],
)
def test_a_stop_half_way_is_told_without_a_traceback(
    error: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "compare", stop)
    assert cli.run(Compare()) == code
    assert words in capsys.readouterr().err


def test_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lottery_jax", "verify", "nowhere"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=with_package())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("lottery-jax: ") and ended.stderr.count("\n") == 1


def with_package() -> dict[str, str]:
    """The environment in which a process finds the copy of the package beside these tests."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
