"""The table, the figure and the page show the records they are given, and the page stands alone."""

import dataclasses
import html.parser
import struct
from pathlib import Path

import pytest
from rich.console import Console

from lottery_jax.comparison.records import Record
from lottery_jax.comparison.registry import all_methods
from lottery_jax.comparison.report import figure, rows, tables, write_report
from lottery_jax.comparison.report.figure import STYLES, _style
from lottery_jax.comparison.report.summary import DASH

METHODS = all_methods()

DENSE = Record("dense", "digits", 0, None, 0.97, 0.95, 0.98, 0.97, 1.0, 0.0, 2368)
PENSIA = Record(
    "pensia",
    "digits",
    0,
    None,
    0.96,
    0.94,
    0.98,
    0.97,
    0.99,
    0.25,
    2368,
    source_weights=99456,
    kept_weights=24000,
    kept_per_target_weight=24000 / 2368,
    within_tolerance=2368,
    worst_residual=3.4e-4,
    ticket_bytes=14321,
    seconds=1.5,
    source="gadget 64 x 42 x 32, gadget 32 x 42 x 10",
    device="cpu",
    versions={"jax": "0.10.2"},
)
POPUP = [
    dataclasses.replace(
        PENSIA,
        method="edge-popup-gadget",
        keep=keep,
        seed=seed,
        accuracy=accuracy + seed / 100,
        kept_weights=int(99456 * keep),
        within_tolerance=None,
        worst_residual=None,
    )
    for keep, accuracy in ((0.5, 0.9), (0.01, 0.5), (0.1, 0.85))
    for seed in (0, 1)
]
RECORDS = [DENSE, PENSIA, dataclasses.replace(PENSIA, seed=1, within_tolerance=2367), *POPUP]


class Reader(html.parser.HTMLParser):
    """Collects text, and the addresses that a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]


def test_rows_gather_seeds_and_sort_keeps() -> None:
    found = [(row.method, row.keep, len(row.records)) for row in rows(RECORDS)]
    assert found == [
        ("dense", None, 1),
        ("pensia", None, 2),
        ("edge-popup-gadget", 0.01, 2),
        ("edge-popup-gadget", 0.1, 2),
        ("edge-popup-gadget", 0.5, 2),
    ]
    assert rows(RECORDS)[2].mean("accuracy") == pytest.approx(0.505)


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits_the_terminal_and_cuts_nothing(width: int) -> None:
    console = Console(width=width)
    large = dataclasses.replace(
        PENSIA,
        source_weights=16_674_000,
        kept_weights=3_725_871,
        target_weights=397_000,
        within_tolerance=397_000,
        ticket_bytes=2_084_600,
    )
    with console.capture() as capture:
        console.print(*tables([*RECORDS, large], width=width))
    text = capture.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "95.0 to 98.0" in text
    assert text.count("edge-popup-gadget") == (9 if width == 80 else 3)


def test_the_table_shows_the_worst_seed_of_the_verifier() -> None:
    assert [row.within() for row in rows(RECORDS)[:3]] == [DASH, "2,367", DASH]
    assert rows([PENSIA])[0].within() == "all"


def test_bounds_of_the_output_are_shown_where_there_are_any() -> None:
    bounded = dataclasses.replace(PENSIA, output_bound=0.5)
    grid = tables([DENSE, bounded, dataclasses.replace(bounded, seed=1, output_bound=0.75)], width=300)[0]
    (column,) = (each for each in grid.columns if each.header == "bound\n|f-g|")
    assert list(column.cells) == [DASH, "0.75"]
    assert all(each.header != "bound\n|f-g|" for each in tables(RECORDS, width=300)[0].columns)


def test_bits_stand_beside_those_of_plain_rounding() -> None:
    counted = dataclasses.replace(PENSIA, bits_per_target_weight=3.456, rounding_bits_per_target_weight=1.734)
    learned = dataclasses.replace(PENSIA, method="edge-popup", bits_per_target_weight=2.5)
    grid = tables([DENSE, counted, learned], width=300)[0]
    cells = {str(column.header): list(column.cells) for column in grid.columns}
    assert cells["bits /\ntarget"] == [DASH, "3.46", "2.50"] and cells["rounding\nbits"] == [DASH, "1.73", DASH]


def test_methods_of_a_comparison_of_all_are_told_apart() -> None:
    """A method of one point has no line, so colour and marker must do."""
    assert len({_style(place) for place in range(49)}) == 49
    assert tuple(map(_style, range(len(STYLES)))) == STYLES


def test_the_figure_is_a_png_of_the_stated_size() -> None:
    for records in (RECORDS, [DENSE], []):
        picture = figure(records)
        assert picture.startswith(b"\x89PNG")
        assert struct.unpack(">II", picture[16:24]) == (1200, 720)


def test_the_page_stands_alone_and_says_how_to_reproduce(tmp_path: Path) -> None:
    command = "lottery-jax compare --target 'a<b&c.safetensors'"
    path = write_report(
        tmp_path,
        RECORDS,
        title="digits & <co>",
        configuration={"seeds": [0, 1]},
        command=command,
        methods=METHODS,
    )
    text = path.read_text(encoding="utf-8")
    reader = Reader(text)
    assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    assert len(reader.addresses) == 2
    assert "<co>" not in text
    for expected in (
        command,
        "digits & <co>",
        "0, 1",
        "0.10.2",
        "cpu",
        "2,367",
        PENSIA.source,
        METHODS["pensia"].about,
        "docs/methods.md",
    ):
        assert expected in reader.texts
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figure.png", "report.html"]
