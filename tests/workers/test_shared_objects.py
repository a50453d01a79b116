"""An object in the folder of a job is the one that was written, or one sentence with the host."""

import dataclasses
import sys
from pathlib import Path

import pytest

from lottery_jax.errors import InputError
from lottery_jax.workers import shared_objects
from lottery_jax.workers.shared_objects import SharedObject


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedObject:
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    monkeypatch.setattr("lottery_jax.io.files.VISIBILITY_TIMEOUT", 0.0)
    return SharedObject.write({"a": 1}, tmp_path / "job")


def test_it_is_read_once(shared: SharedObject) -> None:
    assert shared.load() == {"a": 1} and shared.load() is shared.load()
    again = SharedObject.write([2], shared.path.parent)
    assert list(again.path.parent.iterdir()) == [again.path] and again.load() == [2]
    again.remove()
    assert not again.path.exists()


def test_other_content_versions_and_folders_are_refused(shared: SharedObject) -> None:
    versions = {**shared.versions, "version of jax": "0.0.1"}
    cases = {
        dataclasses.replace(
            shared, versions=versions
        ): r"^version of jax is \S+ here and 0.0.1 on node7; install the same",
        dataclasses.replace(
            shared, path=shared.path / "x"
        ): "of node7 is not visible here; name a folder that all hosts see",
        dataclasses.replace(shared, digest="0"): "is not the file that node7 wrote; start the command again",
    }
    for other, words in cases.items():
        with pytest.raises(InputError, match=words):
            other.load()
    shared.path.write_bytes(b"c__builtin__\nexit\n.")  # it would end this process
    with pytest.raises(InputError, match="is not the file"):
        shared.load()


def test_without_cloudpickle_it_is_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    assert shared_objects._pickler().__name__ == "pickle" and SharedObject.write(3, tmp_path).load() == 3
