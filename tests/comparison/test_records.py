"""Records survive being killed half-way, and a key is recorded once."""

import contextlib
import dataclasses
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lottery_jax.comparison.records import Record, append_records, read_records, run_folder
from lottery_jax.errors import InputError
from lottery_jax.io.files import check_writable, write_atomically


def record(method: str = "pensia", seed: int = 0, keep: float | None = None) -> Record:
    return Record(method, "digits", seed, keep, 0.97, 0.95, 0.98, 0.97, 1.0, 1e-3, 2368)


def test_records_come_back_in_order_and_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert list(read_records(path).values()) == []
    append_records(path, [record(seed=1), record(seed=0)])
    append_records(path, [record(seed=0, keep=0.1), dataclasses.replace(record(seed=1), accuracy=0.0)])
    assert list(read_records(path).values()) == [record(seed=1), record(seed=0), record(seed=0, keep=0.1)]


@given(st.integers(min_value=0, max_value=10_000))
def test_a_torn_last_line_is_left_out_and_then_cut_off(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        append_records(path, [record(seed=0), record(seed=1)])
        whole = path.read_bytes()
        cut %= len(whole)
        path.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        assert list(read_records(path).values()) == [record(seed=0), record(seed=1)][:lines]
        append_records(path, [record(seed=2)])
        assert list(read_records(path).values()) == [*[record(seed=0), record(seed=1)][:lines], record(seed=2)]


def test_a_broken_line_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("[]\n")
    with pytest.raises(InputError, match=r"line 1 of .* is not a record: it must be a record in JSON. Remove"):
        read_records(path)


def test_a_later_version_may_add_fields() -> None:
    line = record().to_json().replace("{", '{"novelty": 3, ', 1)
    assert Record.from_json(line) == record()


def test_an_earlier_version_had_fewer() -> None:
    line = record().to_json().replace('"output_bound": null, ', "")
    assert "output_bound" not in line and Record.from_json(line) == record()


def test_no_number_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(record(), max_deviation=float("nan")).to_json()


def test_every_setting_names_another_folder() -> None:
    one, two = {"task": "digits", "tolerance": 0.01}, {"task": "digits", "tolerance": 0.02}
    assert run_folder(Path("runs"), one) != run_folder(Path("runs"), two)
    assert run_folder(Path("runs"), one) == run_folder(Path("runs"), dict(reversed(one.items())))


@contextlib.contextmanager
def tiny_disk() -> Iterator[None]:
    """A limit on file sizes: writing past 1000 bytes fails as it does on a full disk.

    Not a fixture: the limit is the whole process's, and pytest's own output may go to a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'.*runs/deep' cannot be written .*--out"), tiny_disk():
        check_writable(tmp_path / "runs" / "deep")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_records_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_records(path, [record()])
    with pytest.raises(OSError), tiny_disk():
        append_records(path, [record(seed=seed) for seed in range(1, 9)])
    assert list(read_records(path).values()) == [record()]
    assert path.read_bytes().endswith(b"\n")


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(tmp_path / "runs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(InputError, match=r"cannot write '.*report.html'"), tiny_disk():
        write_atomically(path, bytes(5000))
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"
