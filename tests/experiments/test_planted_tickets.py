"""The experiment's command runs small, from options to table and JSON lines."""

import json
import runpy
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "experiments" / "planted_tickets.py"


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, words)])
    runpy.run_path(str(PROGRAM), run_name="__main__")


@pytest.mark.slow
def test_every_ticket_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    network = ["--tasks", "relu-unit", "--width", 32, "--widths", 1, 8, 32, "--multiples", 1, 8, 1000]
    command(monkeypatch, "--scale", 0.05, "--methods", "edge-popup", *network, "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["method"], row["width"]) for row in rows] == [
        ("planted", 8),  # 1 is narrower than what is planted
        ("planted", 32),
        *[("edge-popup", 32)] * 3,
    ]
    planted = rows[1]
    assert planted["recall"] == planted["precision"] == planted["jaccard"] == 1 and planted["kept_weights"] == 4
    assert planted["accuracy"] > 0.98 > planted["majority"]
    for row in rows:
        assert 0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1
        assert set(row["recall_by_layer"]) == {"fc1.weight", "fc2.weight"}
    assert [row["kept_weights"] for row in rows[2:]] == [4, 32, 256]
    assert rows[4]["recall"] == rows[4]["recall_by_chance"] == 1  # all are kept
    printed = capsys.readouterr().out
    assert "edge-popup" in printed and "accuracy of the largest class alone: relu-unit 6" in printed


@pytest.mark.slow
def test_every_method_has_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.jsonl"
    command(monkeypatch, "--scale", 0.02, "--width", 32, "--widths", 32, "--multiples", 1, 2, "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    methods = ["planted", *["edge-popup"] * 2, *["gem-miner"] * 2, "supermask", "hard-concrete", *["magnitude"] * 2]
    methods += ["magnitude-retrained"] * 2
    assert [row["method"] for row in rows] == methods * 3
    assert [row["task"] for row in rows[:: len(methods)]] == ["relu-unit", "circle", "helix"]
    # Magnitude pruning has the same mask, whether it is trained with or not.
    for unlearned, trained in zip(rows[7::11], rows[9::11], strict=True):
        assert unlearned["recall"] == trained["recall"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tasks", "circel"], "the task 'circel' is unknown; did you mean 'circle'?"),
        (["--methods", "edge"], "the method 'edge' is unknown; did you mean 'edge-popup'?"),
        (["--multiples", "-1"], "multiples must be positive"),
        (["--scale", "0"], "scale must be a fraction of the published run in (0, 1], got 0.0"),
    ],
)
def test_bad_settings_are_one_sentence(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, *words, "--out", tmp_path / "rows.jsonl")
    captured = capsys.readouterr()
    assert (captured.out, list(tmp_path.iterdir())) == ("", [])
    (line,) = captured.err.splitlines()
    assert sentence in line
