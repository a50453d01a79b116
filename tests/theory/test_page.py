"""docs/theory.md and the constants of the table say what the results in the repository say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lottery_jax.theory import THEOREMS
from lottery_jax.theory import success as measured

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "theory.md").read_text()
ROWS = [json.loads(line) for line in (ROOT / "experiments/results/phase_diagram.jsonl").read_text().splitlines()]
CONSTANTS = [row for row in ROWS if row["kind"] == "constant"]


def test_the_tables_constants_are_those_of_the_results() -> None:
    found = {(row["distribution"], row["tolerance"], row["delta"]): row for row in CONSTANTS}
    for kept in (measured.SCALAR, measured.PRODUCT, measured.GADGET, measured.FIXED_SIZE):
        row = found[kept.distribution, kept.tolerance, kept.delta]
        assert (row["candidates"], row["low"], row["high"]) == (kept.candidates, kept.low, kept.high)
        assert (row["trials"], row["seed"]) == (kept.trials, kept.seed)


def test_the_page_has_the_results_and_every_theorem() -> None:
    for row in CONSTANTS:
        low, high = row["interval"]
        cells = f"{row['candidates']} [{row['low']}, {row['high']}] | {row['value']:.2f} [{low:.2f}, {high:.2f}] |"
        assert f"| {row['distribution']} | {row['tolerance']:g} | {row['delta']:g} | {cells}" in PAGE
    problems = {(row["distribution"], row["candidates"]): row for row in ROWS if row["kind"] == "problems"}
    for place in (("scalar", 24), ("product", 24), ("gadget", 10), ("gadget", 24)):
        assert f"{problems[place]['factor']:.2f}" in PAGE
    exact = [problems["quantised 8", count]["probability"][-1] for count in (10, 16)]
    assert (
        f"10 candidates meet {exact[0]:.0%}".replace("%", " %") in PAGE
        and f"16 {exact[1]:.0%}".replace("%", " %") in PAGE
    )
    assert re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE) == list(THEOREMS)


def test_the_page_has_the_widths_of_the_lower_bound() -> None:
    lines = (ROOT / "experiments/results/pensia_lower_bound.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(row["successes"] >= row["sources"] / 2 for row in rows)
    said = re.findall(r"^\| (\d+) \| ([\d.]+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    made = [(row["size"], row["tolerance"], row["width"], row["bound"], row["width"] / row["bound"]) for row in rows]
    assert said == [(str(d), f"{eps:g}", str(w), str(b), f"{r:.1f}") for d, eps, w, b, r in made if eps in (0.1, 0.003)]


def test_the_pages_python_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(block, {})


@pytest.mark.slow
def test_the_experiment_runs_small(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, str(ROOT / "experiments/phase_diagram.py"), "--scale", "0.01", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["kind"] for row in rows] == [row["kind"] for row in ROWS]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG") and "fixed-size" in done.stdout
    for row in (row for row in rows if row["kind"] == "problems"):
        assert all(low <= p <= high for low, p, high in zip(row["low"], row["probability"], row["high"], strict=True))
