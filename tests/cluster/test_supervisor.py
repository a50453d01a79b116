"""The supervisor of a process that shares a job: how it says what became of the worker."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from lottery_jax.cluster import supervisor

WORKERS = {
    "import sys; sys.exit(2)": (2, ""),
    "import os; os.abort()": (3, "another process of this job died"),
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": (137, "ended by SIGKILL"),
}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a worker runs."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lottery_jax.py"


@pytest.mark.parametrize("worker", WORKERS)
def test_it_says_how_a_worker_ended(worker: str, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.write_text(worker)
    code, words = WORKERS[worker]
    assert supervisor.supervise([]) == code
    assert words in capsys.readouterr().err


def test_signals_are_handed_on(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.write_text("import pathlib, time; pathlib.Path('ready').touch(); time.sleep(60)")
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        while not program.with_name("ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    assert supervisor.supervise([]) == 128 + signal.SIGTERM
    assert "ended by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
