"""Workers of Dask: the bytes of one process, whichever process is killed, and an end that leaves nothing behind."""

import contextlib
import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lottery_jax.cli.main import run
from lottery_jax.cli.settings import Approximate
from lottery_jax.comparison.api import compare
from lottery_jax.progress import log
from lottery_jax.workers.executors import run_units
from lottery_jax.workers.units import Unit
from tests.cli.calling import MODEL, Word, as_process, lottery_jax, matrices, refusal
from tests.comparison import tiny

pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")  # which Dask needs

MOST_SECONDS = 5.0
COMMAND = """
import signal
from lottery_jax.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
if __name__ == "__main__":
    main()
"""
"""These tests may run in the background of a shell, which ignores interrupts there."""
CHUNKS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = {f"layer{place:03d}.weight": (64, 64) for place in range(CHUNKS)}
    return matrices(tmp_path_factory.mktemp("model") / "model.safetensors", **shapes)


@pytest.fixture(scope="module")
def alone(model: Path) -> bytes:
    """The ticket of one process."""
    out = model.with_name("alone")
    assert lottery_jax("approximate", "--model", model, *MODEL, "--out", out) == 0
    return out.read_bytes()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from lottery_jax.workers.dask_cluster import local_cluster

    with local_cluster(2) as client:
        with warnings.catch_warnings(action="ignore"):
            gc.collect()  # Dask leaves a socket open if another process has the dashboard's usual port
        yield client


class Command:
    """A command in a session of its own, whose workers are its children."""

    def __init__(self, model: Path, out: Path, *words: Word) -> None:
        asked = ("approximate", "--model", model, *MODEL, "--out", out, *words)
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        self.process = subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, asked)], env=as_process(), **pipes)
        self.chunks, self.children = out.with_name(f"{out.name}.chunks"), list[psutil.Process]()

    def until(self, *, chunks: int = 0, children: int = 0) -> None:
        end = time.monotonic() + 120
        while len(list(self.chunks.glob("chunk-*"))) < chunks or len(self.children) < children:
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
            self.children = psutil.Process(self.process.pid).children()

    def kill_worker(self) -> None:
        workers = [child for child in self.children if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        random.choice(workers).kill()

    def ended(self) -> tuple[int, str]:
        """Its exit code and stderr; no child outlives it for long."""
        _, errors = self.process.communicate(timeout=200)
        end = time.monotonic() + MOST_SECONDS
        while alive := list(filter(runs, self.children)):
            assert time.monotonic() < end, alive
            time.sleep(0.01)
        assert not any(word in errors for word in ("Traceback", "distributed", "Warning")), errors
        return self.process.returncode, errors


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def finishes(command: Command, alone: bytes) -> None:
    """It writes the ticket of one process, which is then removed."""
    out = command.chunks.with_suffix("")
    code, errors = command.ended()
    assert code == 0, errors
    assert out.read_bytes() == alone and [path.name for path in out.parent.iterdir()] == [out.name]
    out.unlink()


FEW = pytest.param(1, marks=pytest.mark.clock)


def many(count: int) -> Any:
    return pytest.param(count, marks=pytest.mark.slow)


@pytest.mark.parametrize("kills", [FEW, many(20)])
def test_other_workers_run_the_units_of_a_killed_one(model: Path, alone: bytes, tmp_path: Path, kills: int) -> None:
    for _ in range(kills):
        command = Command(model, tmp_path / "ticket", "--workers", 2)
        command.until(chunks=random.randint(1, CHUNKS // 2))
        command.kill_worker()
        finishes(command, alone)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.5, 1.5, 2.0, 2.5, 3.0, 4.0])
def test_a_worker_is_killed_while_it_starts(model: Path, alone: bytes, tmp_path: Path, after: float) -> None:
    """A cluster that cannot start ends the command in one sentence; later, other workers do the work."""
    command = Command(model, tmp_path / "ticket", "--workers", 2)
    command.until(children=3)
    time.sleep(after)
    with contextlib.suppress(psutil.Error):  # on a fast machine the command has ended
        command.kill_worker()
    code, errors = command.ended()
    if code:
        assert code == 3 and "the workers do not start" in errors.splitlines()[-1]
        command = Command(model, tmp_path / "ticket", "--workers", 2)
    finishes(command, alone)


@pytest.mark.parametrize("kills", [FEW, many(10)])
def test_no_worker_outlives_a_killed_client(model: Path, alone: bytes, tmp_path: Path, kills: int) -> None:
    for _ in range(kills):
        command = Command(model, tmp_path / "ticket", "--workers", 2)
        command.until(chunks=random.randint(1, CHUNKS // 2))
        command.process.kill()
        assert command.ended()[0] == -signal.SIGKILL and len(command.children) == 3
        if kills > 1:
            finishes(Command(model, tmp_path / "ticket", "--workers", 2), alone)


@pytest.mark.parametrize("group", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "after", [None, *(pytest.param(part, marks=pytest.mark.slow) for part in (0.0, 0.4, 1.0, 2.0))]
)
@pytest.mark.clock
def test_a_signal_ends_the_command_and_its_workers(
    model: Path, tmp_path: Path, number: signal.Signals, after: float | None, *, group: bool
) -> None:
    """In the middle of the work, or a time after the first process was started; a terminal signals the whole group."""
    command = Command(model, tmp_path / "ticket", "--workers", 2)
    if after is None:
        command.until(chunks=1)
    else:
        command.until(children=2)
        time.sleep(after)
    start = time.monotonic()
    (os.killpg if group else os.kill)(command.process.pid, number)
    code, errors = command.ended()
    assert code == 128 + number and time.monotonic() - start < MOST_SECONDS
    assert errors.splitlines()[-1].startswith("lottery-jax: stopped; ")


@contextlib.contextmanager
def scheduler(file: Path) -> Iterator[subprocess.Popen]:
    """A scheduler with two workers, as separate commands start them."""
    places = ("--scheduler-file", file, "--no-dashboard")
    commands = [("scheduler", "--host", "127.0.0.1", "--port", 0), *2 * [("worker", "--nthreads", 1)]]
    silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": as_process(), "cwd": file.parent}
    words = [[sys.executable, "-m", "dask", *map(str, (*command, *places))] for command in commands]
    processes = [subprocess.Popen(each, **silent) for each in words]
    try:
        while not file.exists():
            assert processes[0].poll() is None
            time.sleep(0.05)
        yield processes[0]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


@pytest.mark.parametrize("kills", [FEW, many(10)])
def test_a_lost_scheduler_ends_the_command(
    model: Path, alone: bytes, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kills: int
) -> None:
    for _ in range(kills):
        file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
        with scheduler(file) as process:
            command = Command(model, tmp_path / "ticket", "--scheduler-file", file)
            command.until(chunks=random.randint(1, CHUNKS // 2))
            start = time.monotonic()
            process.kill()
            code, errors = command.ended()
        assert code == 3 and time.monotonic() - start < 30, errors
        lost = "the scheduler or its workers are lost; finished units are kept, and the same command resumes"
        assert errors.splitlines()[-1] == f"lottery-jax: {lost}"
        if kills > 1:
            finishes(Command(model, tmp_path / "ticket", "--workers", 2), alone)


def test_a_scheduler_that_does_not_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lottery_jax.workers.dask_cluster._CONNECT_SECONDS", 0.2)
    file = tmp_path / "scheduler.json"
    asked = ("approximate", "--quiet", "--out", tmp_path / "t")
    assert "must be a file that a scheduler wrote" in refusal(capsys, 2, *asked, "--scheduler-file", file)
    for words in (("--scheduler", "tcp://127.0.0.1:9"), ("--scheduler", "what"), ("--scheduler-file", file)):
        file.write_text(json.dumps({"address": "tcp://127.0.0.1:9"}))
        assert "scheduler must be a running Dask scheduler, got" in refusal(capsys, 2, *asked, *words)


def test_without_workers_no_dask_is_imported(model: Path, tmp_path: Path) -> None:
    program = "import sys; from lottery_jax.cli import main\ntry: main(sys.argv[1:])\n"
    program += "except SystemExit as end: sys.exit(end.code or bool({'dask', 'distributed'} & set(sys.modules)))"
    words = ("approximate", "--model", model, *MODEL, "--out", tmp_path / "ticket", "--share", "1/120")
    command = [sys.executable, "-c", program, *map(str, words)]
    assert subprocess.run(command, env=as_process(), capture_output=True, timeout=200).returncode == 0


def test_a_missing_dask_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "lottery_jax.workers.dask_cluster", raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    words = ("approximate", "--model", model, *MODEL, "--out", tmp_path / "ticket", "--workers", 2, "--quiet")
    assert refusal(capsys, 2, *words).startswith("Dask is not installed; install lottery_jax[cluster], or omit")


SPLIT = [
    ({"workers": 0}, "--workers must be 1 or more, got 0"),
    ({"workers": 2, "share": "1/2"}, "--share must be given without --workers"),
    ({"scheduler": "tcp://a:1", "workers": 1}, "--scheduler must be given without --workers"),
    ({"scheduler_file": Path("f"), "join_only": True}, "--join-only must be given without --scheduler-file"),
    ({"share": "1/2", "join_only": True}, "--join-only must be given without --share"),
]


@pytest.mark.parametrize(("options", "words"), SPLIT)
def test_options_that_exclude_each_other(
    options: dict, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Approximate(**options, out=tmp_path / "ticket")) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("old", ["--distributed", "--coordinator=here:1", "--processes", "--process", "--patience"])
def test_an_option_of_before_is_answered_with_the_new_ones(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, 2, "approximate", old, "2")
    assert (
        said.startswith(f"{old.partition('=')[0]} is no longer an option; give --workers N") and "--scheduler" in said
    )


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def state(folder: Path, name: str) -> None:
    """A unit that writes what it runs with."""
    from lottery_jax import environment

    log.warning("unit %s", name)
    tasks = [cores(), *(sorted(os.sched_getaffinity(int(path.name))) for path in Path("/proc/self/task").iterdir())]
    found = {"cores": tasks, "own": environment.cores(), "process": os.getpid()}
    (folder / name).write_text(json.dumps(found))


@pytest.mark.clock
def test_workers_of_a_host_split_its_cores(
    client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """All their threads, and a worker that replaces a killed one; what units log is heard here, once."""

    def found() -> list[dict]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            run_units([Unit(str(n), state, (tmp_path, str(n))) for n in range(20)], executor=client)
        messages = [record.getMessage() for record in caplog.records if record.name == log.name]
        assert sorted(messages) == sorted(f"unit {n}" for n in range(20))
        return [json.loads((tmp_path / str(n)).read_text()) for n in range(20)]

    seen = set[tuple[int, ...]]()
    for _ in range(2):
        for unit in found():
            assert all(each == unit["cores"][0] for each in unit["cores"]) and unit["own"] == len(unit["cores"][0])
            seen.add(tuple(unit["cores"][0]))
        processes = set(client.run(os.getpid).values())
        os.kill(min(processes), signal.SIGKILL)
        end = time.monotonic() + 60
        while len(now := set(client.run(os.getpid, on_error="ignore").values())) < 2 or now == processes:
            assert time.monotonic() < end
            time.sleep(0.1)
    whole = cores()
    assert sorted(sum(seen, ())) == whole if len(whole) > 1 else seen == {tuple(whole)}
    assert capfd.readouterr().err == ""


OWN = """
import dataclasses
from lottery_jax.comparison.methods import RandomMask

@dataclasses.dataclass(frozen=True)
class Mine(RandomMask):
    label = "mine"
"""


@pytest.mark.usefixtures("plain_figure")
def test_a_comparison_with_a_class_of_a_file(client: Any, tmp_path: Path) -> None:
    """Constructions, a method that depends on another, learned masks and trained tickets in one process's bytes."""
    (tmp_path / "own.py").write_text(OWN)
    methods = ("dense", "scalar", "random", "edge-popup-wide", "magnitude-reinit", f"{tmp_path / 'own.py'}:Mine")
    asked: Any = {"seeds": (0,), "keeps": (0.5, 0.9), "tolerance": 0.5, "candidates": 8, "epochs": 1}
    found = []
    for place, executor in (("alone", None), ("shared", client)):
        results = compare(tiny.task(), methods, out=tmp_path / place, executor=executor, **asked)
        rows = [
            {name: value for name, value in json.loads(each.to_json()).items() if not name.endswith("seconds")}
            for each in results
        ]
        tickets = {path.name: path.read_bytes() for path in (results.folder / "tickets").iterdir()}
        found.append((rows, tickets, sorted(path.name for path in results.folder.iterdir())))
    assert found[0] == found[1] and len(found[0][1]) > 6
