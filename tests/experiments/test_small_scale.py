"""The experiments that have a scale run small, from options to table and JSON lines."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ROWS = {"zhou_supermasks": 7, "zhou_grid": 2 * (21 + 26), "frankle_carbin_lenet": 1 + 3 + 3 + 3}

PARTS = {
    "frankle_carbin_conv": ("0.04", 1 + 2 * 2),
    "frankle_carbin_deep": ("0.025", 2 * 2 + 3 * 2 * 2),
    "ramanujan_curves": ("0.04", 2 * 3 + 1 + 2),
}
"""Those that cut examples and width, too: a scale, and the rows at it."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_runs_small_on_the_digits(name: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--data", "digits", "--out", str(out)]
    done = subprocess.run([*command, "--scale", "0.04"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == ROWS[name] and {(row["epochs"], row["seed"]) for row in rows} == {(2, 0)}
    assert all(0 < row["accuracy"] <= 1 for row in rows) and "2 epochs, at scale 0.04" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_says_what_was_cut(name: str, tmp_path: Path) -> None:
    (scale, count), out = PARTS[name], tmp_path / "rows.jsonl"
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--data", "digits", "--out", str(out)]
    done = subprocess.run([*command, "--scale", scale], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count and all(0 < row["accuracy"] <= 1 for row in rows)
    examples = round(1257 * float(scale))
    assert {(row["examples"], row["scale"], row["seed"]) for row in rows} == {(examples, float(scale), 0)}
    title = " ".join(done.stdout.split("┏")[0].split())
    assert f"{examples} training examples in batches of {rows[0]['batch_size']} (of " in title
    assert f"at scale {scale} of the published run" in title and "width" in title


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale", "count"),
    [("tickets_to_buy", "0.04", 5), ("pensia_lower_bound", "0.1", 8), ("kumar_exact", "0.2", 6)],
)
def test_what_needs_no_data_runs_small(name: str, scale: str, count: int, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--scale", scale, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count and {row["scale"] for row in rows} == {float(scale)}
    if name == "pensia_lower_bound":
        assert all(row["successes"] >= row["sources"] / 2 and row["width"] >= row["bound"] for row in rows)
    elif name == "kumar_exact":
        assert all(row["bits"] == 4 and row["exact_at_once"] <= 1 for row in rows) and rows[-1]["outcome"] == "holds"
    else:
        assert all(row["draws"] >= 10_000 for row in rows) and out.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.slow
def test_smaller_tickets_run_small(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, str(ROOT / "experiments" / "smaller_tickets.py"), "--data", "digits", "--out", str(out)]
    more = ["--architecture", "mlp-64", "--scale", "0.1"]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 5 + 3 * 6 + 5 and {(row["scale"], row["seed"]) for row in rows} == {(0.1, 0)}
    best = {row["method"]: row["accuracy"] for row in reversed(rows)}
    assert best["loss-aware"] > best["budget"] and all(row["outcome"] != "broken" for row in rows)
    assert all((row["outcome"] == "holds") == (row["rounding_bits"] is not None) for row in rows)
    assert out.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.slow
def test_neurons_and_weights_run_small(tmp_path: Path) -> None:
    """Subsets that are found, beside the best of all of a few neurons; closed forms, beside a sample."""
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, str(ROOT / "experiments" / "malach_neurons.py"), "--scale", "0.4", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3 * (3 + 3) and out.with_suffix(".png").stat().st_size > 10_000
    for row in rows:
        assert len(row["error"]) == 2 and all(0 < error < 1 for error in row["error"])
        assert all(bound <= error for bound, error in zip(row.get("bound", ()), row["error"], strict=False))
    own = runpy.run_path(str(ROOT / "experiments" / "malach_neurons.py"))
    random = np.random.default_rng(0)
    for _ in range(5):
        first, wanted, second = random.uniform(-1, 1, (12, 3)), random.normal(size=(1, 3)), random.uniform(-1, 1, 12)
        each = second[:, None] * own["products"](first, first) * second
        sums = second * own["products"](first, wanted)[:, 0]
        every = (np.arange(1, 1 << 12)[:, None] >> np.arange(12)) & 1
        nearness = (every @ sums) / np.sqrt(((every @ each) * every).sum(1))
        kept = own["best_subset"](each, sums)
        assert (kept @ sums) / np.sqrt(kept @ each @ kept) >= 0.999 * nearness.max()
        x = random.normal(size=(200_000, 3))
        sample = np.maximum(x @ first.T, 0) * second
        np.testing.assert_allclose(sample.T @ np.maximum(x @ wanted[0], 0) / len(x), sums, atol=0.01)


@pytest.mark.parametrize("name", [*ROWS, *PARTS, "pensia_experiment_2"])
def test_a_scale_beyond_the_published_run_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = str(ROOT / "experiments" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [program, "--scale", "1.5", "--out", str(tmp_path / "rows.jsonl")])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(program, run_name="__main__")
    captured = capsys.readouterr()
    assert (captured.out, list(tmp_path.iterdir())) == ("", [])
    assert captured.err == "error: scale must be a fraction of the published run in (0, 1], got 1.5\n"
