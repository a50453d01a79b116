"""The experiment's command runs small, from options to table and JSON lines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(ROOT / "experiments" / "pensia_experiment_2.py")]


@pytest.mark.slow
def test_runs_small_on_the_digits(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    network = ["--data", "digits", "--hidden", "12", "--out", str(out)]
    training = ["--epochs", "3", "--keeps", "0.5", "0.1", "--seeds", "0", "1"]
    done = subprocess.run(
        [*PROGRAM, *network, *training],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3 * 2 * 2
    assert {row["network"] for row in rows} == {"structure-linear", "structure-relu", "wide"}
    assert all(0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1 for row in rows)
    assert f"{rows[0]['kept_weights']:,}" in done.stdout


@pytest.mark.slow
def test_refuses_an_unknown_network_in_one_sentence(tmp_path: Path) -> None:
    options = ["--data", "digits", "--networks", "narrow", "--out", str(tmp_path / "rows.jsonl")]
    done = subprocess.run([*PROGRAM, *options], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert "Traceback" not in done.stderr
    assert "['narrow'] are unknown" in done.stderr
