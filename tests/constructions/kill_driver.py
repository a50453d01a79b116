"""Run a job in forks of this process and kill them at random moments: `python -m tests.constructions.kill_driver`.

Imports are paid once, and every child is a real process that dies by SIGKILL while it solves, writes, merges or
removes its chunks. After each death the files are looked at; what is wrong raises.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from lottery_jax.constructions.model import approximate_model, chunk_folder
from safetensors.numpy import save_file

from lottery_jax.subset_sum.solvers.smallest import Enumerate
from lottery_jax.subset_sum.solver import Solver, Stage


class Nearest(Solver):
    """The best subset of one candidate: what is tested here is the engine, and this compiles quickly."""

    max_candidates = 64

    def stages(self, candidates: int) -> tuple[Stage, ...]:
        return (Enumerate((0, 1)),)

    def __repr__(self) -> str:
        return "Nearest()"


def run(folder: Path, out: Path) -> None:
    finished = approximate_model(
        folder / "model.safetensors",
        out,
        seed=1,
        candidates=6,
        tolerance=0.5,
        solver=Nearest(),
        max_redraws=1,
        chunk_weights=64,
    )
    with (folder / "log").open("a") as log:
        log.write(f"{finished.found} {finished.solved}\n")


def child(folder: Path, out: Path) -> int:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            run(folder, out)
            code = 0
        finally:
            os._exit(code)
    return process


def main(folder: Path, kills: int, seed: int) -> None:
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    rng, random_ = np.random.default_rng(0), random.Random(seed)
    save_file(
        {name: rng.normal(size=(40, 40)).astype(np.float32) for name in "abcd"},
        folder / "model.safetensors",
    )
    weights = 4 * 40 * 40
    assert os.waitpid(child(folder, folder / "reference"), 0)[1] == 0
    reference = (folder / "reference").read_bytes()
    out, chunks = folder / "ticket", chunk_folder(folder / "ticket")
    # How long the work takes from the first chunk on, compilations found in the cache.
    started = child(folder, out)
    wait_for_work(started, out, chunks)
    begin = time.monotonic()
    assert os.waitpid(started, 0)[1] == 0
    seconds = time.monotonic() - begin
    out.unlink()

    killed = complete = interrupted = 0
    while killed < kills:
        before = {path.name: path.stat().st_mtime_ns for path in chunks.glob("chunk-*")} if chunks.exists() else {}
        process = child(folder, out)
        wait_for_work(process, out, chunks, len(before))
        time.sleep(random_.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        after = {path.name: path.stat().st_mtime_ns for path in chunks.glob("chunk-*")} if chunks.exists() else {}
        if not out.exists():
            assert before.items() <= after.items(), "a finished chunk was solved again"
        if os.WIFSIGNALED(status):
            killed += 1
            interrupted += not out.exists()
        if out.exists():
            assert out.read_bytes() == reference, "a ticket that is not whole, or another"
            complete += 1
            if not chunks.exists():
                out.unlink()
    log = (folder / "log").read_text().splitlines()
    assert os.waitpid(child(folder, out), 0)[1] == 0
    found, solved = map(int, (folder / "log").read_text().splitlines()[len(log)].split())
    assert found + solved == weights
    assert out.read_bytes() == reference
    left = {path.name for path in folder.iterdir()} - {"compiled"}
    assert left == {"model.safetensors", "reference", "ticket", "log"}, left
    print(
        f"{killed} kills, {interrupted} before the ticket was there, {complete} times finished, {found} found at last"
    )


def wait_for_work(process: int, out: Path, chunks: Path, before: int = 0) -> None:
    """Until a child has written a chunk, or is past it."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if out.exists() or (chunks.exists() and len(list(chunks.glob("chunk-*"))) > before):
            return
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.002)
    raise TimeoutError("the child wrote nothing")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
