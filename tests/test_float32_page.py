"""docs/float32.md has the numbers of the benchmark, and every honest ticket holds with room."""

import json
from pathlib import Path

from lottery_jax.constructions import CONSTRUCTIONS
from lottery_jax.tickets.box_bounds import COPY_MULTIPLE
from lottery_jax.tickets.overflow import HEADROOM
from lottery_jax.tickets.rounding import CANCELLATION, FINE, LARGEST, MOST, PRODUCT_MULTIPLE, SUM_MULTIPLE
from tests.fuzz.trial import LIMITS, Trial

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "float32.md").read_text()
FUZZ = json.loads((ROOT / "benchmarks" / "results" / "fuzz_verify_cpu.json").read_text())
ROWS = json.loads((ROOT / "benchmarks" / "results" / "float32_cpu.json").read_text())["rows"]


def percent(share: float | None) -> str:
    """A share as the page writes it; a dash for None."""
    return "-" if share is None else f"{100 * share:.2g} %"


def test_the_table_is_that_of_the_results() -> None:
    lines = PAGE.split("| construction, objective |")[1].split("\n\n")[0].splitlines()[2:]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        [
            f"{row['construction']}, {row['objective']}",
            row["target"],
            f"{row['tolerance']:.2g}",
            f"{row['worst_residual']:.2g}",
            f"{row['float32_addition']:.2g}",
            percent(row["share_of_allowed"]),
            f"{row['multiple_of_target']:.1f}",
            percent(row["copies_share_of_allowed"]),
        ]
        for row in ROWS
    ]


def test_every_construction_holds_with_room() -> None:
    assert {row["construction"] for row in ROWS} >= set(CONSTRUCTIONS)
    for row in ROWS:
        assert row["outcome"] == "holds" and row["reasons"] == [] and row["largest_value"] < 1e30, row
        assert row["share_of_allowed"] <= 0.5 and (row["copies_share_of_allowed"] or 0) <= 0.5, row


def test_the_constants_are_those_of_the_program() -> None:
    assert (1 / FINE, SUM_MULTIPLE, PRODUCT_MULTIPLE, 1 / MOST, CANCELLATION) == (256, 64, 512, 16, 128)
    for words in (
        "below 1/256 of",
        "is 64 for the first kind of layer, and 512 for",
        "more than 1/16 of",
        "than 128 times",
    ):
        assert words in " ".join(PAGE.split())
    assert COPY_MULTIPLE == 4 and "four times what the tolerance explains" in " ".join(PAGE.split())
    assert HEADROOM == 2**20 and "more than 2^20 times" in PAGE
    assert f"exceeds {LARGEST / HEADROOM:.0e}".replace("+", "") in PAGE


def test_the_forged_files_are_those_of_the_fuzz() -> None:
    assert FUZZ["tickets"] == 20_000 and set(FUZZ["bad"]) == set(Trial.BAD) and not any(FUZZ["bad"].values())
    assert FUZZ["limits"] == LIMITS and f"seed {FUZZ['seed']})" in PAGE
    lines = PAGE.split("| change | files |")[1].split("\n\n")[0].splitlines()[2:]
    outcomes = ("refused", "broken", "no guarantee", "holds")
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        [change, *(f"{count:,}" for count in (sum(counts.values()), *(counts.get(outcome, 0) for outcome in outcomes)))]
        for change, counts in sorted(FUZZ["outcomes_by_change"].items())
    ]
    words = " ".join(PAGE.split())
    assert f"difference is {100 * FUZZ['largest_ratio_of_holds']:.0f} % of" in words
    assert (
        f"than {LIMITS['seconds']:.0f} s or {LIMITS['gib']:.0f} GiB. The slowest took {FUZZ['slowest_s']:.1f} s"
        in words
    )
