"""Overhead of sharing work between processes: joining, distributing, a job by one and by two, a slow process.

Command: python benchmarks/bench_cluster.py                  (jobs of a minute and more)
         python benchmarks/bench_cluster.py --quick          (small jobs, to test the script)
Cost: about forty minutes on two CPU cores (thirteen with --rounds 1); two processes meet over loopback.

Goals: joining and leaving at most 5 s; 10,000 units of no work handed out in at most 10 s, the shared folder untouched;
two processes on two cores at most 1.1 times the time of one on two; with one of two slowed fourfold at most 1.25 times
what the free cores could do. Hosts are made of cores here: where one is slowed each process is held to its own core,
and the slow one is stopped for three quarters of the time; a core and a quarter are then free, so that the job could
take 2 / 1.25 = 1.6 times as long as unslowed.

Everything is compiled before. Times are of whole commands, starting Python and loading included, median of rounds that
take turns.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from processes import METHODS, address, ended, model, started, write

from lottery_jax import environment

UNITS = 10_000
STOPPED = 0.75  # of the time, in turns of
TURN = 0.2  # seconds


def member(where: str, processes: int, process: int, units: int, folder: str) -> None:
    """One process of the first two measurements; prints its seconds."""
    from lottery_jax.workers.cluster import Cluster, join
    from lottery_jax.workers.workers import unit_of

    start = time.perf_counter()
    workers: Cluster = join(where, processes=processes, process=process)
    joined = time.perf_counter()
    workers.begin({"job": "none"}, Path(folder))
    before, begun, own = Path(folder).stat().st_mtime_ns, time.perf_counter(), 0
    for number in workers.units("units", units):
        if number is not None:
            own += 1
            workers.done(unit_of("units", number))
    handed, untouched = time.perf_counter(), Path(folder).stat().st_mtime_ns == before
    workers.leave()
    seconds = {"join": joined - start, "units": handed - begun, "leave": time.perf_counter() - handed}
    print(json.dumps({"own": own, "untouched": untouched, **seconds}), flush=True)
    os._exit(0)


def handing_out(units: int) -> dict:
    """Two processes that do nothing."""
    where = address()
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--member", where, "2"]
        pair = [
            subprocess.Popen([*words, str(place), str(units), folder], stdout=subprocess.PIPE, text=True)
            for place in (0, 1)
        ]
        said = [json.loads(process.communicate(timeout=600)[0]) for process in pair]
    if sum(each["own"] for each in said) != units:
        raise SystemExit(f"{units} units were to be handed out, not {said}")
    return {
        "units": units,
        "units_of_each": [each["own"] for each in said],
        "join_s": max(each["join"] for each in said),
        "hand_out_s": max(each["units"] for each in said),
        "leave_s": max(each["leave"] for each in said),
        "folder_untouched": said[0]["untouched"],
    }


class Slowed:
    """A process and its children, stopped for most of the time while the block runs."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process, self._over = process, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            for number, seconds in ((signal.SIGSTOP, STOPPED * TURN), (signal.SIGCONT, (1 - STOPPED) * TURN)):
                children = subprocess.run(
                    ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True
                ).stdout.split()
                for child in children:  # the worker; its supervisor only waits
                    try:
                        os.kill(int(child), number)
                    except ProcessLookupError:
                        return
                time.sleep(seconds)


def run(words: Sequence[str], processes: int, *, pinned: bool = False, slowed: bool = False) -> float:
    """Seconds of a command, by so many processes; pinned: each to a core; slowed: the last one."""
    start, found = time.perf_counter(), started(words, processes, pinned=pinned)
    if slowed:
        with Slowed(found[-1]):
            found[0].wait()
    ended(found)
    return time.perf_counter() - start


def job(name: str, words: Callable[[str], list[str]], clear: Callable[[], None], rounds: int) -> dict:
    """The same job by one process and by two, unslowed and with one of two slowed."""
    ways = {
        "one_process": {"processes": 1},
        "two_processes": {"processes": 2},
        "two_on_a_core_each": {"processes": 2, "pinned": True},
        "one_of_them_slowed": {"processes": 2, "pinned": True, "slowed": True},
    }
    run(words(f"{name}-first"), 2)  # compiles
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, options in ways.items():
            clear()
            seconds[way].append(run(words(f"{name}-{way}{number}"), **options))
            print(f"{name}: {way} {seconds[way][-1]:.1f} s", flush=True)
    middle = {way: statistics.median(found) for way, found in seconds.items()}
    free = 2 / (1 + (1 - STOPPED))
    return {
        "job": name,
        **{f"{way}_s": found for way, found in middle.items()},
        "all_seconds": seconds,
        "two_over_one": middle["two_processes"] / middle["one_process"],
        "slowed_over_free_cores": middle["one_of_them_slowed"] / (free * middle["two_on_a_core_each"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Overhead of sharing work between processes.")
    parser.add_argument("--quick", action="store_true", help="small jobs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--member", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cluster_cpu.json")
    arguments = parser.parse_args()
    if arguments.member:
        where, processes, process, units, folder = arguments.member
        member(where, int(processes), int(process), int(units), folder)
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    result = {"device": environment.device(), "versions": environment.versions()}
    result["handing_out"] = handing_out(1000 if quick else UNITS)
    print(result["handing_out"], flush=True)
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
            {"weights": tensors * size**2, **job("approximate", approximate, clear, rounds)},
            job("compare", compare, clear, rounds),
        ]
    write(result, arguments.out, without="all_seconds")


if __name__ == "__main__":
    main()
