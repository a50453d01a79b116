"""SIGTERM and Ctrl-C end a process of a shared job wherever it is, and the next start makes the same file."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from lottery_jax import load_model
from lottery_jax.approximation import ToleranceObjective, plan_job
from lottery_jax.approximation.job import Job
from lottery_jax.approximation.run import chunk_folder
from lottery_jax.constructions import Scalar
from lottery_jax.errors import InputError
from lottery_jax.workers.cluster import join
from tests.cli.calling import MODEL, Word, as_process, lottery_jax, matrices
from tests.workers.test_cluster import address

MOST_SECONDS = 5.0
TENSORS = 8
HEARD = """
import signal
from lottery_jax.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""The command also where these tests run in the background of a shell, which has interrupts ignored there."""
GUEST = """
import sys, time
from lottery_jax.cluster.join import join
crew = join(sys.argv[1], processes=2, process=1)
for number in crew.units(f"chunks {sys.argv[2]}", int(sys.argv[3])):
    time.sleep(100)
"""
"""Another process of the job, that takes a chunk and never comes to its end."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = {f"layer{place}": (64, 64) for place in range(TENSORS)}
    return matrices(tmp_path_factory.mktemp("model") / "model.safetensors", **shapes)


@pytest.fixture(scope="module")
def alone(model: Path) -> bytes:
    """The ticket that a process alone makes."""
    out = model.with_name("alone")
    assert lottery_jax("approximate", "--model", model, *MODEL, "--out", out) == 0
    return out.read_bytes()


@pytest.fixture(scope="module")
def job(model: Path) -> Job:
    """What the command plans."""
    return plan_job(load_model(model)[0], Scalar(candidates=8), ToleranceObjective(0.5), seed=0)


def started(*words: Word) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *map(str, words)], env=as_process(), stderr=subprocess.PIPE, text=True)


def process(model: Path, out: Path, where: str, number: int = 0) -> subprocess.Popen:
    words = ("approximate", "--model", model, *MODEL, "--out", out)
    return started("-c", HEARD, *words, "--coordinator", where, "--processes", 2, "--process", number)


def end(ran: subprocess.Popen, number: signal.Signals, seconds: float = MOST_SECONDS) -> str:
    """The last words of a process that a signal ends; its exit code is checked, and how long it takes."""
    start = time.monotonic()
    ran.send_signal(number)
    _, said = ran.communicate(timeout=60)
    assert ran.returncode == 128 + number and time.monotonic() - start < seconds, said
    assert "Traceback" not in said
    return said.splitlines()[-1]


def until(there: bool) -> bool:
    time.sleep(0.01)
    return there


@pytest.mark.parametrize("notifier", [True, False])
def test_joining_leaves_a_process_its_signals(notifier: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not a version of JAX can do without its notifier."""
    seen, before = [], signal.getsignal(signal.SIGTERM)

    def initialize(*_: object, **__: object) -> None:
        seen.append(jax.config.jax_enable_preemption_service)  # type: ignore[attr-defined]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    was = jax.config.jax_enable_preemption_service  # type: ignore[attr-defined]
    jax.config.update("jax_enable_preemption_service", notifier)
    try:
        with pytest.raises(InputError, match="cannot be used"):  # it joined no other process
            join("here:1", processes=1, process=0)
        assert seen == [False] and signal.getsignal(signal.SIGTERM) == before
        assert jax.config.jax_enable_preemption_service == notifier  # type: ignore[attr-defined]
    finally:
        jax.config.update("jax_enable_preemption_service", was)
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_it_waits_for_another(
    number: signal.Signals, job: Job, model: Path, alone: bytes, tmp_path: Path
) -> None:
    """It is in a call of JAX's runtime, and JAX would have SIGTERM for itself."""
    out, where = tmp_path / "ticket", address()
    ran, guest = process(model, out, where), started("-c", GUEST, where, job.fingerprint, TENSORS)
    try:
        while not until(len(list(chunk_folder(out).glob("chunk-*"))) == TENSORS - 1):
            assert ran.poll() is None
        time.sleep(0.3)
        said = end(ran, number)
        kept = f"{TENSORS - 1} finished chunks are kept beside {str(out)!r}, and the same command goes on from there"
        assert re.sub(r" process 0 on \S+:", "", said) == f"lottery-jax: stopped; {kept}"
        guest.communicate(timeout=60)  # what process 0 listened at is gone with it
    finally:
        guest.kill()
    assert lottery_jax("approximate", "--model", model, *MODEL, "--out", out) == 0
    assert out.read_bytes() == alone and [path.name for path in tmp_path.iterdir()] == ["ticket"]


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.3, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_the_others_have_not_come(number: signal.Signals, after: float, model: Path, tmp_path: Path) -> None:
    """While it loads, and while it joins."""
    ran = process(model, tmp_path / "ticket", address())
    time.sleep(after)
    assert "stopped" in end(ran, number) and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("victims", [(0, 1), (1, 0), (1,)])
def test_in_the_middle_of_chunks(victims: tuple[int, ...], alone: bytes, model: Path, tmp_path: Path) -> None:
    out, where = tmp_path / "ticket", address()
    pair = [process(model, out, where, number) for number in (0, 1)]
    while not until(any(chunk_folder(out).glob("chunk-*"))):
        assert all(each.poll() is None for each in pair)
    for number in victims:  # as soon as possible after each other
        pair[number].send_signal(signal.SIGTERM)
    try:
        for number in victims:
            end(pair[number], signal.SIGTERM)
    finally:
        for each in pair:
            each.kill()
            each.wait(60)
            assert each.stderr is not None
            each.stderr.close()
    assert not out.exists()
    where = address()
    pair = [process(model, out, where, number) for number in (0, 1)]
    said = [each.communicate(timeout=200)[1] for each in pair]
    assert [each.returncode for each in pair] == [0, 0], said
    assert out.read_bytes() == alone and [path.name for path in tmp_path.iterdir()] == ["ticket"]
