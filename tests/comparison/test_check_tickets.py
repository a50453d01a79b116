"""A record is held to its ticket: what is missing, changed or not as recorded is said; and no record is a traceback."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery_jax import compare, load_task
from lottery_jax.comparison.records import PendingRecords, Record, read_records
from lottery_jax.comparison.registry import all_methods
from lottery_jax.comparison.report import figure, tables, write_report
from lottery_jax.errors import InputError
from lottery_jax.io.files import file_digest
from tests.cli.calling import lottery_jax, own_data, refusal
from tests.comparison.test_records import record
from tests.comparison.test_report import PENSIA
from tests.tickets.forging import forge, read

pytestmark = pytest.mark.usefixtures("plain_figure")

OPTIONS = ("--methods", "dense", "pensia", "scalar", "random", "--seeds", 0, "--candidates", 8, "--tolerance", 0.3)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison."""
    folder = tmp_path_factory.mktemp("compared")
    own_data(folder / "data.npz")
    words = ("--data", folder / "data.npz", "--architecture", "mlp-3", "--out", folder / "runs", "--quiet")
    assert lottery_jax("compare", *OPTIONS, *words) == 0
    return folder


@pytest.fixture
def run(compared: Path, tmp_path: Path) -> Path:
    """A copy of its run folder."""
    (folder,) = (compared / "runs").iterdir()
    copied = tmp_path / "runs" / folder.name
    for path in folder.rglob("*"):
        if path.is_file():
            place = copied / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return copied


def words(compared: Path, run: Path) -> tuple:
    return (*OPTIONS, "--data", compared / "data.npz", "--architecture", "mlp-3", "--out", run.parent)


def rewrite(run: Path, change: Callable[[dict], Any]) -> None:
    """Change the records of a run folder as an attacker would."""
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    for row in rows:
        change(row)
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_honest_tickets_are_as_recorded(compared: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lottery_jax("compare", *words(compared, run), "--check", "--quiet") == 0
    assert capsys.readouterr().out == "".join(
        f"{name}-seed0: {outcome}, as recorded\n"
        for name, outcome in (("pensia", "holds"), ("scalar", "holds"), ("random", "no guarantee"))
    )
    for row in read_records(run / "records.jsonl").values():
        path = run / "tickets" / f"{row.method}-seed0.safetensors"
        assert row.ticket_sha256 == (None if row.method == "dense" else file_digest(path))
    assert "Each ticket is the file that was measured" in (run / "report.html").read_text()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    task = load_task(str(compared / "data.npz"), architecture="mlp-3")
    found = compare(task, ["scalar"], seeds=(0,), candidates=8, tolerance=0.3, epochs=10, out=run.parent, check=True)
    assert found.folder == run and found.faults == {} and found.report is None and len(found) == 4
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_folder_without_records_is_refused(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(compared, tmp_path / "other" / "run")
    assert "has no records to check" in refusal(capsys, 2, "compare", *asked, "--check", "--quiet")


def delete(run: Path) -> None:
    (run / "tickets" / "scalar-seed0.safetensors").unlink()


def exchange(run: Path) -> None:
    """A valid ticket of another method."""
    content = (run / "tickets" / "random-seed0.safetensors").read_bytes()
    (run / "tickets" / "scalar-seed0.safetensors").write_bytes(content)


def flip(run: Path) -> None:
    path = run / "tickets" / "scalar-seed0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


@pytest.mark.parametrize(
    ("fault", "words_of_fault", "checked"),
    [
        (delete, "is missing", "is missing"),
        (exchange, "was changed after it was recorded", "has the outcome no guarantee, and holds in its record"),
        (flip, "was changed after it was recorded", "is refused: "),
    ],
)
def test_missing_and_changed_tickets_are_named_everywhere(
    fault: Callable[[Path], None],
    words_of_fault: str,
    checked: str,
    compared: Path,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault(run)
    expected = f"the ticket {words_of_fault}: scalar-seed0"
    assert lottery_jax("status", run) == 0
    assert expected in capsys.readouterr().out
    assert lottery_jax("status", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ticket_faults"] == {"scalar-seed0": words_of_fault}
    assert lottery_jax("compare", *words(compared, run)) == 0
    assert f"{expected}; compare --check verifies all tickets again" in capsys.readouterr().err
    assert f"{expected[0].upper()}{expected[1:]}." in (run / "report.html").read_text()
    assert lottery_jax("compare", *words(compared, run), "--check", "--json", "--quiet") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ticket"] for row in rows] == ["dense-seed0", "pensia-seed0", "scalar-seed0", "random-seed0"]
    assert [bool(row["fault"]) for row in rows] == [False, False, True, False] and checked in rows[2]["fault"]


LIES: dict[str, Callable[[dict], Any]] = {
    "kept_weights": lambda row: row.update(kept_weights=1),
    "accuracy": lambda row: row.update(accuracy=row["accuracy"] - 0.01),
    "agreement": lambda row: row.update(agreement=row["agreement"] - 0.01),
    "worst_residual": lambda row: row.update(worst_residual=1e-9),
    "within_tolerance": lambda row: row.update(within_tolerance=None),
    "outcome": lambda row: row.update(outcome="broken"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_record_that_its_ticket_does_not_give_is_named(
    name: str, compared: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digest is right: whoever changes a record can also write that."""
    rewrite(run, lambda row: LIES[name](row) if row["method"] == "scalar" else None)
    assert lottery_jax("compare", *words(compared, run), "--check", "--quiet") == 1
    said = capsys.readouterr().out
    assert f"scalar-seed0: the ticket has the {name.replace('_', ' ')} " in said and "random-seed0: no guar" in said


def test_a_ticket_that_is_changed_with_its_record_is_refused_or_seen(
    compared: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "tickets" / "scalar-seed0.safetensors"
    header, tensors = read(path)
    tensors["mask.fc1.weight"] ^= 1
    forge(path, header, tensors)
    rewrite(run, lambda row: row.update(ticket_sha256=file_digest(path)) if row["method"] == "scalar" else None)
    assert lottery_jax("status", run) == 0
    assert "the ticket" not in capsys.readouterr().out
    assert lottery_jax("compare", *words(compared, run), "--check", "--quiet") == 1
    assert "scalar-seed0: the ticket has the outcome broken, and holds in its record" in capsys.readouterr().out


def test_records_of_an_older_version_have_no_digest(
    compared: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(run, lambda row: row.pop("ticket_sha256"))
    assert lottery_jax("status", run) == 0
    assert (
        "the ticket has no digest in its record of an older version: pensia-seed0, scalar-seed0, random"
        in capsys.readouterr().out
    )
    assert lottery_jax("compare", *words(compared, run), "--check", "--quiet") == 0
    assert "scalar-seed0: holds, as recorded" in capsys.readouterr().out


ODD = (
    None,
    True,
    -1,
    3,
    2**70,
    10**400,
    0.5,
    -1e300,
    math.inf,
    math.nan,
    "",
    "a/b",
    "x\n\x1b[1m[b]$_{",
    [],
    [1],
    {},
    {"a": 1},
)
FIELDS = [field.name for field in dataclasses.fields(Record)]


@pytest.mark.parametrize("name", FIELDS)
def test_no_type_of_a_field_is_a_traceback(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every field with every odd value: refused with the line's number, or shown in table, page and status."""
    folder, accepted = tmp_path / "run", 0
    folder.mkdir()
    (folder / "configuration.json").write_text("{}")
    for value in ODD:
        row = json.loads(PENSIA.to_json()) | {name: value}
        text = json.dumps(row)
        (folder / "records.jsonl").write_text(f"{text}\n")
        try:
            (found,) = read_records(folder / "records.jsonl").values()
        except InputError as error:
            assert "line 1 of " in str(error) and name in str(error)
            refusal(capsys, 2, "status", folder)
            continue
        accepted += 1
        assert type(getattr(found, name)) is type(value) and "/" not in found.method
        (label,) = {found.method}
        methods = all_methods() | {label: next(iter(all_methods().values()))}
        for width in (80, 300):
            assert tables([found], width=width)
        page = write_report(folder, [found], title="t", configuration={}, command="c", methods=methods).read_text()
        assert all(line.isprintable() for line in page.split("\n")) and "[1m[b]" not in page.replace("\\x1b[1m[b]", "")
        assert lottery_jax("status", folder) == 0
        assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))
        if name in ("method", "kept_weights", "accuracy", "target_weights", "trained"):
            with np.errstate(all="ignore"):
                figure([found])
    assert accepted >= 1
    PendingRecords(folder / "records").write(record().key, record())
    (path,) = (folder / "records").iterdir()
    path.write_text(json.dumps(json.loads(record().to_json()) | {"accuracy": []}) + "\n")
    assert PendingRecords(folder / "records").read(record().key) is None
