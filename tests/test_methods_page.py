"""docs/methods.md has a row for every registered method, and whoever needs it is told where it is."""

import re
from pathlib import Path

import pytest

from lottery_jax.approximation.importance import IMPORTANCES
from lottery_jax.approximation.tolerance import OBJECTIVES
from lottery_jax.comparison.registry import all_methods
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.mask_learning.registry import LEARNERS, SOURCES
from lottery_jax.pruning import TRAINED
from tests.cli.calling import lottery_jax

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "methods.md").read_text()
HEADING = ["name", "paper", "what it promises", "when to use it", "what it costs"]
ROWS = {
    row[0].strip("`"): row
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(row := [cell.strip() for cell in line.strip("|").split("|")]) == len(HEADING)
}


def test_every_registered_method_has_a_row() -> None:
    alone = {
        label for label in all_methods() if label in ("dense", "random", "edge-popup-from-pensia", "target-pruned")
    }
    assert len(alone) == 4
    registered = {
        "budget",
        "loss-aware",
        *CONSTRUCTIONS,
        *OBJECTIVES,
        *IMPORTANCES,
        *LEARNERS,
        *SOURCES,
        *TRAINED,
        *alone,
    }
    assert set(ROWS) == registered | {"--kept", "--prune-target", "--density", "--locked", "--share-layers"}
    assert all(all(row) for row in ROWS.values())
    assert "\n\n| `" not in PAGE, "a row without its table"
    assert PAGE.count("| " + " | ".join(HEADING) + " |") == PAGE.count("\n| name |")


def test_every_method_is_made_of_what_has_a_row() -> None:
    for label, method in all_methods().items():
        parts = [label] if label in ROWS else [part for part in ROWS if f"-{part}" in f"-{label}"]
        assert parts, label
        assert method.about.endswith(".") and 20 < len(method.about) < 300, label


@pytest.mark.parametrize("command", ["--help", "compare --help"])
def test_the_help_and_the_readme_say_where_it_is(command: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert lottery_jax(*command.split()) == 0
    text = capsys.readouterr().out
    assert "docs/methods.md" in text
    assert "(docs/methods.md)" in (ROOT / "README.md").read_text()


def test_the_words_of_the_page_are_explained() -> None:
    explained = " ".join(re.findall(r"^\| ([^|`]+) \|", PAGE.split("## Words")[1].split("\n## ")[0], re.MULTILINE))
    for word in ("gadget", "depth 2L", "redundant structure", "Pareto front", "keep", "ticket"):
        assert word in explained
