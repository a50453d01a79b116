"""The supervisor of a process that shares a job: how it says what became of the worker."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from lottery_jax.workers import supervisor

WORKERS = {
    "import sys; sys.exit(2)": (2, ""),
    "import os; os.abort()": (3, "not all processes joined"),
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
    assert supervisor.supervise([sys.executable, "-m", "lottery_jax"]) == code
    assert words in capsys.readouterr().err


def test_a_worker_that_loses_process_0_is_started_again(
    program: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had joined; what comes after it does as well, and comes to its end."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(supervisor.__file__).parents[2]}")
    (program.with_name("worker.py")).write_text(
        "import os, sys\n"
        "from lottery_jax.workers import supervisor\n"
        "assert supervisor.follow()\n"
        "supervisor.joined()\n"
        "if supervisor.AGAIN not in os.environ: os.abort()\n"
        "sys.exit(7)\n"
    )
    assert supervisor.supervise([sys.executable, str(program.with_name("worker.py"))]) == 7
    assert capsys.readouterr().err == (
        "lottery-jax: process 0 is lost (see JAX's message above); waiting for it to come back\n"
    )


READY = "pathlib.Path('ready').touch(); time.sleep(60)"
DEAF = f"import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}"
"""As where the main thread holds Python in a driver's call."""
LOST = "import sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"
"""Another process of the job has ended a moment before, and this one has noticed."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("worker", [READY, f"{LOST}; {READY}", DEAF])
@pytest.mark.clock
def test_signals_are_handed_on(
    number: signal.Signals,
    worker: str,
    program: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that does not end is killed; the exit code is that of the signal, however it ended."""
    monkeypatch.setattr(supervisor, "_GRACE", 0.3)
    program.write_text(f"import pathlib, signal, time; {worker}")
    before = signal.signal(number, signal.default_int_handler)

    def stop() -> None:
        while not program.with_name("ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    try:
        assert supervisor.supervise([sys.executable, "-m", "lottery_jax"]) == 128 + number
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"stopped by {number.name}; finished work is kept: start" in sentence
