"""docs/bits.md has the numbers of the benchmark, and what it says of them is so."""

import json
import re
import shlex
from pathlib import Path

from lottery_jax.cli.main import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "bits.md").read_text()
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "bits_cpu.json").read_text())


def table(first: str) -> list[list[str]]:
    """The cells of the rows of the table whose head begins with a word."""
    lines = PAGE.split(f"| {first} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_the_rows_are_those_of_the_results() -> None:
    shown = [
        [row["case"], row["source"], *(f"{row[name]:{form}}" for name, form in FORMS.items())]
        for row in RESULTS["rows"]
    ]
    assert table("subset") == shown
    assert all(row["weights"] == 392_000 for row in RESULTS["rows"])


FORMS = {"kept_per_weight": ".3f", "iid": ".2f", "coded": ".2f", "rounding": ".2f"}


def test_the_tickets_are_those_of_the_results() -> None:
    assert table("ticket") == [
        [
            row["case"].replace("-", ", ", 1),
            f"{row['kept_per_weight']:.3f}",
            f"{row['bits']:.2f}",
            f"{row['rounding']:.2f}",
            f"{row['plain_bytes']:,}",
            f"{row['coded_bytes']:,}",
            f"{row['verify_plain_s']:.1f}, {row['verify_coded_s']:.1f}",
        ]
        for row in RESULTS["tickets"]
    ]


def test_lossless_tickets_are_those_of_the_results() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "smaller_tickets_cpu.json").read_text())["rows"]
    rows = [row for row in found if row["case"].startswith("lossless")]
    assert rows and all(row["outcome"] == "holds" and row["max_deviation"] < 1e-5 for row in rows)
    assert table("lossless") == [
        [
            row["case"].split(" ", 1)[1],
            str(row["candidates"]),
            f"{row['bits']:.2f}",
            f"{row['max_deviation']:.1e}",
            f"{row['search_s']:.1f}, {row['first_s']:.1f}",
        ]
        for row in rows
    ]


def test_what_it_says_is_so() -> None:
    rows, tickets = RESULTS["rows"], RESULTS["tickets"]
    assert all(row["outcome"] == "holds" for row in tickets)
    assert all(row["rounding"] < row["coded"] < row["iid"] for row in rows), "plain rounding wins"
    assert all(row["rounding"] < row["bits"] for row in tickets)
    matched = tickets[-1]
    assert matched["case"] == "scalar-matched-first" and matched["bits"] <= 2.75 and matched["kept_per_weight"] <= 0.42
    first = {row["source"]: row["coded"] for row in rows if row["case"] == "first"}
    assert list(first.values()) == sorted(first.values(), reverse=True), "the nearer to the target's spread, the fewer"


def test_its_commands_parse() -> None:
    lines = re.findall(r"^    (lottery-jax .+)$", PAGE, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        parse(shlex.split(line)[1:])
