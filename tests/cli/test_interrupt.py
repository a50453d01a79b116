"""Ctrl-C and SIGTERM end a command at once, says what is kept, and costs nothing of it."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.calling import MODEL, Word, as_process, matrices, own_data

MOST_SECONDS = 2.0
SERIAL = "from lottery_jax.cli import main; main()"
HEARD = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {SERIAL}"
"""A shell has the interrupts of what runs in its background ignored, and these tests may run there."""


def interrupted(*words: Word, after: float, number: signal.Signals = signal.SIGINT) -> tuple[int, str, float] | None:
    """Exit code, stderr and seconds of a command that is interrupted; None where it ended before."""
    command = [sys.executable, "-c", HEARD, *map(str, words)]
    with subprocess.Popen(command, env=as_process(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        time.sleep(after)
        if ran.poll() is not None:
            return None
        start = time.monotonic()
        ran.send_signal(number)
        _, said = ran.communicate(timeout=60)
        seconds = time.monotonic() - start
        # It may have been over in the moment between the two calls.
        return None if ran.returncode == 0 and seconds < 0.5 else (ran.returncode, said, seconds)


def whole(*words: Word) -> str:
    command = [sys.executable, "-c", SERIAL, *map(str, words)]
    return subprocess.run(command, env=as_process(), capture_output=True, text=True, check=True).stdout


def results(printed: str) -> list[dict]:
    """Records but for what differs from run to run."""
    rows = [json.loads(line) for line in printed.splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("presses", [20])
def test_at_random_moments_of_a_comparison(presses: int, tmp_path: Path) -> None:
    target = matrices(tmp_path / "target.safetensors", **{"fc1.weight": (3, 4), "fc2.weight": (2, 3)})
    asked = ("compare", "--data", own_data(tmp_path / "mine.npz"), "--target", target, "--tolerance", 0.2)
    asked = (*asked, "--candidates", 8, "--seeds", 0, 1)
    asked = (*asked, "--methods", "dense", "random", "edge-popup-wide")
    asked = (*asked, "--keeps", 0.2, 0.5, "--epochs", 3, "--json", "--out")
    chance, folders, pressed = random.Random(0), [tmp_path / "stopped"], 0
    while pressed < presses:
        ended = interrupted(*asked, folders[-1], after=chance.uniform(0.3, 4.0))
        if ended is None:
            folders.append(tmp_path / f"stopped{len(folders)}")
            continue
        code, said, seconds = ended
        pressed += 1
        assert code == 130 and seconds < MOST_SECONDS, said
        assert said.splitlines()[-1].startswith("lottery-jax: stopped; ") and "Traceback" not in said
    expected = results(whole(*asked, tmp_path / "whole"))
    assert all(results(whole(*asked, folder)) == expected for folder in folders)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("presses", [1, 20])
def test_at_random_moments_of_an_approximation(presses: int, number: signal.Signals, tmp_path: Path) -> None:
    """The last words are true: chunks that it says are kept are found, and where it says so nothing is left."""
    shapes = {f"layer{place:03d}": (8, 8) for place in range(400)}
    model, chance = matrices(tmp_path / "model.safetensors", **shapes), random.Random(1)
    asked = ("approximate", "--model", model, *MODEL, "--out")
    stopped, chunks = tmp_path / "stopped", tmp_path / "stopped.chunks"
    for _ in range(presses):
        before = len(list(chunks.glob("chunk-*")))
        ended = interrupted(*asked, stopped, after=chance.uniform(0.3, 5.0), number=number)
        if ended is None:
            stopped.unlink()
            continue
        code, said, seconds = ended
        assert code == 128 + number and seconds < MOST_SECONDS and "Traceback" not in said
        assert len(said.splitlines()) == 1, said
        kept = len(list(chunks.glob("chunk-*")))
        if counted := re.findall(r"(\d+) finished chunk", said):
            assert 0 < int(counted[0]) <= kept
        elif "is written" in said:
            stopped.unlink()
        else:
            assert "stopped; nothing was " in said and kept == before and not stopped.exists()
            assert chunks.exists() == (before > 0)
    whole(*asked, stopped)
    whole(*asked, tmp_path / "whole")
    assert stopped.read_bytes() == (tmp_path / "whole").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "stopped", "whole"}


@pytest.mark.clock
def test_a_command_that_shall_not_hear_it_goes_on(tmp_path: Path) -> None:
    """As under nohup, where whoever started it has its interrupts ignored."""
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SERIAL}"
    command = [sys.executable, "-c", program, "verify", "nowhere"]
    with subprocess.Popen(command, env=as_process(), stderr=subprocess.PIPE, cwd=tmp_path) as ran:
        time.sleep(0.3)
        ran.send_signal(signal.SIGINT)
        assert ran.wait(60) == 2
