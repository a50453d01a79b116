"""A folder is proved to be writable, also while other processes prove the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from lottery_jax.io import files
from lottery_jax.io.files import check_writable, wait_for_file
from tests.cli.calling import as_process

MANY = """
import sys, pathlib
from lottery_jax.io.files import check_writable
for _ in range(100):
    check_writable(pathlib.Path(sys.argv[1]))
"""


def test_many_processes_prove_it_at_the_same_time(tmp_path: Path) -> None:
    """Each makes the folder for it, and takes it away again."""
    words = [sys.executable, "-c", MANY, str(tmp_path / "runs" / "here")]
    processes = [subprocess.Popen(words, env=as_process(), stderr=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate(timeout=60)[1] for process in processes] == [b""] * 4
    check_writable(tmp_path / "runs" / "here")


def test_a_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "VISIBILITY_TIMEOUT", 0.3)
    assert not wait_for_file(tmp_path / "file")
    (tmp_path / "file").touch()
    assert wait_for_file(tmp_path / "file")
