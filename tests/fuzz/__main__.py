"""A fuzz of the verifier: mutated and forged tickets with valid digests, each "holds" judged by the float32 network.

Command: python -m tests.fuzz --count 20000
Cost: about 6 minutes on two idle CPU cores for 20,000 tickets.
Goal: no wrong "holds", no traceback, no file beyond 10 s or 2 GiB.
"""

import argparse
import collections
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lottery_jax import environment
from tests.fuzz.originals import ORIGINALS, write_originals
from tests.fuzz.trial import LIMITS, Trial, run_trials

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz_verify_cpu.json"
_BATCH = 2_500  # tickets of one process: compiled programs take memory
_SILENT_S = 60  # after which a process that reports nothing is ended


def main() -> int:
    parser = argparse.ArgumentParser(description="A fuzz of the verifier.")
    parser.add_argument("--count", type=int, default=20_000, help="number of tickets; default 20000")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations; default 0")
    parser.add_argument("--quick", action="store_true", help="300 tickets")
    parser.add_argument("--only", nargs="*", default=(), help="words of which one is in the labels of the originals")
    parser.add_argument("--at", type=int, default=None, help="one ticket, in this process, with its traceback")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the files of bad trials")
    parser.add_argument("--out", type=Path, default=None, help=f"JSON file; default: {RESULTS.name} of a full run")
    parser.add_argument("--worker", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    labels = [label for label in ORIGINALS if not arguments.only or any(word in label for word in arguments.only)]
    if arguments.worker is not None:
        for trial in run_trials(arguments.worker, labels, arguments.seed, arguments.first, arguments.count):
            print(json.dumps(dataclasses.asdict(trial)), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_originals(folder, labels)
        if arguments.at is not None:
            (trial,) = run_trials(folder, labels, arguments.seed, arguments.at, 1, keep=arguments.keep, debug=True)
            print(trial)
            return int(trial.bad)
        start, count = time.perf_counter(), 300 if arguments.quick else arguments.count
        out = arguments.out or (RESULTS if count >= 20_000 and not arguments.only else None)
        results: dict[str, Any] = {}
        for trials in _growing_trials(folder, arguments, labels, count):
            results = summary(trials) | {"seed": arguments.seed, "seconds": time.perf_counter() - start}
            if out is not None:
                out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    return int(any(results["bad"].values()))


def _growing_trials(
    folder: Path, arguments: argparse.Namespace, labels: list[str], count: int
) -> Iterator[list[Trial]]:
    """All trials so far, by processes one after another: a ticket may end its process."""
    trials: list[Trial] = []
    while len(trials) < count:
        first, end = len(trials), min(len(trials) + _BATCH, count)
        trials += _batch(folder, arguments, first, end - first)
        number, judging = len(trials), folder / Trial.JUDGING
        judged = judging.exists() and judging.read_text() == str(number)
        if number < end and (judged or number == first):  # others are tried again, first in a process of their own
            outcome, why = "not judged" if judged else "died", "the process ended or was silent"
            trials.append(Trial(number, labels[number % len(labels)], "", outcome, why, 0.0, 0.0, 0.0))
        print(f"{len(trials):,} of {count:,}: {dict(collections.Counter(t.outcome for t in trials))}", file=sys.stderr)
        yield trials


def _batch(folder: Path, arguments: argparse.Namespace, first: int, count: int) -> list[Trial]:
    """The trials that a new process reports until it ends or is silent."""
    words = ["--worker", folder, "--first", first, "--count", count, "--seed", arguments.seed]
    only = ["--only", *arguments.only] if arguments.only else []
    command = [sys.executable, "-m", "tests.fuzz", *map(str, [*words, *only])]
    log = folder / "stdout"
    with log.open("w") as file:
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL, env={**os.environ, **cache})
        size, changed = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.5)
            if log.stat().st_size != size:
                size, changed = log.stat().st_size, time.monotonic()
            if time.monotonic() - changed > _SILENT_S:
                process.kill()
                process.wait()
    lines = log.read_text().splitlines()
    return [Trial(**json.loads(line)) for line in lines if line.endswith("}")]


def summary(trials: list[Trial]) -> dict[str, Any]:
    """Counts of outcomes, by change and by original, and every bad trial."""
    bad = {name: [t for t in trials if t.outcome == name] for name in Trial.BAD}
    by_change: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    held: collections.Counter = collections.Counter()
    for trial in trials:
        by_change[trial.change][trial.outcome] += 1
        held[trial.label] += trial.outcome in ("holds", "wrong", "vacuous")
    return {
        "tickets": len(trials),
        "limits": LIMITS,
        "bad": {name: len(found) for name, found in bad.items()},
        "outcomes": dict(collections.Counter(t.outcome for t in trials)),
        "outcomes_by_change": {change: dict(counts) for change, counts in sorted(by_change.items())},
        "judged_holds_by_original": dict(held),
        "largest_ratio_of_holds": max((t.ratio for t in trials if t.outcome == "holds"), default=0.0),
        "slowest_s": max((t.seconds for t in trials), default=0.0),
        "most_gib": max((t.gib for t in trials), default=0.0),
        "bad_trials": [dataclasses.asdict(t) for found in bad.values() for t in found[:40]],
        "versions": environment.versions(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
