"""The experiment's command runs small: the settings of the paper, one row each."""

import runpy
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "experiments" / "pensia_experiment_1.py"


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, words)])
    runpy.run_path(str(PROGRAM), run_name="__main__")


def test_every_setting_is_a_row_that_holds(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "rows.jsonl")
    command(monkeypatch, "--data", "digits", "--target", target, "--candidates", 8, "--tolerance", 0.2, *out)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    printed = capsys.readouterr().out.replace(",", "").splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed]
    rows = [row for row in rows if len(row) > 1]
    assert [row[:2] for row in rows] == [
        ["scalar-shared", "least-error"],
        ["scalar", "least-error"],
        ["scalar", "smallest"],
        ["pensia", "least-error"],
        ["pensia", "smallest"],
    ]
    assert [int(row[2]) for row in rows] == [14 * 8, 296 * 8, 296 * 8, 16 * (296 + 64 + 4), 16 * (296 + 64 + 4)]
    for row in rows:
        assert row[5] == "296" and float(row[6]) <= 0.2 and row[4] == f"{int(row[3]) / 296:.3f}"
    assert float(rows[2][4]) < float(rows[1][4]) and float(rows[4][4]) < float(rows[3][4])


def test_bad_settings_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, "--data", "digit", "--out", tmp_path / "rows.jsonl")
    captured = capsys.readouterr()
    assert "error: " in captured.err and "did you mean 'digits'" in captured.err
    assert (captured.out, list(tmp_path.iterdir())) == ("", [])
