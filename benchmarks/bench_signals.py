"""How soon a job of two processes ends after SIGTERM, at random moments, and whether anything is lost by it.

Command: python benchmarks/bench_signals.py [--signals 20 --seed 0]
Cost: about four minutes on two CPU cores. Two processes that meet over loopback share the chunks of a model of 256
small tensors. SIGTERM comes to both, as from `scancel`, at a moment drawn uniformly from 0.3 s to what a whole run
takes; the next start goes on from there. A run that was over before is not counted, and the job begins anew.

Goals: each process ends within 5 s with exit code 143; the ticket is byte for byte that of a run left in peace.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lottery_jax import environment

MOST_SECONDS = 5.0
TENSORS, SIZE = 256, 64


def start(model: Path, out: Path) -> list[subprocess.Popen]:
    """Both processes of the job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    words = ["approximate", "--model", str(model), "--candidates", "8", "--tolerance", "0.5", "--out", str(out)]
    words += ["--quiet", "--json", "--coordinator", where, "--processes", "2", "--process"]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "lottery_jax", *words, str(number)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]


def whole(model: Path, out: Path) -> float:
    """Seconds of a run that is left in peace."""
    began, pair = time.monotonic(), start(model, out)
    said = [process.communicate(timeout=600)[1] for process in pair]
    if any(process.returncode for process in pair):
        raise SystemExit("\n".join(["the job failed without any signal:", *said]))
    return time.monotonic() - began


def stopped(model: Path, out: Path, after: float) -> dict | None:
    """Exit codes, seconds and last words of both after a signal; None where one was over before."""
    pair = start(model, out)
    time.sleep(after)
    if any(process.poll() is not None for process in pair):
        for process in pair:
            process.communicate(timeout=600)
        return None
    began, seconds, said = time.monotonic(), [0.0, 0.0], ["", ""]

    def wait(place: int) -> None:
        said[place] = pair[place].communicate(timeout=600)[1]
        seconds[place] = time.monotonic() - began

    for process in pair:
        process.send_signal(signal.SIGTERM)
    waiting = [threading.Thread(target=wait, args=(place,)) for place in (0, 1)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    codes = [process.returncode for process in pair]
    if 0 in codes and out.exists():
        return None  # over in the moment between the two calls
    chunks = len(list(out.with_name(f"{out.name}.chunks").glob("chunk-*")))
    words = [lines[-1].replace(str(out), out.name) if (lines := each.splitlines()) else "" for each in said]
    return {"after_s": after, "exit_codes": codes, "seconds": seconds, "chunks_there": chunks, "last_words": words}


def main() -> None:
    parser = argparse.ArgumentParser(description="SIGTERM at random moments of a job of two processes.")
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "signals_cpu.json")
    arguments = parser.parse_args()
    chance, normal = random.Random(arguments.seed), np.random.default_rng(arguments.seed)
    rows: list[dict] = []
    finished: list[bool] = []  # whether each ticket is that of the run left in peace
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, out = folder / "model.safetensors", folder / "stopped.safetensors"
        save_file(
            {f"layer{k:03d}": normal.normal(0, 0.1, (SIZE, SIZE)).astype(np.float32) for k in range(TENSORS)}, model
        )
        whole(model, folder / "first.safetensors")  # compiles
        undisturbed = whole(model, folder / "whole.safetensors")
        expected = (folder / "whole.safetensors").read_bytes()
        while len(rows) < arguments.signals:
            row = stopped(model, out, chance.uniform(0.3, undisturbed))
            if row is None:
                finished.append(out.read_bytes() == expected)
                out.unlink()
                continue
            rows.append(row)
            print(f"{len(rows):3} " + json.dumps(row), flush=True)
        if not out.exists():
            whole(model, out)
        finished.append(out.read_bytes() == expected)
        left = {path.name for path in folder.iterdir()} - {f"{n}.safetensors" for n in ("model", "first", "whole")}
    good = [row["exit_codes"] == [143, 143] and max(row["seconds"]) <= MOST_SECONDS for row in rows]
    result = {
        "device": environment.device(),
        "versions": environment.versions(),
        "undisturbed_s": undisturbed,
        "signals": len(rows),
        "both_143_within_5_s": sum(good),
        "worst_seconds": max(max(row["seconds"]) for row in rows),
        "tickets": len(finished),
        "tickets_identical": sum(finished),
        "left_over": sorted(left - {out.name}),
        "rows": rows,
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print({key: value for key, value in result.items() if key not in ("rows", "versions")})
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
