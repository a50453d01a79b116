"""README and the pages for users: their Python runs, their commands and options exist, their numbers are measured."""

import contextlib
import io
import json
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from lottery_jax.cli.main import parse
from lottery_jax.cli.settings import Approximate, Compare, Export, Verify
from tests.cli.calling import lottery_jax, matrices, own_data
from tests.importers.onnx_models import Model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OWN_NETWORKS = (ROOT / "docs" / "own_networks.md").read_text()
PAGES = "\n".join([README, OWN_NETWORKS, (ROOT / "docs" / "commands.md").read_text()])
COMMANDS = {"compare": Compare, "approximate": Approximate, "verify": Verify, "export": Export}
LINES = re.findall(r"^    (\S.+)$", re.sub(r" \\\n\s+", " ", PAGES), re.MULTILINE)
OPTION = re.compile(r"--[a-z][a-z-]*")


def results(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}_cpu.json").read_text())


def test_the_python_runs_and_prints_what_it_says() -> None:
    """Each block alone, as it is pasted."""
    for block in re.findall(r"```python\n(.*?)```", PAGES, re.DOTALL):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, {})
        expected = re.findall(r"print\(.*?#\s*(.+)$", block, re.MULTILINE)
        assert len(expected) == len(printed.getvalue().splitlines()) > 0
        for said, found in zip(expected, printed.getvalue().splitlines(), strict=True):
            if "within 0.01" in said:
                numbers = [[float(x) for x in re.findall(r"-?\d\.?\d*", text)[:2]] for text in (said, found)]
                assert all(abs(a - b) <= 0.011 for a, b in zip(*numbers, strict=True))
            else:
                assert said.strip() == found.strip()


def test_the_commands_parse() -> None:
    found = set()
    for line in LINES:
        if line.startswith("lottery-jax "):
            words = shlex.split(line.split("#")[0])[1:]
            assert isinstance(parse(words), COMMANDS[words[0]]), line
            found.add(words[0])
    assert found == set(COMMANDS)


def test_ones_own_network_takes_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The environment, and one line with one's own data and network; what the section says besides works, too."""
    section = README.split("\n## Your own network\n")[1].split("\n## ")[0]
    commands = [line.strip() for line in re.findall(r"^    (\S.*)$", section, re.MULTILINE)]
    assert len(commands) == 3 and commands[0] == ". .venv/bin/activate"
    assert (ROOT / "Makefile").read_text().startswith("# Two") and "VENV ?= .venv\n" in (ROOT / "Makefile").read_text()
    monkeypatch.chdir(tmp_path)
    own_data(tmp_path / "my_data.npz")
    shapes = {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (2, 5), "2.bias": (2,)}  # of a PyTorch Sequential
    matrices(tmp_path / "my_network.safetensors", **shapes)
    built = Model()
    hidden = built.add("Gemm", built.add("Flatten", "x"), built.weight("0.weight", 5, 4), transB=1)
    output = built.add("Gemm", built.add("Relu", hidden), built.weight("2.weight", 2, 5), transB=1)
    onnx.save(built.model(output, ("N", 1, 2, 2)), tmp_path / "my_network.onnx")
    lines = re.findall(r"^    (lottery-jax .*)$", OWN_NETWORKS, re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["approximate", "verify", "export", "compare", "approximate"]
    assert [line.replace(".onnx", ".safetensors") for line in commands[1:]] == lines[:2]
    for line in [*commands[1:], *lines]:
        if " compare " in line:
            line += " --methods dense pensia --seeds 0"  # the others are other tests' work
        if line == lines[0]:
            (tmp_path / "my_ticket.safetensors").unlink()  # that of the ONNX file
        assert lottery_jax(*shlex.split(line)[1:]) == 0, line
    printed = capsys.readouterr().out
    assert "37 of 37 target weights are within 0.01" in printed and "Test accuracy" in printed and "HOLDS" in printed


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What a script of the repository, or a command of ours, says of its options."""
    monkeypatch.setenv("COLUMNS", "1000")

    def ask(name: str) -> set[str]:
        capsys.readouterr()
        if name in COMMANDS:
            assert lottery_jax(name, "--help") == 0
        else:
            monkeypatch.setattr(sys, "argv", [name, "--help"])
            monkeypatch.syspath_prepend(str((ROOT / name).parent))
            with pytest.raises(SystemExit, match="0"):
                runpy.run_path(str(ROOT / name), run_name="__main__")
        return set(OPTION.findall(capsys.readouterr().out))

    return ask


def test_the_scripts_have_the_options_they_are_called_with(help_of) -> None:
    scripts = re.findall(r"python ((?:benchmarks|experiments)/\w+\.py)([^`\n]*)", PAGES)
    assert {name.split("/")[0] for name, _ in scripts} == {"benchmarks", "experiments"}
    for name, words in scripts:
        assert set(OPTION.findall(words)) <= help_of(name), name


def test_the_readme_is_one_page() -> None:
    assert len(README.splitlines()) <= 130


def test_every_option_it_mentions_exists(help_of) -> None:
    known = {"--help"}.union(*map(help_of, COMMANDS))
    mentioned = {word for code in re.findall(r"`([^`\n]+)`", PAGES) for word in OPTION.findall(code)}
    assert len(mentioned) > 5 and mentioned <= known | {"--target"}


def test_what_is_called_besides_exists() -> None:
    makefile, project = (ROOT / "Makefile").read_text(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    goals = re.findall(r"^ *`*make ([a-z-]+)|`make ([a-z-]+)", README, re.MULTILINE)
    assert {"demo", "test"} <= {goal for both in goals for goal in both}
    for goal in filter(None, (goal for both in goals for goal in both)):
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE), goal
    extras = {extra for group in re.findall(r"(?:\.\[|EXTRAS=)([\w,]+)", README) for extra in group.split(",")}
    assert extras and extras <= set(project["optional-dependencies"])
    (demo,) = re.findall(r"`make demo` is `(lottery-jax [^`]+)`", README)
    assert f"$(BIN)/{demo}\n" in makefile
    for name in re.findall(r"(?:benchmarks|experiments|notebooks|docs)/[\w/.]+\.\w+", PAGES):
        assert (ROOT / name).is_file(), name


def test_the_numbers_of_the_main_job_are_the_benchmarks() -> None:
    rows = {row["case"]: row for row in results("main_job")["rows"]}
    for case, label in {
        "scalar": "`scalar`, least error",
        "scalar-smallest": "`scalar`, smallest",
        "pensia": "`pensia`, least error",
        "pensia-smallest": "`pensia`, smallest",
    }.items():
        cells = next(line for line in README.splitlines() if line.startswith(f"| {label}")).split("|")[2:-1]
        row = rows[case]
        assert [cell.strip() for cell in cells] == [
            f"{row['kept_per_weight']:.3f}",
            "all" if row["within"] == row["weights"] else str(row["within"]),
            f"{100 * row['accuracy']:.2f} %",
            f"{row['seconds']:.1f}",
        ]


def test_plain_fisher_is_the_worst_of_the_three_with_few_kept_weights() -> None:
    rows = [row for row in results("budget")["rows"] if row["construction"] == "scalar" and row["kept"] < 100_000]
    assert "plain Fisher information is the worst of the three" in " ".join(PAGES.split()) and rows
    for kept in {row["kept"] for row in rows}:
        agreements = {row["choice"]: row["agreement"] for row in rows if row["kept"] == kept}
        assert agreements["fisher"] == min(agreements.values())


def leaves(value: Any) -> Iterator[float]:
    """The numbers of a result."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


SAID = re.compile(r"(?<!some )(?<!under )(?<![\w.-])(?:\d[\d,]*\.\d+(?!\d*[\w-])|\d{1,3}(?:,\d{3})+)")
"""A decimal or a large number that claims to be exact."""


def unmeasured(words: str, *found: Any) -> list[str]:
    """Numbers of some words that are no rounding of one that was measured, of its percents, thousands or millions."""
    scaled = [scale * value for value in leaves(list(found)) for scale in (1, 100, 1e-3, 1e-6)]
    return [said for said in SAID.findall(words) if not any(as_said(value, said) for value in scaled)]


def as_said(value: float, said: str) -> bool:
    return f"{value:,.{len(said.partition('.')[2])}f}" == said


def test_numbers_that_were_not_measured_are_seen() -> None:
    result = {"rows": [{"accuracy": 0.91234, "weights": 272474, "holds": True}]}
    assert unmeasured("91.23 % with 272,474 weights (0.27 million) of ResNet-20 at n = 21", result) == []
    assert unmeasured("91.24 % with 272,475 weights in 1.0 s, some 5,000", result) == ["91.24", "272,475", "1.0"]


def test_the_numbers_of_networks_are_the_benchmarks() -> None:
    tables = "\n".join(line for line in OWN_NETWORKS.splitlines() if line.startswith("|"))
    assert re.search(r"\d", tables), "the table of networks is missing"
    assert unmeasured(tables, results("startup")) == []


def test_the_numbers_of_a_paragraph_are_those_of_the_results_it_names() -> None:
    checked = set()
    for paragraph in PAGES.split("\n\n"):
        names = set(re.findall(r"benchmarks/results/(\w+)_cpu\.json", paragraph))
        if names:
            checked |= names
            assert unmeasured(paragraph, *map(results, names)) == []
    assert checked >= {"main_job", "bits", "output_bound", "budget"}


def test_bounds_of_the_output_are_those_of_the_results() -> None:
    found = [row["bound_over_searched"] for row in results("output_bound")["rows"]]
    assert max(found) < 20
    text = " ".join(PAGES.split())
    assert f"On the digits the bound is {found[0]:.1f} (least error) and {found[1]:.1f} times (smallest)" in text
    assert f"on the published target {found[2]:.1f} and {found[3]:.1f} times" in text
