"""The experiment's command runs small, from options to table and JSON lines."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(ROOT / "experiments" / "pensia_experiment_2.py")]


@pytest.mark.slow
def test_runs_small_on_the_digits(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    network = ["--data", "digits", "--architectures", "mlp-12", "--out", str(out)]
    training = ["--scale", "0.5", "--keeps", "0.5", "0.1", "--seeds", "0", "1"]
    done = subprocess.run(
        [*PROGRAM, *network, *training],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3 * 2 * 2 + 2
    assert {row["network"] for row in rows} == {"structure-linear", "structure-relu", "wide", "dense"}
    assert {(row["architecture"], row["epochs"], row["examples"]) for row in rows} == {("mlp-12", 15, 628)}
    assert {row["kept_weights"] for row in rows if row["network"] == "dense"} == {64 * 12 + 12 * 10}
    assert all(0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1 for row in rows)
    assert f"{rows[0]['kept_weights']:,}" in done.stdout


def test_refuses_an_unknown_network_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", "digits", "--networks", "narrow", "--out", str(tmp_path / "rows.jsonl")]
    monkeypatch.setattr(sys, "argv", [PROGRAM[1], *options])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(PROGRAM[1], run_name="__main__")
    captured = capsys.readouterr()
    assert (captured.out, list(tmp_path.iterdir())) == ("", [])
    (sentence,) = captured.err.splitlines()
    assert "the network 'narrow' is unknown" in sentence
