"""The README does what it says: its Python runs, its commands parse, its numbers are in the results."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from lottery_jax.cli import main
from lottery_jax.cli.settings import Approximate, Compare, Verify

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_runs_and_prints_what_it_says():
    space: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, space)
        expected = re.findall(r"print\(.*?#\s*(.+)$", block, re.MULTILINE)
        assert len(expected) == len(printed.getvalue().splitlines()) > 0
        for said, found in zip(expected, printed.getvalue().splitlines(), strict=True):
            if "within 0.01" in said:
                numbers = [[float(x) for x in re.findall(r"-?\d\.?\d*", text)[:2]] for text in (said, found)]
                assert all(abs(a - b) <= 0.011 for a, b in zip(*numbers, strict=True))
            else:
                assert said.strip() == found.strip()


def test_the_commands_parse(monkeypatch):
    lines = re.sub(r" \\\n\s+", " ", README)
    commands = {"compare": Compare, "approximate": Approximate, "verify": Verify}
    found, read = set(), []
    monkeypatch.setattr("lottery_jax.cli.run", lambda command: read.append(command) or 0)
    for line in re.findall(r"^    lottery-jax (.+)$", lines, re.MULTILINE):
        name, *arguments = shlex.split(line.split("#")[0])
        with pytest.raises(SystemExit, match="0"):
            main([name, *arguments])
        assert isinstance(read[-1], commands[name])
        found.add(name)
    assert found == set(commands)


def test_the_files_it_names_exist():
    for name in re.findall(r"(?:benchmarks|experiments|notebooks|docs)/[\w/.]+\.\w+", README):
        assert (ROOT / name).is_file(), name


def test_the_numbers_are_the_benchmarks():
    rows = {row["case"]: row for row in json.loads((ROOT / "benchmarks/results/main_job_cpu.json").read_text())["rows"]}
    for case, label in {
        "scalar": "`scalar`, least error",
        "scalar-smallest": "`scalar`, smallest",
        "pensia": "`pensia`, least error",
        "pensia-smallest": "`pensia`, smallest",
    }.items():
        cells = next(line for line in README.splitlines() if line.startswith(f"| {label}")).split("|")[2:-1]
        row = rows[case]
        assert [cell.strip() for cell in cells] == [
            f"{row['source_weights']:,}",
            f"{row['kept_per_weight']:.3f}",
            "all" if row["within"] == row["weights"] else str(row["within"]),
            f"{100 * row['accuracy']:.2f} %",
            f"{row['seconds']:.1f}",
        ]


def test_the_numbers_of_the_budget_are_the_benchmarks():
    result = json.loads((ROOT / "benchmarks/results/budget_cpu.json").read_text())
    text = " ".join(README.split())
    group = [row for row in result["rows"] if (row["construction"], row["tolerance"]) == ("scalar", 0.01)]
    assert len(group) == 4 and {f"{row['kept']:,}" for row in group} == {"213,150"} and "keeps 213,150" in text
    for row in group:
        agreement = f"{100 * row['agreement']:.2f} %"
        assert (f"on {agreement} of" if row["choice"] == "smallest" else f"{agreement} ({row['choice']})") in text
        assert row["accuracy_low"] <= result["target_accuracy"] <= row["accuracy_high"]
    for kept in {row["kept"] for row in result["rows"] if row["construction"] == "scalar" and row["kept"] < 100_000}:
        agreements = {row["choice"]: row["agreement"] for row in result["rows"] if row["kept"] == kept}
        assert agreements["fisher"] == min(agreements.values())
