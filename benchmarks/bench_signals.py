"""Time until a job of two processes ends after SIGTERM at random moments, and a check that no result is lost.

Command: python benchmarks/bench_signals.py [--signals 20 --seed 0 --jobs approximate compare]
Cost: about ten minutes on two CPU cores. Two processes that meet over loopback share the chunks of a model of 256
small tensors, or a comparison of six methods on the digits. SIGTERM comes to both, as from `scancel`, at a moment drawn
uniformly from 0.3 s to what a whole run takes; the next start resumes. A run that had finished before is not
counted, and the job is started again.

Goals: each process ends within 5 s with exit code 143; its result is that of an undisturbed run: the ticket, or all
tickets and records except their seconds, byte for byte.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import METHODS, ended, model, started, write

from lottery_jax import environment

MOST_SECONDS = 5.0
TENSORS, SIZE = 256, 64


@dataclass(frozen=True)
class Job:
    """A command without its --out; made: its result, None if unfinished; parts: number of finished units."""

    words: list[str]
    made: Callable[[Path], Any]
    parts: Callable[[Path], int]

    def start(self, out: Path) -> list[subprocess.Popen]:
        """Both processes."""
        return started([*self.words, "--out", str(out)], 2)

    def whole(self, out: Path) -> float:
        """Seconds of an undisturbed run."""
        began = time.monotonic()
        ended(self.start(out))
        return time.monotonic() - began

    def stopped(self, out: Path, after: float) -> dict | None:
        """Exit codes, seconds and last words of both after a signal; None where one was over before."""
        pair = self.start(out)
        time.sleep(after)
        over = any(process.poll() is not None for process in pair)
        began, seconds, said = time.monotonic(), [0.0, 0.0], ["", ""]

        def wait(place: int) -> None:
            said[place] = pair[place].communicate(timeout=600)[1]
            seconds[place] = time.monotonic() - began

        for process in pair:
            if not over:
                process.send_signal(signal.SIGTERM)
        waiting = [threading.Thread(target=wait, args=(place,)) for place in (0, 1)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        codes = [process.returncode for process in pair]
        if 0 in codes:
            if self.made(out) is not None:
                return None
            there = [str(path.relative_to(out)) for path in sorted(out.rglob("*"))]
            raise SystemExit("\n".join(["a process ended well, and nothing was made:", *said, *there]))
        words = [lines[-1].replace(str(out), out.name) if (lines := each.splitlines()) else "" for each in said]
        return {
            "after_s": after,
            "exit_codes": codes,
            "seconds": seconds,
            "parts_there": self.parts(out),
            "last_words": words,
        }


def comparison(out: Path) -> Any:
    """Tickets by name, and records but for seconds, of a run folder that has its report."""
    folders = [path.parent for path in out.glob("*/report.html")]
    if not folders or [path for name in ("records", "unfinished") for path in folders[0].glob(name)]:
        return None
    rows = [json.loads(line) for line in (folders[0] / "records.jsonl").read_text().splitlines()]
    records = [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]
    return records, {path.name: path.read_bytes() for path in (folders[0] / "tickets").iterdir()}


def remove(out: Path) -> None:
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)


def measure(job: Job, folder: Path, signals: int, chance: random.Random) -> dict:
    """Send signals, and measure each stop."""
    out, peace = folder / "stopped", folder / "whole"
    job.whole(folder / "first")  # compiles
    undisturbed = job.whole(peace)
    expected = job.made(peace)
    before = {path.name for path in folder.iterdir()}
    rows: list[dict] = []
    finished: list[bool] = []  # whether what each job came to is that of the run left in peace
    while len(rows) < signals:
        row = job.stopped(out, chance.uniform(0.3, undisturbed))
        if row is None:
            finished.append(job.made(out) == expected)
            remove(out)
            continue
        rows.append(row)
        print(f"{len(rows):3} " + json.dumps(row), flush=True)
    if job.made(out) is None:
        job.whole(out)
    finished.append(job.made(out) == expected)
    left = {path.name for path in folder.iterdir()} - before
    remove(out)
    good = [row["exit_codes"] == [143, 143] and max(row["seconds"]) <= MOST_SECONDS for row in rows]
    return {
        "job": job.words[0],
        "undisturbed_s": undisturbed,
        "signals": len(rows),
        "both_143_within_5_s": sum(good),
        "worst_seconds": max(max(row["seconds"]) for row in rows),
        "jobs_finished": len(finished),
        "jobs_identical": sum(finished),
        "left_over": sorted(left - {out.name}),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="SIGTERM at random moments of a job of two processes.")
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=["approximate", "compare"], default=["approximate", "compare"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "signals_cpu.json")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    result: dict[str, Any] = {"device": environment.device(), "versions": environment.versions(), "jobs": []}
    with tempfile.TemporaryDirectory() as name:
        file = model(Path(name) / "model.safetensors", TENSORS, SIZE, arguments.seed)
        jobs = {
            "approximate": Job(
                ["approximate", "--model", str(file), "--candidates", "8", "--tolerance", "0.5"],
                lambda out: out.read_bytes() if out.is_file() else None,
                lambda out: len(list(out.with_name(f"{out.name}.chunks").glob("chunk-*"))),
            ),
            "compare": Job(
                ["compare", "--data", "digits", "--methods", *METHODS, "--seeds", "0", "1", "--epochs", "10"],
                comparison,
                lambda out: len(list(out.glob("*/records/*.json"))),
            ),
        }
        for kind in arguments.jobs:
            folder = Path(name) / kind
            folder.mkdir()
            result["jobs"].append(measure(jobs[kind], folder, arguments.signals, chance))
    write(result, arguments.out, without="rows")


if __name__ == "__main__":
    main()
