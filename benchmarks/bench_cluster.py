"""Overhead of a local cluster of Dask: its start and end, units of no work, a job by one process and by two workers.

Command: python benchmarks/bench_cluster.py                  (jobs of a minute and more)
         python benchmarks/bench_cluster.py --quick          (small jobs, to test the script)
         python benchmarks/bench_cluster.py --before FOLDER  (also two processes of a checkout before version 0.4)
Cost: about half an hour on two CPU cores (ten minutes with --rounds 1).

Goals: starting and ending a cluster at most 5 s; 10,000 units of no work in at most 30 s; two workers on two cores at
most 1.1 times the time of one process; with one of two workers slowed fourfold at most 1.25 times what the free cores
could do. The slow worker is stopped for three quarters of the time. A core and a quarter are then free, so that the job
could take 2 / 1.25 = 1.6 times as long.

Everything is compiled before. Times are of whole commands, starting Python and loading included: medians of rounds
that take turns.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lottery_jax import environment
from lottery_jax.workers.executors import run_units
from lottery_jax.workers.units import Unit

UNITS = 10_000
METHODS = ("dense", "pensia", "random", "edge-popup-wide", "iterative-magnitude", "snip")
STOPPED = 0.75  # of the time, in turns of
TURN = 0.2  # seconds


def no_work() -> None:
    """A unit of no work."""


def units_of_no_work(count: int) -> dict:
    """Start a cluster of two workers, run units, end it."""
    from lottery_jax.workers.dask_cluster import local_cluster

    start = time.perf_counter()
    with local_cluster(2) as client:
        run_units([Unit("first", no_work)], executor=client)
        started = time.perf_counter()
        run_units([Unit(f"unit {number}", no_work) for number in range(count)], executor=client)
        run = time.perf_counter()
    return {"units": count, "start_s": started - start, "units_s": run - started, "end_s": time.perf_counter() - run}


def command(words: Sequence[str], *, before: Path | None = None) -> subprocess.Popen:
    """Start a command of this checkout, or of another one."""
    paths = {} if before is None else {"PYTHONPATH": str(before)}
    return subprocess.Popen(
        [sys.executable, "-m", "lottery_jax", *words, "--quiet", "--json"],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **paths},
        cwd=before,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def one_process(words: Sequence[str]) -> list[subprocess.Popen]:
    """A command without workers."""
    return [command(words)]


def two_workers(words: Sequence[str]) -> list[subprocess.Popen]:
    """A command with two workers."""
    return [command([*words, "--workers", "2"])]


def two_processes_before(words: Sequence[str], before: Path) -> list[subprocess.Popen]:
    """Two processes that meet, as before version 0.4."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--coordinator", address, "--processes", "2", "--process"]
    return [command([*words, *options, str(process)], before=before) for process in range(2)]


def slow_down_a_worker(client: subprocess.Popen) -> None:
    """Stop one of the workers of a command for most of the time, until the command ends."""
    worker = None
    while client.poll() is None:
        if worker is None:
            found = subprocess.run(["pgrep", "-f", "-P", str(client.pid), "spawn_main"], capture_output=True, text=True)
            workers = found.stdout.split()
            worker = int(workers[-1]) if len(workers) == 2 else None
            time.sleep(TURN)
            continue
        for number, seconds in ((signal.SIGSTOP, STOPPED * TURN), (signal.SIGCONT, (1 - STOPPED) * TURN)):
            try:
                os.kill(worker, number)
            except ProcessLookupError:
                return
            time.sleep(seconds)


def run(processes: Sequence[subprocess.Popen], *, slowed: bool = False) -> float:
    """Seconds until the processes of a command end; exits if one fails."""
    start = time.perf_counter()
    if slowed:
        threading.Thread(target=slow_down_a_worker, args=(processes[0],), daemon=True).start()
    errors = [process.communicate(timeout=3000)[1] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("\n".join(["the job failed:", *errors]))
    return time.perf_counter() - start


def job(
    name: str, words: Callable[[str], list[str]], clear: Callable[[], None], rounds: int, before: Path | None
) -> dict:
    """The same job by one process and by two workers, unslowed and with one of two slowed."""
    ways: dict[str, Callable[[list[str]], float]] = {
        "one_process": lambda words: run(one_process(words)),
        "two_workers": lambda words: run(two_workers(words)),
        "one_of_them_slowed": lambda words: run(two_workers(words), slowed=True),
    }
    if before is not None:
        ways["two_processes_before"] = lambda words: run(two_processes_before(words, before))
    run(two_workers(words(f"{name}-first")))  # compiles
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, measured in ways.items():
            clear()
            seconds[way].append(measured(words(f"{name}-{way}{number}")))
            print(f"{name}: {way} {seconds[way][-1]:.1f} s", flush=True)
    middle = {way: statistics.median(found) for way, found in seconds.items()}
    free = 2 / (1 + (1 - STOPPED))
    return {
        "job": name,
        **{f"{way}_s": found for way, found in middle.items()},
        "all_seconds": seconds,
        "two_over_one": middle["two_workers"] / middle["one_process"],
        "slowed_over_free_cores": middle["one_of_them_slowed"] / (free * middle["two_workers"]),
    }


def model(path: Path, tensors: int, size: int) -> Path:
    """A file of square normal tensors."""
    normal = np.random.default_rng(0)
    save_file({f"layer{k:03d}": normal.normal(0, 0.1, (size, size)).astype(np.float32) for k in range(tensors)}, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Overhead of a local cluster of Dask.")
    parser.add_argument("--quick", action="store_true", help="small jobs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="checkout of a version before 0.4")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cluster_cpu.json")
    arguments = parser.parse_args()
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    result = {"device": environment.device(), "versions": environment.versions()}
    result["units_of_no_work"] = units_of_no_work(1000 if quick else UNITS)
    print(result["units_of_no_work"], flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder, tensors, size = Path(name), 1 if quick else 24, 256 if quick else 1000
        file = model(folder / "model.safetensors", tensors, size)
        candidates = ["--candidates", "12" if quick else "21", "--tolerance", "0.5" if quick else "0.01"]
        tuned = ["--seeds", "0"] if quick else ["--seeds", "0", "1", "2", "--tune", "0.3", "1", "3"]
        epochs = ["--epochs", "2"] if quick else ["--epochs", "60"]

        def approximate(out: str) -> list[str]:
            return ["approximate", "--model", str(file), *candidates, "--out", str(folder / out)]

        def compare(out: str) -> list[str]:
            return ["compare", "--data", "digits", "--methods", *METHODS, *tuned, *epochs, "--out", str(folder / out)]

        def clear() -> None:
            for path in folder.glob("approximate-*"):
                path.unlink()

        result["jobs"] = [
            {"weights": tensors * size**2, **job("approximate", approximate, clear, rounds, arguments.before)},
            job("compare", compare, clear, rounds, arguments.before),
        ]
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["jobs"]:
        print({key: value for key, value in row.items() if key != "all_seconds"})
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
